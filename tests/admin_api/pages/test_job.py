"""The page of a job: what it took and made, by which tries, and what can be done to it."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from admin_api.pages.job_results import excerpt, pretty
from store.settings import Settings
from tests.admin_api.conftest import Api, People
from tests.admin_api.logins import Person
from tests.admin_api.nouns import assigned
from tests.admin_api.pages.conftest import Browser, said
from tests.admin_api.test_jobs import JOB, finish
from tests.admin_api.test_schedules import schedule_body
from workers.artifacts import Artifacts

ARABIC = "برج الحمل: اليوم مناسب للصبر."
EVIL = "<script>alert(1)</script>"


def ended(api: Api, people: People, **columns: Any) -> str:
    """The address of a job that has ended."""
    job_id: str = api.made("/jobs", JOB)["id"]
    finish(people, job_id, **columns)
    return f"/jobs/{job_id}"


def made(api: Api, people: People, result: Any, **columns: Any) -> str:
    return ended(api, people, result=Jsonb(result), **columns)


def test_a_job_is_live_until_it_has_ended(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    job = api.made("/jobs", {**JOB, "user_id": "ann", "deadline_seconds": 90, "metadata": {"order": 7}})
    address = f"/jobs/{job['id']}"
    answer = desk.get(address)
    assert 'data-poll="2"' in answer.text
    for words in ("queued", "It waits for a worker.", "The Fool", "ann", "within 1 min 30 s", '"order": 7'):
        assert words in said(answer)
    assert "Routes" in said(answer)
    assert "Routes" not in said(desk.get(address, headers={"X-Live": "1"}))
    finish(people, job["id"], result=Jsonb({"text": ARABIC}))
    answer = desk.get(address)
    assert "data-poll" not in answer.text
    assert f'<div class="output" dir="auto" id="answer">{ARABIC}</div>' in answer.text


def test_tries_and_the_route_are_told(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    address = ended(
        api,
        people,
        state="failed",
        error_class="overloaded",
        error_message=EVIL,
        provider="acme",
        model="m0",
        config_version=17,
        prompt_version=3,
        key_version=-2,
    )
    people.run(
        "INSERT INTO ai_usage_analytics (job_id, run, finished_at, started_at, feature, capability, lane, "
        "provider, model, n, called, outcome, error_class, error_message, status, latency_ms, breaker) "
        "SELECT id, 1, now(), now(), feature, capability, lane, 'acme', tried.* FROM job_history, (VALUES "
        "('m0', 1, true, 'failed', 'overloaded', 'Too busy', 503, 400, 'closed'), "
        "('m1', 2, false, 'failed', 'overloaded', 'It keeps failing', NULL, 0, 'open')) AS tried"
    )
    answer = desk.get(address)
    for words in (
        *("Overloaded", "Last tried", "version 17, prompt 3", "own, version 2"),
        *("Too busy", "503", "400 ms", "passed over", "breaker open", "What a job like this meets now."),
    ):
        assert words in said(answer), words
    assert said(answer).index("Too busy") < said(answer).index("It keeps failing")
    assert "<script>alert" not in answer.text


def test_the_routes_that_were_considered_are_told(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    assert "There was nothing to choose between." in said(desk.get(ended(api, people)))
    routing = {
        "strategy": "least_used",
        "routes": [{"provider": "acme", "model": "m7"}, {"provider": "acme", "model": "m8"}],
        "passed_over": [{"provider": "zeta", "model": "m9", "error_class": "budget", "reason": EVIL}],
    }
    answer = desk.get(ended(api, people, routing=Jsonb(routing)))
    assert re.search(
        r"Strategy least used: .*? m7 acme first m8 acme then m9 zeta passed over budget", said(answer)
    )
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            {
                "flagged": True,
                "data": {
                    "categories": {"hate": False, "violence": True},
                    "category_scores": {"violence": 0.875},
                },
            },
            ["Flagged", "violence", "0.875", "hate"],
        ),
        ({"embedding": [0.125] * 256}, ["1 vector of 256 numbers", "0.125, 0.125"]),
        ({"text": "{}", "data": {"answer": ARABIC, "evil": EVIL}}, [ARABIC, "&lt;script&gt;"]),
        ({"text": "half", "finish_reason": "length"}, ["4 characters", "ended: length"]),
    ],
)
def test_every_kind_of_result_is_shown(
    result: Any, words: list[str], desk: Browser, api: Api, people: People
) -> None:
    assigned(api)
    answer = desk.get(made(api, people, result))
    for word in words:
        assert word in answer.text or word in said(answer), word
    assert "<script>alert" not in answer.text


def test_a_long_text_is_shown_in_part_and_kept_whole(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    text = ARABIC * 20_000
    address = made(api, people, {"text": text})
    answer = desk.get(address)
    assert len(answer.content) < 30_000
    assert "580,000 characters, of which these are the first" in said(answer)
    whole = desk.get(f"{address}/download")
    assert whole.text == text
    record = desk.get(f"{address}/record.json")
    assert record.json()["result"]["text"] == text
    for file in (whole, record):
        assert file.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in file.headers["content-security-policy"]
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert desk.get(f"{made(api, people, {'flagged': False})}/download").status_code == 404


def test_an_artifact_is_played_by_ranges(desk: Browser, api: Api, people: People, settings: Settings) -> None:
    assigned(api)
    job_id = api.made("/jobs", JOB)["id"]
    key = Artifacts(settings.artifacts_url).write(UUID(job_id), 1, b"RIFF" + bytes(100), "audio/wav")
    finish(people, job_id, result=Jsonb({"media_type": "audio/wav"}), artifact_key=key)
    address = f"/jobs/{job_id}/artifact"
    assert f'src="{address}"' in desk.get(f"/jobs/{job_id}").text
    part = desk.get(address, headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"RIFF")
    assert part.headers["content-type"] == "audio/wav"


def test_a_job_is_cancelled_and_run_again(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    job_id = api.made("/jobs", JOB)["id"]
    address = f"/jobs/{job_id}"
    assert desk.post(f"{address}/retry").status_code == 409
    assert desk.post(f"{address}/cancel").headers["location"] == address
    assert "Job cancelled." in said(desk.get(address))
    again = desk.post(f"{address}/cancel")
    assert again.status_code == 409
    assert "has cancelled already" in said(again)

    repeated = desk.post(f"{address}/retry").headers["location"]
    assert repeated != address
    assert f'It repeats <a href="{address}">' in desk.get(repeated).text
    assert f'Repeated by <a href="{repeated}">' in desk.get(address).text
    assert people.run("SELECT retry_of::text FROM jobs") == [(job_id,)]


def test_an_erased_job_says_so_and_offers_no_repetition(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    job_id = api.made("/jobs", {**JOB, "user_id": "ada"})["id"]
    api.post("/erasures", {"user_id": "ada"})
    shown = desk.get(f"/jobs/{job_id}")
    assert "What it was given and made was erased" in said(shown)
    assert f'action="/jobs/{job_id}/retry"' not in shown.text
    assert f'action="/jobs/{job_id}/cancel"' not in shown.text
    refused = desk.post(f"/jobs/{job_id}/retry")
    assert refused.status_code == 422
    assert "was erased, so it cannot run again" in said(refused)


def test_a_reader_may_end_and_repeat_only_the_own(
    reader: Browser, api: Api, admin: Person, people: People
) -> None:
    assigned(api)
    job_id = api.made("/jobs", JOB)["id"]
    assert f'action="/jobs/{job_id}/cancel"' not in reader.get(f"/jobs/{job_id}").text
    assert reader.post(f"/jobs/{job_id}/cancel").status_code == 403
    people.run("UPDATE jobs SET caller_admin_id = %s", [UUID(admin.id)])
    assert f'action="/jobs/{job_id}/cancel"' in reader.get(f"/jobs/{job_id}").text
    assert admin.email in said(reader.get(f"/jobs/{job_id}"))
    assert reader.post(f"/jobs/{job_id}/cancel").status_code == 303


def test_a_chain_is_told_by_each_of_its_jobs(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    steps = [
        {"feature_name": "chat_assistant", "input_map": {"message": "result.text"}},
        {"feature_name": "daily_zodiac_tts", "input_map": {"text": "result.text"}},
    ]
    first = api.made("/jobs", {**JOB, "then": steps, "callback_url": "https://app.example/hook"})["id"]
    shown = said(desk.get(f"/jobs/{first}"))
    assert re.search(
        r"Chain .*? tarot_reading queued this job chat_assistant to come daily_zodiac_tts", shown
    )
    assert "It is told once all has ended." in shown
    finish(people, first, result=Jsonb({"text": "Hello"}))
    ((second,),) = people.run("SELECT id::text FROM jobs WHERE parent_id IS NOT NULL")
    shown = said(desk.get(f"/jobs/{second}"))
    assert re.search(
        r"tarot_reading succeeded chat_assistant queued this job daily_zodiac_tts to come", shown
    )
    assert f'<a href="/jobs/{first}">tarot_reading</a>' in desk.get(f"/jobs/{second}").text
    finish(people, second, state="failed", error_class="timeout")
    shown = said(desk.get(f"/jobs/{first}"))
    assert re.search(r"chat_assistant failed daily_zodiac_tts never comes", shown)
    assert "job.finished pending" in shown
    people.run(
        "UPDATE notices SET failed_at = now(), tries = 14, error = 'Nobody there' WHERE job_id = %s",
        [UUID(first)],
    )
    shown = said(desk.get(f"/jobs/{first}"))
    assert re.search(r"job.finished failed 14 tries .*?Nobody there", shown)


def test_a_job_tells_its_group(desk: Browser, api: Api) -> None:
    assigned(api, "daily_zodiac_text", prompt_template={"user": "{{ sign }}"})
    schedule = api.made("/schedules", schedule_body())
    group = desk.post(f"/schedules/{schedule['id']}/run-now").headers["location"]
    job = api.get(f"/jobs?group_id={group.rpartition('/')[2]}").json()["items"][0]
    answer = desk.get(f"/jobs/{job['id']}")
    assert f'<a href="{group}" dir="auto">Morning</a>' in answer.text
    assert "Enqueued by a schedule" in said(answer)
    assert "Chain" not in said(answer)


def test_no_job_is_a_page(desk: Browser) -> None:
    assert desk.get("/jobs/01a20014-64af-763e-823e-5bdedc96b077").status_code == 404
    assert desk.get("/jobs/none").status_code == 422


@pytest.mark.parametrize("letter", ["a", "<", "ب", "😀"])
def test_an_excerpt_fits_its_page(letter: str) -> None:
    shown = excerpt(letter * 100_000)
    assert shown.is_cut
    assert shown.length == 100_000
    assert 2000 < len(shown.text) <= 8000
    assert not excerpt(letter).is_cut


def test_json_is_written_as_far_as_it_is_shown() -> None:
    assert pretty({"a": [1, "ä"]}).text == '{\n  "a": [\n    1,\n    "ä"\n  ]\n}'
    long = pretty({"numbers": list(range(1_000_000))})
    assert long.is_cut
    assert len(long.text) <= 8000
