"""What a session was begun with, in plain words, by its User-Agent: a hint, for anybody may name any."""

from __future__ import annotations

import re
from collections.abc import Sequence

Marks = Sequence[tuple[str, str]]

# The first that is found counts: browsers name those that they resemble, too.
_BROWSERS: Marks = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("HeadlessChrome/", "Chrome without a window"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Marks = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
_PRODUCT = re.compile(r"([\w.+-]{1,40})/(\d+(?:\.\d+)?)")


def device(user_agent: str | None) -> str:
    """`Firefox on Linux`, `curl 8.5`, or what is there."""
    if not user_agent:
        return "Unnamed program"
    browser, system = _first(_BROWSERS, user_agent), _first(_SYSTEMS, user_agent)
    if browser and system:
        return f"{browser} on {system}"
    product = _PRODUCT.match(user_agent)
    return browser or (f"{product[1]} {product[2]}" if product else user_agent[:60])


def _first(marks: Marks, text: str) -> str | None:
    return next((name for mark, name in marks if mark in text), None)
