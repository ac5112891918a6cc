"""ElevenLabs' protocol under ``/elevenlabs/v1``: speech, transcription, and what a key may see."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from standalone.sandbox.forms import read_form
from standalone.sandbox.speech import SpeechUnavailable, as_pcm, as_wav, speak
from standalone.sandbox.speech.audio import Recording
from standalone.sandbox.speech.transcript import hear, seconds_of, with_text
from standalone.sandbox.speech.voices import VOICES, custom_voice
from standalone.sandbox.values import Answer, Call, Refusal, fresh_id, json_answer

_SPEAK = re.compile(r"/v1/text-to-speech/([^/]+)")
_KNOWN = frozenset(
    [
        *("text", "model_id", "language_code", "voice_settings", "seed", "previous_text", "next_text"),
        *("previous_request_ids", "next_request_ids", "apply_text_normalization"),
        "pronunciation_dictionary_locators",
    ]
)
_FORMAT = re.compile(r"(wav|pcm)_(8000|16000|22050|24000|32000|44100|48000)")
_DEFAULT_FORMAT = "wav_24000"
_MAX_CHARACTERS = 10_000
_CONCURRENCY = 20

# Of each status: type, code, message.
_FAILURES: Mapping[int, tuple[str, str, str]] = {
    400: ("validation_error", "invalid_parameters", "The request could not be processed."),
    401: ("authentication_error", "invalid_api_key", "Invalid API key"),
    402: ("payment_required", "insufficient_credits", "You have insufficient credits for this request."),
    403: ("authorization_error", "subscription_required", "Your plan does not include this feature."),
    404: ("not_found", "model_not_found", "The model was not found."),
    409: ("conflict", "conflict", "The request conflicts with another one."),
    429: ("rate_limit_error", "rate_limit_exceeded", "Too many requests. Please try again later."),
    500: ("internal_error", "internal_error", "An internal error has occurred."),
    503: ("service_unavailable", "service_unavailable", "The service is unavailable."),
}
_MODEL_IDS = ("eleven_v3", "eleven_multilingual_v2", "eleven_flash_v2_5")


class ElevenLabs:
    def key(self, call: Call) -> str | None:
        return call.header(b"xi-api-key")

    def model(self, call: Call) -> str | None:
        form = read_form(call)
        if form is not None:
            return form.fields.get("model_id")
        model = call.document.get("model_id") if isinstance(call.document, dict) else None
        return model if isinstance(model, str) else None

    async def answer(self, call: Call) -> Answer:
        self._authenticate(call)
        if call.too_large:
            raise _refused(400, "request_too_large", "The request is too large.")
        found = _SPEAK.fullmatch(call.path)
        if call.method == "POST" and found is not None:
            answer = await _speech(call, unquote(found[1]))
        elif call.method == "POST" and call.path == "/v1/speech-to-text":
            answer = await _transcription(call)
        elif call.method == "GET" and call.path in _SIGHTS:
            answer = json_answer(_SIGHTS[call.path])
        else:
            raise Refusal(404, "Not Found")
        headers = (
            (b"request-id", fresh_id("").encode()),
            (b"current-concurrent-requests", b"1"),
            (b"maximum-concurrent-requests", b"%d" % _CONCURRENCY),
        )
        return Answer(answer.status, answer.media_type, answer.chunks, (*headers, *answer.headers))

    def _authenticate(self, call: Call) -> None:
        key = self.key(call)
        if key is None:
            raise _refused(401, "missing_api_key", "The xi-api-key header is missing.")
        if key == "bad-key":
            raise _refused(401, "invalid_api_key", "Invalid API key")
        if key == "speech-only-key" and call.path == "/v1/user":
            raise _refused(401, "missing_permissions", "The API key lacks the permission user_read.")

    def refuse(self, refusal: Refusal, call: Call) -> Answer:
        kind, code, _ = _failure(refusal.status)
        detail = {
            "type": refusal.kind or kind,
            "code": refusal.code or code,
            "message": refusal.message,
            "request_id": fresh_id(""),
            "param": refusal.param,
            "status": refusal.code or code,
        }
        return json_answer({"detail": detail}, refusal.headers, refusal.status)

    def failure(self, status: int, code: str | None, retry_after: float | None) -> Refusal:
        kind, usual_code, message = _failure(status)
        if code == "insufficient_quota":
            code, message = "quota_exceeded", "This request exceeds your quota."
        headers = () if retry_after is None else ((b"retry-after", b"%g" % retry_after),)
        return Refusal(status, message, kind, code=code or usual_code, headers=headers)


def _failure(status: int) -> tuple[str, str, str]:
    return _FAILURES.get(status, _FAILURES[500 if status >= 500 else 400])


def _refused(status: int, code: str, message: str, param: str | None = None) -> Refusal:
    return Refusal(status, message, code=code, param=param)


async def _speech(call: Call, voice_id: str) -> Answer:
    body = call.document
    if not isinstance(body, dict):
        raise _refused(400, "invalid_parameters", "The body is no JSON object.")
    unknown = sorted(set(body) - _KNOWN)
    if unknown:
        raise _refused(400, "invalid_parameters", f"Unknown parameter: {unknown[0]}", unknown[0])
    text = body.get("text")
    if not isinstance(text, str) or not text.strip():
        raise _refused(400, "invalid_parameters", "text must not be empty", "text")
    if len(text) > _MAX_CHARACTERS:
        raise _refused(400, "text_too_long", f"text exceeds {_MAX_CHARACTERS} characters", "text")
    if voice_id == "no-such-voice":
        raise _refused(404, "voice_not_found", f"A voice with the id {voice_id} was not found.")
    container, rate = _output_format(call)
    settings = body.get("voice_settings")
    speed = settings.get("speed", 1.0) if isinstance(settings, dict) else 1.0
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0.7 <= speed <= 1.2:
        raise _refused(400, "invalid_parameters", "speed: 0.7 to 1.2", "voice_settings.speed")
    sound = await asyncio.to_thread(_spoken, text, voice_id, float(speed), container, rate)
    cost = ((b"character-cost", b"%d" % len(text)),)
    return Answer(200, b"audio/wav" if container == "wav" else b"audio/pcm", (sound,), cost)


def _spoken(text: str, voice_id: str, speed: float, container: str, rate: int) -> bytes:
    try:
        recording = speak(text, VOICES.get(voice_id) or custom_voice(voice_id), speed)
    except SpeechUnavailable as error:
        raise Refusal(500, str(error)) from error
    samples = as_pcm(recording, rate)
    return with_text(as_wav(Recording.of(samples, rate)), text) if container == "wav" else samples


def _output_format(call: Call) -> tuple[str, int]:
    wanted = parse_qs(call.query).get("output_format", [_DEFAULT_FORMAT])[-1]
    found = _FORMAT.fullmatch(wanted)
    if found is None:
        message = f"output_format {wanted} is not made here: wav_* and pcm_* are."
        raise _refused(400, "invalid_output_format", message, "output_format")
    return found[1], int(found[2])


async def _transcription(call: Call) -> Answer:
    form = read_form(call)
    if form is None or "model_id" not in form.fields:
        raise _refused(400, "invalid_parameters", "model_id is required", "model_id")
    if not form.file:
        raise _refused(400, "invalid_parameters", "Must provide a file.", "file")
    text = await asyncio.to_thread(hear, form.file, form.fields["model_id"])
    seconds = round(seconds_of(form.file), 3)
    words = [{"text": word, "type": "word"} for word in text.split()]
    return json_answer(
        {
            "text": text,
            "language_code": form.fields.get("language_code", "eng"),
            "language_probability": 0.98,
            "words": words,
            "audio_duration_secs": seconds,
        }
    )


def _model(name: str) -> dict[str, Any]:
    return {
        "model_id": name,
        "name": name.replace("_", " ").title(),
        "can_do_text_to_speech": True,
        "can_do_voice_conversion": False,
        "languages": [{"language_id": "en", "name": "English"}, {"language_id": "ar", "name": "Arabic"}],
        "maximum_text_length_per_request": _MAX_CHARACTERS,
        "model_rates": {"character_cost_multiplier": 1.0},
    }


_VOICES = [{"voice_id": name, "name": name.title(), "category": "premade"} for name in VOICES]
_SIGHTS: Mapping[str, Any] = {
    "/v1/user": {
        "user_id": "sandbox",
        "subscription": {"tier": "creator", "character_count": 0, "character_limit": 1_000_000},
    },
    "/v1/models": [_model(name) for name in _MODEL_IDS],
    "/v1/voices": {"voices": _VOICES},
    "/v2/voices": {"voices": _VOICES, "has_more": False, "total_count": len(_VOICES)},
}
