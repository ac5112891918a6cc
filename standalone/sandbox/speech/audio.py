"""Containers and sample rates of spoken audio: signed 16-bit little-endian, mono."""

import io
import math
import sys
import wave
from array import array
from dataclasses import dataclass

PCM_RATE = 24_000
"""Samples per second of headerless ``pcm``, as its users expect."""


@dataclass(frozen=True)
class Recording:
    """``samples`` at ``rate`` per second, in this machine's byte order."""

    samples: "array[int]"
    rate: int

    @classmethod
    def of(cls, pcm: bytes, rate: int) -> "Recording":
        """Raw little-endian samples as a recording."""
        samples = array("h", pcm)
        if sys.byteorder == "big":
            samples.byteswap()
        return cls(samples, rate)


def as_wav(recording: Recording) -> bytes:
    """A RIFF WAVE file at the recording's own rate."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(recording.rate)
        writer.writeframes(_little_endian(recording.samples))
    return file.getvalue()


def as_pcm(recording: Recording, rate: int = PCM_RATE) -> bytes:
    """Raw samples at ``rate``, by linear interpolation.

    No filter: good enough for speech that goes up in rate by a tenth, and it needs nothing but the
    standard library.
    """
    samples = recording.samples
    divisor = math.gcd(recording.rate, rate)
    step, phases = recording.rate // divisor, rate // divisor
    if step == phases or len(samples) < 2:
        return _little_endian(samples)
    count = len(samples) * phases // step
    resampled = array("h", bytes(2 * count))
    # Output sample k lies at k*step/phases. All k with the same remainder share one weight, so whole slices
    # are computed at once: far quicker than sample by sample.
    padded = samples + samples[-1:]
    for phase in range(min(phases, count)):
        first, weight = divmod(phase * step, phases)
        left, right = padded[first::step], padded[first + 1 :: step]
        values = [a + (b - a) * weight // phases for a, b in zip(left, right, strict=False)]
        room = len(range(phase, count, phases))
        resampled[phase::phases] = array("h", values[:room])
    return _little_endian(resampled)


def _little_endian(samples: "array[int]") -> bytes:
    if sys.byteorder == "little":
        return samples.tobytes()
    swapped = samples[:]
    swapped.byteswap()
    return swapped.tobytes()
