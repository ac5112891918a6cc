"""``:generateContent``, whole and streamed: text, and by its ``responseModalities`` speech and pictures;
``:countTokens``."""

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from standalone.sandbox.completion import Limits, complete, count_prompt, pieces
from standalone.sandbox.picture import draw
from standalone.sandbox.protocols.gemini_fields import (
    Body,
    Contents,
    invalid,
    mapping,
    number,
    read_contents,
    reject_unknown,
)
from standalone.sandbox.speech import SpeechUnavailable, as_pcm, as_wav, speak
from standalone.sandbox.speech.audio import PCM_RATE
from standalone.sandbox.speech.transcript import hear, seconds_of, with_text
from standalone.sandbox.speech.voices import custom_voice
from standalone.sandbox.tokens import count_tokens
from standalone.sandbox.values import Answer, Refusal, encode_json, fresh_id, json_answer

_KNOWN = frozenset(
    [
        *("contents", "systemInstruction", "generationConfig", "safetySettings", "serviceTier", "tools"),
        *("toolConfig", "cachedContent", "model"),
    ]
)
_CONFIG = frozenset(
    [
        *("maxOutputTokens", "temperature", "topP", "topK", "stopSequences", "seed", "candidateCount"),
        *("presencePenalty", "frequencyPenalty", "responseMimeType", "responseJsonSchema", "responseSchema"),
        *("thinkingConfig", "responseModalities", "speechConfig", "imageConfig", "mediaResolution"),
    ]
)
_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
_RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_SENDS_PCM = re.compile(r"gemini-(?:2|3\.[01])")  # models of before send samples without a container
_BLOCKED = "BLOCK-THIS-PROMPT"
"""A prompt with these words is blocked, as one that breaks the rules would be."""
_TOKENS_PER_SECOND = 25
_TOKENS_PER_IMAGE = 1290


async def generate(model: str, body: Body) -> Answer:
    reject_unknown(body, _KNOWN)
    config = mapping(body, "generationConfig")
    reject_unknown(config, _CONFIG, "generation_config")
    sent = read_contents(body)
    if _BLOCKED in sent.prompt.question:
        usage = _usage(count_prompt(sent.prompt))
        return _answer(model, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **usage})
    modalities = config.get("responseModalities") or ["TEXT"]
    if "AUDIO" in modalities:
        return await _speech(model, config, sent)
    if "IMAGE" in modalities:
        return await _picture(model, config, sent)
    if sent.audio:
        return await _transcript(model, sent)
    return _text(model, config, sent)


def fragments(answer: Answer, *, as_events: bool) -> Answer:
    """The answer in pieces, each a response of its own: as events, else as one array. Usage is in all of
    them, the finish reason in the last; nothing marks the end."""
    whole = json.loads(b"".join(answer.chunks))
    (candidate,) = whole.get("candidates") or [None]
    parts = candidate["content"]["parts"] if candidate else []
    if len(parts) != 1 or "text" not in parts[0]:
        documents = [whole]
    else:
        begun = {name: value for name, value in candidate.items() if name not in ("content", "finishReason")}
        said = [_said(piece) for piece in pieces(parts[0]["text"])]
        candidates = [{**begun, "content": content} for content in said[:-1]]
        last = {**candidate, "content": said[-1]}
        documents = [{**whole, "candidates": [one]} for one in (*candidates, last)]
    if not as_events:
        return json_answer(documents)
    events = tuple(b"data: " + encode_json(document) + b"\r\n\r\n" for document in documents)
    return Answer(200, b"text/event-stream", events, streamed=True)


def _said(text: str) -> dict[str, Any]:
    return {"role": "model", "parts": [{"text": text}]}


async def count_content_tokens(_: str, body: Body) -> Answer:
    return json_answer({"totalTokens": count_prompt(read_contents(body).prompt)})


def _text(model: str, config: Body, sent: Contents) -> Answer:
    limit = number(config, "maxOutputTokens", 1, 65_536)
    number(config, "temperature", 0, 2)
    number(config, "topP", 0, 1)
    level = mapping(config, "thinkingConfig").get("thinkingLevel")
    if level is not None and level not in _LEVELS:
        raise invalid(f"Invalid value at 'generation_config.thinking_config.thinking_level', \"{level}\"")
    stops = config.get("stopSequences") or []
    if not isinstance(stops, list) or len(stops) > 5:
        raise invalid("stopSequences: at most 5 texts.")
    limits = Limits(None if limit is None else int(limit), tuple(map(str, stops)))
    completion = complete(sent.prompt, model, limits, json_schema=_json_schema(config))
    usage = completion.usage
    counts = _usage(
        usage.prompt, usage.completion - usage.reasoning, thoughts=usage.reasoning, cached=usage.cached
    )
    finish = "MAX_TOKENS" if completion.finish == "length" else "STOP"
    parts = [{"text": completion.text}] if completion.text else []
    return _answer(model, {"candidates": [_candidate(parts, finish)], **counts})


