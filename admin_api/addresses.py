"""The form of addresses that people give. Where they lead is checked at every connection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field


def flaw(text: str, schemes: Sequence[str]) -> str | None:
    """What is wrong with an address of one of the schemes; None: nothing."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[\x21-\x7e]+", text) or "\\" in text:
        return f"This must be an absolute {' or '.join(f'{scheme}://' for scheme in schemes)} address."
    if "@" in parts.netloc:
        return "The address must not hold a user or password. Use credentials."
    if "#" in text:
        return "The address must not hold a fragment."
    return None


def _checked(text: str) -> str:
    found = flaw(text, ("http", "https"))
    if found is not None:
        raise ValueError(found)
    return text


CallbackUrl = Annotated[
    str,
    AfterValidator(_checked),
    Field(
        max_length=2000,
        description="Told by a signed POST: with the secret of the default webhook integration, which also "
        "says whether it may lead to a private network.",
    ),
]
