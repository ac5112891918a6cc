"""Whatever bytes a provider answers, decoding ends in a Reply or a ProviderError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.errors import ProviderError
from routing.providers import CODECS, codec
from routing.providers.wire import HttpResponse
from routing.values import Capability, Reply
from tests.routing import factories

_KEYS = st.sampled_from(
    [
        *(
            "choices",
            "message",
            "content",
            "text",
            "type",
            "finish_reason",
            "refusal",
            "error",
            "code",
            "detail",
        ),
        *(
            "loc",
            "msg",
            "usage",
            "prompt_tokens",
            "prompt_tokens_details",
            "cached_tokens",
            "completion_tokens",
        ),
        *("data", "embedding", "index", "results", "categories", "flagged", "audio_data", "stop_reason"),
        *("stop_details", "details", "model", "id", "input_tokens", "metadata", "x_groq", "param", "cost"),
        *("candidates", "parts", "inlineData", "mimeType", "finishReason", "promptFeedback", "blockReason"),
        *("usageMetadata", "promptTokenCount", "violations", "quotaId", "retryDelay", "@type", "reason"),
        *("embeddings", "values", "b64_json", "url", "status", "output", "incomplete_details", "duration"),
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("stop"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=20,
)
_BODIES = _JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50)
_HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "retry-after", "retry-after-ms", "date", "x-request-id"]),
    st.sampled_from(["application/json", "audio/mpeg", "text/html", "1e999", "Wed, 99 Foo 2026", "", "-1"]),
)
_ROUTES = [
    *((protocol, "chat", capability) for protocol, codecs in CODECS.items() for capability in codecs),
    ("openai_compatible", "responses", Capability.TEXT),
]


@pytest.mark.parametrize(("protocol", "style", "capability"), _ROUTES)
@given(
    status=st.sampled_from([200, 201, 400, 401, 403, 404, 409, 422, 429, 500, 503, 529]),
    body=_BODIES,
    headers=_HEADERS,
)
def test_decoding_never_breaks(
    protocol: str, style: str, capability: Capability, status: int, body: bytes, headers: dict[str, Any]
) -> None:
    to = factories.route(factories.provider(protocol=protocol), api_style=style)
    call = factories.call(capability, to=to)
    result: Reply | ProviderError
    try:
        result = codec(to, capability).decode(HttpResponse(status, headers, body), call)
    except ProviderError as error:
        result = error
    if isinstance(result, Reply):
        assert status < 400
    else:
        assert 0 < len(result.message) <= 2000
