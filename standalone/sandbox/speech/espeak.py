"""The C interface of eSpeak NG (``speak_lib.h``), from the wheel ``espeakng-loader``."""

import ctypes
import threading
from array import array

from standalone.sandbox.speech.audio import Recording
from standalone.sandbox.speech.voices import Voice, language_of

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_EE_OK = 0
_RATE, _PITCH = 1, 3
_WORDS_PER_MINUTE = 175
_SLOWEST, _FASTEST = 80, 450
"""Words a minute that eSpeak NG speaks; a speed beyond them is spoken at the bound."""

_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class SpeechUnavailable(Exception):
    """No voice on this machine; the message says what to install."""


class _Engine:
    """The library has one voice and one callback per process and is not thread-safe: speak under the lock."""

    def __init__(self) -> None:
        self._library = _load()
        self._parts: list[bytes] = []
        # Kept on the instance: the library calls it for as long as it is loaded.
        self._callback = _SynthCallback(self._collect)
        options = (_AUDIO_OUTPUT_SYNCHRONOUS, 0, _data_path().encode(), _INITIALIZE_DONT_EXIT)
        self._rate: int = self._library.espeak_Initialize(*options)
        if self._rate <= 0:
            raise SpeechUnavailable("eSpeak NG did not start: its voice data could not be read")
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._parts.append(ctypes.string_at(samples, count * 2))
        return 0

    def speak(self, text: str, voice: Voice, speed: float) -> Recording:
        self._parts.clear()
        name = f"{language_of(text)}+{voice.variant}"
        if self._library.espeak_SetVoiceByName(name.encode()) != _EE_OK:
            raise SpeechUnavailable(f"eSpeak NG has no voice {name}")
        rate = round(max(_SLOWEST, min(_WORDS_PER_MINUTE * speed, _FASTEST)))
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        # A NUL would end the text for a C library, and a lone surrogate is no character.
        spoken = text.replace("\0", " ").encode("utf-8", "replace") + b"\0"
        arguments = (spoken, len(spoken), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        if self._library.espeak_Synth(*arguments) != _EE_OK:
            raise SpeechUnavailable("eSpeak NG refused the text")
        samples = array("h")
        samples.frombytes(b"".join(self._parts))
        self._parts.clear()
        return Recording(samples, self._rate)


_lock = threading.Lock()
_engine: _Engine | None = None


def speak(text: str, voice: Voice, speed: float = 1.0) -> Recording:
    """Speak ``text`` in the language of its script. Blocks; safe from any thread.

    The library keeps a little state from one utterance to the next, so that the same text twice is the same
    speech, yet not the same bytes. ``speed`` 1.0 is 175 words a minute.
    Raises SpeechUnavailable when the voice is not installed.
    """
    global _engine
    with _lock:
        if _engine is None:
            _engine = _Engine()
        return _engine.speak(text, voice, speed)


def _load() -> ctypes.CDLL:
    try:
        import espeakng_loader  # type: ignore[import-untyped]  # the wheel carries no types
    except ImportError as error:
        message = "speech needs eSpeak NG: install orrery[standalone] (the wheel espeakng-loader)"
        raise SpeechUnavailable(message) from error
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise SpeechUnavailable(f"eSpeak NG cannot be loaded: {error}") from error
    text, number, size = ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    library.espeak_Initialize.argtypes = [number, number, text, number]
    library.espeak_SetSynthCallback.argtypes = [_SynthCallback]
    library.espeak_SetSynthCallback.restype = None
    library.espeak_SetVoiceByName.argtypes = [text]
    library.espeak_SetParameter.argtypes = [number, number, number]
    library.espeak_Synth.argtypes = [
        text,
        size,
        ctypes.c_uint,
        number,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.POINTER(ctypes.c_uint),
        ctypes.c_void_p,
    ]
    return library


def _data_path() -> str:
    import espeakng_loader

    return str(espeakng_loader.get_data_path())
