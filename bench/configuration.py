"""The configuration that the benchmarks run with: the size of a real one, not a single lonely row."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any
from uuid import UUID

from tests.rows import Rows

FEATURE = "daily_zodiac_text"
"""The job of the throughput benchmark; lane `batch`."""
INPUT: dict[str, Any] = {"sign": "aries", "language": "en"}
INTERACTIVE_FEATURE = "chat_assistant"
INTERACTIVE_INPUT: dict[str, Any] = {"message": "What do the stars say about Tuesday?"}

_PROVIDERS = 5
_MODELS_EACH = 8
_TARGETS = 3
_SYSTEM = "You are a warm, concise astrologer. Never give medical, legal or financial advice."
_USER = "Write today's horoscope for {{ sign }} in {{ language }}, in three sentences."
_SIGNS = (
    *("aries", "taurus", "gemini", "cancer", "leo", "virgo"),
    *("libra", "scorpio", "sagittarius", "capricorn", "aquarius", "pisces"),
)
_LANGUAGES = ("en", "ar", "de")
_DAYS = 3650
_PLAIN_FEATURES = (
    *("analytics_insights", "chat_assistant", "emergency_assistant", "cv_draft", "cover_letter"),
    *("code_generation", "job_extraction", "tarot_reading"),
)


def distinct_input(number: int) -> dict[str, Any]:
    """An input of the job of the benchmark that is like no other below 131,400."""
    day, sign = divmod(number, len(_SIGNS))
    language, day = divmod(day, _DAYS)
    return {
        "sign": _SIGNS[sign],
        "language": _LANGUAGES[language],
        "date": (date(2026, 1, 1) + timedelta(days=day)).isoformat(),
    }


def write(rows: Rows, base_url: str) -> None:
    """Five providers with eight priced models each; every text feature has a primary and two backups."""
    models = [
        _models(rows, rows.provider(f"provider-{number}", base_url), number) for number in range(_PROVIDERS)
    ]
    first, second, third = (of_provider[0] for of_provider in models[:_TARGETS])
    rows.assign(FEATURE, first, second, third, system=_SYSTEM, user=_USER)
    for feature in _PLAIN_FEATURES:
        rows.assign(feature, first, second, third)


def _models(rows: Rows, provider_id: UUID, number: int) -> list[UUID]:
    return [rows.model(provider_id, f"model-{number}-{index}") for index in range(_MODELS_EACH)]
