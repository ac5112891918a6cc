"""Pictures and recordings: what bytes are, by the first of them, and bare samples put into a container."""

from __future__ import annotations

import struct

IMAGE_INPUTS = ("image_url", "image_base64")
"""Members of a job's input that are a picture: where it lies, or its bytes."""
AUDIO_INPUTS = ("audio_url", "audio_base64")

_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_AUDIO = (
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"\x1aE\xdf\xa3", "audio/webm"),
)
_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/webm": "webm",
    "audio/mp4": "m4a",
    "application/jsonl": "jsonl",
}
_HEADER = 44  # bytes of a WAV file before its samples, as written here


def image_type(body: bytes) -> str | None:
    """Media type of a PNG, JPEG, GIF or WebP picture; None for anything else."""
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _IMAGES if body.startswith(magic)), None)


def audio_type(body: bytes) -> str | None:
    """Media type of a WAV, MP3, Ogg, FLAC, WebM or MP4 recording; None for anything else."""
    if body[:4] == b"RIFF" and body[8:12] == b"WAVE":
        return "audio/wav"
    if body[4:8] == b"ftyp":
        return "audio/mp4"
    return next((media_type for magic, media_type in _AUDIO if body.startswith(magic)), None)


def extension(media_type: str) -> str:
    """How a file of that type is named, without the dot."""
    return _EXTENSIONS.get(media_type, "bin")


def wav(samples: bytes, rate: int) -> bytes:
    """Bare samples (signed 16 bit, little-endian, one channel, `rate` a second) as a WAV file."""
    samples = samples[: len(samples) // 2 * 2]
    layout = struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
    size = struct.pack("<I", _HEADER - 8 + len(samples))
    return b"RIFF" + size + b"WAVEfmt " + layout + b"data" + struct.pack("<I", len(samples)) + samples


def wav_seconds(body: bytes) -> float | None:
    """How long a WAV file plays; None where its header does not tell."""
    if audio_type(body) != "audio/wav":
        return None
    rate = 0
    place = 12
    while place + 8 <= len(body):
        name, size = struct.unpack_from("<4sI", body, place)
        if name == b"fmt " and place + 20 <= len(body):
            (rate,) = struct.unpack_from("<I", body, place + 16)
        if name == b"data":
            return min(size, len(body) - place - 8) / rate if rate else None
        place += 8 + size + size % 2
    return None