def _json_schema(config: Body) -> Mapping[str, Any] | None:
    if config.get("responseMimeType") != "application/json":
        return None
    schema = config.get("responseJsonSchema") or config.get("responseSchema") or {}
    if not isinstance(schema, dict):
        raise invalid("Invalid value at 'generation_config.response_json_schema'.")
    return schema


async def _speech(model: str, config: Body, sent: Contents) -> Answer:
    text = sent.prompt.question
    if not text.strip():
        raise invalid("Text to speak must not be empty.")
    if any(name in config for name in ("temperature", "topP", "topK")):
        raise invalid("Sampling parameters are not supported for this model.")
    voice = mapping(mapping(config, "speechConfig"), "voiceConfig")
    name = voice.get("voice") or mapping(voice, "prebuiltVoiceConfig").get("voiceName") or "Kore"
    try:
        recording = await asyncio.to_thread(speak, text, custom_voice(str(name)))
    except SpeechUnavailable as error:
        raise Refusal(500, str(error)) from error
    wav = await asyncio.to_thread(as_wav, recording)
    media_type, sound = "audio/wav", with_text(wav, text)
    if _SENDS_PCM.match(model):
        media_type = f"audio/L16;codec=pcm;rate={PCM_RATE}"
        sound = await asyncio.to_thread(as_pcm, recording)
    spoken = round(seconds_of(wav) * _TOKENS_PER_SECOND)
    counts = _usage(count_prompt(sent.prompt), spoken, modality="AUDIO")
    return _answer(model, {"candidates": [_candidate([_inline(media_type, sound)])], **counts})


async def _picture(model: str, config: Body, sent: Contents) -> Answer:
    shape = mapping(config, "imageConfig")
    ratio = shape.get("aspectRatio", "1:1")
    if ratio not in _RATIOS:
        raise invalid(f"Invalid value at 'generation_config.image_config.aspect_ratio', \"{ratio}\"")
    picture = await asyncio.to_thread(draw, sent.prompt.question, ratio.replace(":", "x"))
    counts = _usage(count_prompt(sent.prompt), _TOKENS_PER_IMAGE, modality="IMAGE")
    parts = [{"text": "Here it is."}, _inline("image/png", picture)]
    return _answer(model, {"candidates": [_candidate(parts)], **counts})


async def _transcript(model: str, sent: Contents) -> Answer:
    texts = [await asyncio.to_thread(hear, recording, model) for recording in sent.audio]
    text = "\n".join(texts)
    heard = sum(round(seconds_of(recording) * _TOKENS_PER_SECOND) for recording in sent.audio)
    counts = _usage(count_prompt(sent.prompt) + heard, count_tokens(text))
    return _answer(model, {"candidates": [_candidate([{"text": text}])], **counts})


def _answer(model: str, members: Mapping[str, Any]) -> Answer:
    return json_answer({**members, "modelVersion": model, "responseId": fresh_id("")})


def _candidate(parts: list[dict[str, Any]], finish: str = "STOP") -> dict[str, Any]:
    content = {"role": "model", **({"parts": parts} if parts else {})}
    return {"content": content, "finishReason": finish, "index": 0}


def _inline(media_type: str, body: bytes) -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type, "data": base64.b64encode(body).decode()}}


def _usage(
    prompt: int, written: int | None = None, *, thoughts: int = 0, cached: int = 0, modality: str = "TEXT"
) -> dict[str, Any]:
    """The candidates' tokens leave out the thoughts; the prompt's include what came from the cache."""
    counts: dict[str, Any] = {
        "promptTokenCount": prompt,
        "totalTokenCount": prompt + (written or 0) + thoughts,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    }
    if written is not None:
        counts["candidatesTokenCount"] = written
        counts["candidatesTokensDetails"] = [{"modality": modality, "tokenCount": written}]
    if thoughts:
        counts["thoughtsTokenCount"] = thoughts
    if cached:
        counts["cachedContentTokenCount"] = cached
    return {"usageMetadata": counts}
