"""Keys of providers as clients send them, and as much of them as people see."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr


def _checked(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", secret.get_secret_value()):
        raise ValueError("A key is 1 to 4096 printable ASCII characters without spaces. Paste it anew.")
    return secret


ApiKey = Annotated[SecretStr, AfterValidator(_checked)]


def last4(clear: str) -> str:
    """The last four characters of a key; nothing of one that has no more than those."""
    return clear[-4:] if len(clear) > 4 else ""
