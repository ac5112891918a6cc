"""``:embedContent`` and ``:batchEmbedContents``."""

import asyncio

from standalone.sandbox.embeddings import embed
from standalone.sandbox.protocols.gemini_fields import Body, invalid, reject_unknown
from standalone.sandbox.values import Answer, json_answer

_KNOWN = frozenset(["model", "content", "taskType", "title", "outputDimensionality"])
_DIMENSIONS = 3072
_MOST = 100


async def embed_content(_: str, body: Body) -> Answer:
    return json_answer({"embedding": {"values": await _vector(body)}})


async def embed_contents(_: str, body: Body) -> Answer:
    requests = body.get("requests")
    if not isinstance(requests, list) or not requests:
        raise invalid("* BatchEmbedContentsRequest.requests: requests must not be empty.")
    if len(requests) > _MOST:
        raise invalid(f"* BatchEmbedContentsRequest.requests: at most {_MOST} requests can be in one batch")
    return json_answer({"embeddings": [{"values": await _vector(request)} for request in requests]})


async def _vector(request: object) -> list[float]:
    if not isinstance(request, dict):
        raise invalid("Invalid value at 'requests'.")
    reject_unknown(request, _KNOWN)
    dimensions = request.get("outputDimensionality", _DIMENSIONS)
    if type(dimensions) is not int or not 1 <= dimensions <= _DIMENSIONS:
        raise invalid(f"outputDimensionality: 1 to {_DIMENSIONS}.")
    content = request.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    text = "\n".join(text for text in texts if isinstance(text, str))
    if not text:
        raise invalid("* EmbedContentRequest.content: contents is not specified")
    return (await asyncio.to_thread(embed, text, dimensions)).tolist()
