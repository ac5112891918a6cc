"""Uploads: the fields and the file of a ``multipart/form-data`` body."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from standalone.sandbox.values import Call

_BOUNDARY = re.compile(r"boundary=\"?([^\";]+)")
_NAME = re.compile(r"\bname=\"([^\"]*)\"")
_FILENAME = re.compile(r"\bfilename=\"([^\"]*)\"")


@dataclass(frozen=True)
class Form:
    """``filename`` is None where no file was sent."""

    fields: Mapping[str, str] = field(default_factory=dict)
    filename: str | None = None
    file: bytes = field(default=b"", repr=False)


def read_form(call: Call) -> Form | None:
    """The form in the call's body, or None where there is none."""
    content_type = call.header(b"content-type") or ""
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None:
        return None
    fields: dict[str, str] = {}
    filename, file = None, b""
    for part in call.body.split(b"--" + found[1].encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        text = head.decode("utf-8", "replace")
        name, named = _NAME.search(text), _FILENAME.search(text)
        content = content.removesuffix(b"\r\n")
        if named is not None:
            filename, file = named[1], content
        elif name is not None:
            fields[name[1]] = content.decode("utf-8", "replace")
    return Form(fields, filename, file)
