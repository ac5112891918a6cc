"""Names of application tokens: what people tell them apart by, in one line of a list."""

from __future__ import annotations

LONGEST = 100  # characters


def checked_name(name: str) -> str:
    """The name without blanks around it. Raises ValueError where it is empty, too long or not one line."""
    tidy = name.strip()
    if not 1 <= len(tidy) <= LONGEST or not tidy.isprintable():
        raise ValueError(f"A token's name has 1 to {LONGEST} printable characters on one line.")
    return tidy
