"""Some work for an installation with the sandbox, so that its pages have something to show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

from standalone.api_client import ApiClient
from standalone.up import FIRST_ADMIN
from tests.machine import Machine
from tests.workers.conftest import until

ARABIC = "اكتب لي عن النجوم"
SIGNS = (
    *("aries", "taurus", "gemini", "cancer", "leo", "virgo", "libra", "scorpio"),
    *("sagittarius", "capricorn", "aquarius", "pisces"),
)
HOROSCOPES: Mapping[str, object] = {
    "name": "Horoscopes of the morning",
    "cron": "0 6 * * *",
    "timezone": "Europe/Berlin",
    "feature_name": "daily_zodiac_text",
    "inputs_matrix": {"sign": SIGNS, "language": ["en"], "date": "{{ date }}"},
    "then": [{"feature_name": "daily_zodiac_tts", "input_map": {"text": "result.text"}}],
    "deadline_minutes": 120,
    "callback_url": "https://app.example/hooks/horoscopes",
}


def done(machine: Machine) -> dict[str, str]:
    """Jobs of all kinds, one of them failed, so that pages have something to show."""
    token = machine.command("token", "admin", "--email", FIRST_ADMIN, "--mfa").strip()
    with machine.api(token) as api:
        broken = {"slug": "broken", "name": "Broken", "type": "openai_compatible", "api_key": "bad-key"}
        sandbox = api.call("GET", "/api/v1/providers")["items"][0]
        provider = api.call(
            "POST",
            "/api/v1/providers",
            broken | {"base_url": sandbox["base_url"], "allow_private_network": True},
        )
        model = api.call(
            "POST", "/api/v1/models", {"provider_id": provider["id"], "model_id": "m", "name": "Broken one"}
        )
        assignments = {each["feature_name"]: each for each in api.pages("/api/v1/feature-assignments")}
        api.call(
            "PATCH",
            f"/api/v1/feature-assignments/{assignments['code_generation']['id']}",
            {"targets": [{"model_id": model["id"], "position": 0}], "max_retries": 0},
        )
        integration = api.call(
            "POST",
            "/api/v1/integrations",
            {"name": "hook", "type": "webhook", "endpoint": "https://example.com/hook"},
        )
        budget = api.call(
            "POST", "/api/v1/budgets", {"scope": "global", "limit_usd": "250", "limit_tokens": 5_000_000}
        )
        work: list[tuple[str, Mapping[str, object]]] = [
            ("daily_zodiac_tts", {"text": "The stars are kind to you today."}),
            ("content_moderation", {"text": "What a lovely day."}),
            ("text_embedding", {"text": "stars"}),
            ("code_generation", {"task": "Sort a list."}),
            ("daily_zodiac_text", {"sign": "aries", "language": "ar"}),
            ("chat_assistant", {"message": f"{ARABIC} {ARABIC} <script>alert(1)</script>"}),
        ]
        jobs = [
            api.call("POST", "/api/v1/jobs", {"feature": feature, "input": value, "user_id": "user-1"})
            for feature, value in work
        ]
        states = [api.call("GET", f"/api/v1/jobs/{job['id']}?wait=30")["state"] for job in jobs]
        _break(api, sandbox["base_url"])
        schedule = api.call("POST", "/api/v1/schedules", HOROSCOPES)
        group = api.call("POST", f"/api/v1/schedules/{schedule['id']}/run-now", {})["group_id"]
        until(lambda: api.call("GET", f"/api/v1/groups/{group}")["state"] == "finished", seconds=60)
        spoken = api.call("GET", f"/api/v1/jobs?group_id={group}&feature=daily_zodiac_tts")["items"]
        people = api.call("GET", "/api/v1/admins")["items"]
        acts = api.call("GET", "/api/v1/audit?noun=providers")["items"]
    assert states == ["succeeded"] * 3 + ["failed"] + ["succeeded"] * 2, json.dumps(states)
    return {
        "job_id": jobs[-1]["id"],
        "speech_id": jobs[0]["id"],
        "failed_id": jobs[3]["id"],
        "provider_id": provider["id"],
        "sandbox_id": sandbox["id"],
        "model_id": model["id"],
        "integration_id": integration["id"],
        "budget_id": budget["id"],
        "feature": "daily_zodiac_text",
        "name": "daily_zodiac_text",
        "admin_id": people[0]["id"],
        "entry_id": str(acts[0]["id"]),
        "schedule_id": schedule["id"],
        "group_id": group,
        "table_name": "job_history",
        "chained_id": spoken[0]["id"],
    }


def _break(api: ApiClient, base_url: str) -> None:
    """Have the broken provider fail until its breaker opens, which raises an alert."""
    parts = urlsplit(base_url)
    with closing(ApiClient(f"{parts.scheme}://{parts.netloc}")) as sandbox:
        sandbox.call("POST", "/_sandbox/faults", {"protocol": "openai", "mode": "status", "status": 503})
        for _ in range(6):
            job = {"feature": "code_generation", "input": {"task": "Sort a list."}}
            accepted = api.call("POST", "/api/v1/jobs", job)
            api.call("GET", f"/api/v1/jobs/{accepted['id']}?wait=30")
        sandbox.call("DELETE", "/_sandbox/faults")
    until(lambda: api.call("GET", "/api/v1/alerts")["items"])
