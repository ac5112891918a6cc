"""Real speech without a network: eSpeak NG, spoken into memory."""

from standalone.sandbox.speech.audio import Recording, as_pcm, as_wav
from standalone.sandbox.speech.espeak import SpeechUnavailable, speak

__all__ = ["Recording", "SpeechUnavailable", "as_pcm", "as_wav", "speak"]
