"""Small pictures out of nothing but a prompt: a real PNG, always the same one for the same words."""

import random
import re
import struct
import zlib

_LONGEST = 128
"""Pixels of the longer side: whoever asks for a large picture gets its shape, not its size."""
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


def draw(prompt: str, size: str = "auto") -> bytes:
    """A PNG of some circles on a gradient; ``size`` such as ``1536x1024`` gives its shape."""
    width, height = _shape(size)
    dice = random.Random(f"{prompt}\0{width}x{height}")  # noqa: S311 - variety, not secrecy
    top, bottom = _colour(dice), _colour(dice)
    circles = [
        (dice.randrange(width), dice.randrange(height), dice.randrange(6, 40) ** 2, _colour(dice))
        for _ in range(5)
    ]
    rows = bytearray()
    for y in range(height):
        rows.append(0)  # no filter
        share = y / max(1, height - 1)
        ground = bytes(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
        for x in range(width):
            inside = (colour for cx, cy, reach, colour in circles if (x - cx) ** 2 + (y - cy) ** 2 < reach)
            rows += next(inside, ground)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(rows), 6)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _shape(size: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(size)
    width, height = (int(found[1]), int(found[2])) if found else (1, 1)
    longest = max(width, height, 1)
    return max(1, width * _LONGEST // longest), max(1, height * _LONGEST // longest)


def _colour(dice: random.Random) -> bytes:
    return bytes(dice.randrange(256) for _ in range(3))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
