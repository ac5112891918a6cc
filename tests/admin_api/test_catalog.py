"""The catalog: what it knows, and what installing copies."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from admin_api.vendors import vendors
from routing.providers import ALIASES, CODECS
from routing.values import Capability
from tests.admin_api.conftest import Api, Json
from tests.admin_api.nouns import KEY
from tests.sandbox import Sandbox

TYPES = {"openai_compatible", "anthropic", "gemini", "elevenlabs"}


def listed(api: Api, **params: object) -> list[Json]:
    answer = api.get("/catalog", params=params)
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


def test_the_shipped_data_is_sound() -> None:
    environment: list[str] = []
    for slug, vendor in vendors().items():
        assert vendor.type in TYPES, slug
        assert vendor.is_supported == (vendor.type in CODECS)
        assert not vendor.base_url.endswith("/")
        if vendor.type == "openai_compatible":
            assert vendor.base_url.endswith("/v1"), slug
        else:
            assert vendor.base_url.count("/") == 2, "the host alone"
        environment += vendor.environment
        ids = [model.model_id for model in vendor.models]
        assert len(ids) == len(set(ids))
        for model in vendor.models:
            assert model.capabilities, model.model_id
            assert set(model.capabilities) <= set(Capability)
            starts = [price.valid_from or datetime(2020, 1, 1, tzinfo=UTC) for price in model.prices]
            assert starts == sorted(set(starts)), model.model_id
            for price in model.prices:
                assert price.input_price_per_1k is None or price.input_price_per_1k >= 0
                assert (
                    price.input_price_per_1k or price.output_price_per_1k or Decimal(0)
                ).as_tuple().exponent >= -12  # type: ignore[operator]  # finite
    assert len(environment) == len(set(environment)), "a variable belongs to one vendor"
    assert {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "ELEVENLABS_API_KEY"} <= set(environment)


@pytest.mark.parametrize(
    ("slug", "model_id", "capability", "unit"),
    [
        ("openai", "gpt-5.4-mini", "text", "tokens"),
        ("openai", "tts-1", "speech", "characters"),
        ("openai", "whisper-1", "transcription", "seconds"),
        ("openai", "text-embedding-3-small", "embedding", "tokens"),
        ("openai", "omni-moderation-latest", "moderation", "tokens"),
        ("openai", "gpt-image-2", "image", "tokens"),
        ("anthropic", "claude-sonnet-5-5", "text", "tokens"),
        ("elevenlabs", "eleven_multilingual_v2", "speech", "characters"),
        ("groq", "whisper-large-v3-turbo", "transcription", "seconds"),
    ],
)
def test_it_knows_the_usual(slug: str, model_id: str, capability: str, unit: str) -> None:
    model = vendors()[slug].model(model_id)
    assert model is not None
    assert capability in model.capabilities
    assert {price.price_unit for price in model.prices} == {unit}


def test_it_tells_retirements_and_batch_prices() -> None:
    tts, mini = vendors()["openai"].model("tts-1"), vendors()["openai"].model("gpt-5.4")
    assert tts is not None
    assert mini is not None
    assert str(tts.retires_at) == "2027-01-06"
    assert "alloy" in tts.voices
    (price,) = mini.prices
    assert price.batch_input_price_per_1k == Decimal("0.00125")
    assert price.input_price_per_1k == Decimal("0.0025")


def test_vendors_come_in_pages(api: Api) -> None:
    whole = [item["provider"] for item in listed(api)]
    assert whole == sorted(vendors())
    first = api.get("/catalog", params={"limit": 3}).json()
    rest = listed(api, cursor=first["next_cursor"])
    assert [item["provider"] for item in (*first["items"], *rest)] == whole
    (one,) = listed(api, provider="anthropic")
    assert one["provider"] == "anthropic"
    assert listed(api, provider="nobody") == []


def install(api: Api, sandbox: Sandbox, **members: object) -> Json:
    body = {
        "api_key": KEY,
        "models": ["gpt-5.4-mini", "tts-1"],
        "base_url": sandbox.openai,
        "allow_private_network": True,
        **members,
    }
    answer = api.post("/catalog/openai/install", body)
    return {"status": answer.status_code, **answer.json()}


def test_install_copies_what_was_chosen(api: Api, sandbox: Sandbox) -> None:
    made = install(api, sandbox)
    assert made["status"] == 201, made
    assert made["test"]["ok"] is True
    assert (made["provider"]["slug"], made["provider"]["api_key_last4"]) == ("openai", KEY[-4:])
    assert KEY not in str(made)
    speech = next(model for model in made["models"] if model["model_id"] == "tts-1")
    assert (speech["price_unit"], speech["input_price_per_1k"]) == ("characters", "0.015")
    assert speech["capabilities"] == ["speech"]
    (price,) = api.get(f"/models/{speech['id']}/prices").json()["items"]
    assert price["is_in_force"]
    api.made("/feature-assignments", {"feature_name": "daily_zodiac_tts", "model_id": speech["id"]})
    (shown,) = listed(api, provider="openai")
    assert (shown["is_installed"], shown["provider_id"]) == (True, made["provider"]["id"])
    assert {model["model_id"] for model in shown["models"] if model["is_installed"]} == {
        "gpt-5.4-mini",
        "tts-1",
    }

    again = install(api, sandbox)
    assert (again["status"], again["errors"][0]["field"]) == (409, "add_to_existing")
    api.patch(f"/models/{speech['id']}", {"input_price_per_1k": "7"})
    more = install(api, sandbox, add_to_existing=True, api_key=None, models=["gpt-5.4", "tts-1"])
    assert more["status"] == 201, more
    assert ([model["model_id"] for model in more["models"]], more["skipped"]) == (["gpt-5.4"], ["tts-1"])
    assert more["provider"] == made["provider"]
    assert api.get(f"/models/{speech['id']}").json()["input_price_per_1k"] == "7", "the database decides"


def test_nothing_is_installed_where_anything_is_wrong(api: Api, sandbox: Sandbox) -> None:
    cases: list[tuple[Json, int, str]] = [
        ({"api_key": "bad-key"}, 422, "api_key"),
        ({"api_key": None}, 422, "api_key"),
        ({"api_key": "two words"}, 422, "api_key"),
        ({"models": ["gpt-5.4", "no-such-model"]}, 422, "models/1"),
        ({"base_url": "ftp://example.com"}, 422, "base_url"),
        ({"colour": "red"}, 422, "colour"),
    ]
    for members, status, field in cases:
        refused = install(api, sandbox, **members)
        assert (refused["status"], refused["errors"][0]["field"]) == (status, field), members
    assert api.post("/catalog/nobody/install", {"api_key": KEY}).status_code == 404
    assert api.get("/providers").json()["items"] == []
    forced = install(api, sandbox, api_key="bad-key", test=False, models=[])
    assert (forced["status"], forced["models"], forced["test"]) == (201, [], None)


@pytest.mark.parametrize(
    ("slug", "model_id", "feature"),
    [
        ("gemini", "gemini-3.8-flash", "image_validation"),
        ("gemini", "gemini-3.8-flash-tts", "notifications_tts"),
        ("elevenlabs", "scribe_v2", "audio_transcription"),
    ],
)
def test_other_protocols_are_installed_and_assigned(
    api: Api, sandbox: Sandbox, slug: str, model_id: str, feature: str
) -> None:
    body = {
        "api_key": KEY,
        "models": [model_id],
        "base_url": getattr(sandbox, slug),
        "allow_private_network": True,
    }
    answer = api.post(f"/catalog/{slug}/install", body)
    assert answer.status_code == 201, answer.text
    (model,) = answer.json()["models"]
    api.made("/feature-assignments", {"feature_name": feature, "model_id": model["id"]})


def test_what_no_adapter_speaks_is_not_installed(api: Api) -> None:
    for slug, vendor in vendors().items():
        if not vendor.is_supported:
            refused = api.post(f"/catalog/{slug}/install", {"api_key": KEY, "test": False})
            assert refused.status_code == 409
            assert vendor.type in refused.json()["detail"]
    assert "google" in ALIASES
