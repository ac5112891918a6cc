"""Hearing what the sandbox has spoken: its WAV files carry their text, as a comment that players skip."""

import io
import struct
import wave

from standalone.sandbox.completion import complete
from standalone.sandbox.prose.prompt import Prompt

_COMMENT = b"ICMT"


def with_text(wav: bytes, text: str) -> bytes:
    """The WAV file with its text in a LIST INFO chunk behind the samples."""
    comment = text.encode("utf-8", "replace")
    comment += b"\0" * (1 + (len(comment) + 1) % 2)
    info = b"INFO" + _COMMENT + struct.pack("<I", len(comment)) + comment
    whole = wav[8:] + b"LIST" + struct.pack("<I", len(info)) + info
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def hear(audio: bytes, model: str) -> str:
    """What is said in the recording. Of one that the sandbox did not make, something invented."""
    place = audio.rfind(b"INFO" + _COMMENT)
    if place >= 0 and len(audio) >= place + 12:
        (size,) = struct.unpack_from("<I", audio, place + 8)
        return audio[place + 12 : place + 12 + size].rstrip(b"\0").decode("utf-8", "replace")
    question = f"What is said in the recording of {len(audio)} bytes?"
    return complete(Prompt("", (("user", question),)), model).text


def seconds_of(audio: bytes) -> float:
    """How long it plays; of anything but WAV a guess by its size."""
    try:
        with wave.open(io.BytesIO(audio)) as sound:
            return float(sound.getnframes() / sound.getframerate())
    except (wave.Error, EOFError, ZeroDivisionError):
        return len(audio) / 16_000
