"""What a busy installation looks like: vendors with models, and ninety days of their work on record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import psycopg

from tests.usage_rows import with_days

Json: TypeAlias = dict[str, Any]
Make: TypeAlias = Callable[[str, Json], Json]
"""Makes a noun: the path below /api/v1, its body → the noun."""

VENDORS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "openai": ("OpenAI", "https://api.openai.com/v1", ("gpt-5.4-mini", "gpt-5.4", "gpt-4o-mini-2024-07-18")),
    "anthropic": (
        "Anthropic",
        "https://api.anthropic.com",
        ("claude-haiku-4-5-20251001", "claude-sonnet-4-5-20250929"),
    ),
    "mistral": ("Mistral AI", "https://api.mistral.ai/v1", ("mistral-small-2506", "mistral-large-2512")),
    "groq": ("Groq", "https://api.groq.com/openai/v1", ("llama-3.3-70b-versatile", "openai/gpt-oss-120b")),
    "openrouter": (
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        ("deepseek/deepseek-v3.2", "qwen/qwen3-max"),
    ),
}
CLASSES = [
    *(
        "timeout",
        "rate_limited",
        "server_error",
        "overloaded",
        "content_policy",
        "connection",
        "output_schema",
    ),
    *("bad_request", "quota", "auth"),
]
ERROR = (
    "HTTP 503 (server_is_overloaded): upstream connect error or disconnect/reset before headers. Try later."
)
DAYS = 90

# A week of calls by the minute, and the time before by the quarter of an hour; fewer at night, and ever more.
_MOMENTS = """
SELECT row_number() OVER () AS n, ended, random() AS luck, random() AS pace, random() AS choice FROM (
    SELECT at - random() * step AS ended FROM (
        SELECT at, interval '1 min' AS step, 1 + 3 * random() AS most
        FROM generate_series(now() - interval '7 days', now(), '1 min') AS at
        UNION ALL SELECT at, interval '15 min', 4 + 4 * random()
        FROM generate_series(now() - %(days)s * interval '1 day', now() - interval '7 days', '15 min') AS at
    ) AS steps, LATERAL generate_series(1, (most * (0.7 - 0.5 * cos(
        extract(epoch FROM at) / 86400 * 2 * pi())))::integer)
) AS ends OFFSET 0"""
_GIVEN = """
(SELECT %(features)s::text[] AS features, %(providers)s::text[] AS providers, %(models)s::text[] AS models,
    %(provider_ids)s::uuid[] AS provider_ids, %(model_ids)s::uuid[] AS model_ids,
    %(classes)s::text[] AS classes) AS given"""
_CALLS = f"""
INSERT INTO ai_usage_analytics (
    job_id, run, n, finished_at, started_at, feature, capability, lane, user_id, provider_id, provider,
    model_row_id, model, outcome, called, breaker, error_class, status, latency_ms, input_tokens,
    output_tokens, cached_tokens, tokens_estimated, cost_usd, worker)
SELECT md5(n::text)::uuid, 1, 1, ended, ended - interval '2 s',
    features[1 + n %% cardinality(features)], 'text', 'standard',
    'user-' || lpad((n %% 500)::text, 6, '0'), provider_ids[at], providers[at], model_ids[at],
    models[at],
    CASE WHEN luck > 0.04 THEN 'succeeded' WHEN luck > 0.01 THEN 'failed' WHEN luck > 0.005 THEN 'superseded'
        ELSE 'lost' END, true, 'closed',
    CASE WHEN luck <= 0.04 AND luck > 0.01
        THEN classes[1 + (pace ^ 2 * cardinality(classes))::integer %% cardinality(classes)] END,
    200, (350 + 120 * at) * (0.6 + 3 * pace ^ 4), 400 + 900 * pace, 80 + 400 * luck, 50 * pace, n %% 40 = 0,
    (0.0004 + 0.0006 * at) * (0.5 + pace), 'worker-7f9c4b:1'
FROM {_GIVEN}, ({_MOMENTS}) AS moments, LATERAL (
    SELECT 1 + floor(choice ^ 2 * cardinality(models))::integer AS at) AS chosen"""
_JOBS = f"""
INSERT INTO job_history (
    id, feature, capability, lane, priority, state, input, user_id, metadata, created_at, run_at, started_at,
    finished_at, run, retries, calls, provider, model, input_tokens, output_tokens, cost_usd, latency_ms,
    error_class, error_message, worker)
SELECT (lpad(to_hex((extract(epoch FROM ended) * 1000)::bigint), 12, '0') || '7'
        || right(md5(n::text), 19))::uuid,
    features[1 + n %% cardinality(features)], 'text', 'standard', 0,
    CASE WHEN n %% 9 = 4 THEN 'failed' ELSE 'succeeded' END, '{{"sign": "aries"}}',
    'user-' || lpad((n * 7919 %% 500)::text, 6, '0'), '{{}}', ended, ended, ended, ended, 1, 0, 1,
    providers[at], models[at], 400 + n * 37 %% 900, 80 + n * 53 %% 400,
    (0.0004 + 0.0006 * at) * (0.5 + n %% 10 / 10.0), 350 + n * 97 %% 2400,
    CASE WHEN n %% 9 = 4 THEN classes[1 + n / 9 %% cardinality(classes)] END,
    CASE WHEN n %% 9 = 4 THEN %(error)s END, 'worker-7f9c4b:1'
FROM {_GIVEN}, LATERAL (
    SELECT n, now() - n * interval '19 s' AS ended, 1 + n * 7 %% cardinality(models) AS at
    FROM generate_series(1, 300) AS n
) AS moments"""


def configure(make: Make) -> list[Json]:
    """Add the vendors with their models; these."""
    models = []
    for slug, (name, address, names) in VENDORS.items():
        body = {"slug": slug, "name": name, "base_url": address, "api_key": f"sk-{slug}-1234"}
        kind = "anthropic" if slug == "anthropic" else "openai_compatible"
        provider = make("/providers", {**body, "type": kind, "website": "https://example.com"})
        for model_id in names:
            name = model_id.rpartition("/")[2]
            model = {"provider_id": provider["id"], "model_id": model_id, "name": name}
            prices = {"input_price_per_1k": "0.00015", "output_price_per_1k": "0.0006"}
            abilities = {"capabilities": ["text"], "context_window": 200_000}
            models.append({**make("/models", model | prices | abilities), "slug": slug})
    return models


def work(db: psycopg.Connection[Any], models: Sequence[Json], features: Iterable[str]) -> None:
    """Write what the models did, which somebody counts afterwards. `db` is the owner's, in autocommit."""
    values: dict[str, Any] = {
        "days": DAYS,
        "features": list(features),
        "classes": CLASSES,
        "error": ERROR,
        "providers": [model["slug"] for model in models],
        "models": [model["model_id"] for model in models],
        "provider_ids": [UUID(model["provider_id"]) for model in models],
        "model_ids": [UUID(model["id"]) for model in models],
    }
    with_days(db, DAYS + 2)
    with db.transaction():
        db.execute("SELECT setseed(0.42)")
        db.execute(_CALLS.encode(), values)
        db.execute(_JOBS.encode(), values)
    db.execute("ANALYZE job_history, ai_usage_analytics")
