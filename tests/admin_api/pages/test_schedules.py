"""The pages of schedules and groups: what they show, what is typed into them, and what is wrong with that."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from admin_api.pages import schedule_inputs
from admin_api.pages.cron_words import in_words
from admin_api.pages.formats import DASH, local
from admin_api.pages.route import SentForm
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.logins import Person
from tests.admin_api.nouns import assigned, feature_body, model_body, provider_body
from tests.admin_api.pages.conftest import Browser, said
from tests.admin_api.test_jobs import finish
from tests.admin_api.test_schedules import TTS, schedule_body

EVIL = "<script>alert(1)</script>"
SIGNS = ["aries", "leo"]


def typed(**fields: Any) -> dict[str, Any]:
    """What the form sends for the schedule of a morning."""
    return {
        "name": "Morning",
        "feature_name": "daily_zodiac_text",
        "cron": "0 6 * * *",
        "timezone": "Europe/Berlin",
        "member": ["sign", "language", "date"],
        "lines.sign": SIGNS,
        "lines.language": "en\nde\n",
        "lines.date": "{{ date }}",
        "then.0.feature_name": "daily_zodiac_tts",
        "then.0.input_map": "text = result.text\nvoice = alto",
        "then.0.on_failure": "stop",
        "catch_up": "latest",
        "deadline_minutes": "90",
        "use_batch_api": "on",
        "is_active": "on",
        "callback_url": "",
        "plan": "",
        "priority": "3",
        **fields,
    }


def ready(api: Api) -> None:
    """Both features of the chain can be served."""
    assigned(api, "daily_zodiac_text", prompt_template={"user": "{{ sign }}"})
    provider = api.made("/providers", provider_body("speaker"))
    model = api.made("/models", model_body(provider, "tts", capabilities=["speech"]))
    targets = [{"model_id": model["id"]}]
    api.made("/feature-assignments", {"feature_name": "daily_zodiac_tts", "targets": targets})


def etag_of(text: str) -> str:
    (found,) = re.findall(r'name="etag" value="([^"]*)"', text)
    return unescape(found)


def fired(desk: Browser, api: Api, **members: Any) -> tuple[Json, str]:
    """A schedule that was run now, and its group's address."""
    ready(api)
    made = api.made("/schedules", schedule_body(**members))
    answer = desk.post(f"/schedules/{made['id']}/run-now")
    assert answer.status_code == 303, answer.text
    return made, answer.headers["location"]


def jobs_of(api: Api, group: str) -> list[Json]:
    """The jobs of a group, the oldest first."""
    items: list[Json] = api.get(f"/jobs?group_id={group.rpartition('/')[2]}").json()["items"]
    return items[::-1]


def test_where_there_is_none_the_page_says_what_to_do(desk: Browser, reader: Browser) -> None:
    answer = desk.get("/schedules")
    assert "No schedule yet" in said(answer)
    assert 'href="/schedules/new"' in answer.text
    assert 'href="/schedules/new"' not in reader.get("/schedules").text
    assert reader.get("/schedules/new").status_code == 403


def test_a_form_begins_with_what_its_feature_takes(desk: Browser) -> None:
    assert "Choose a feature first" in said(desk.get("/schedules/new"))
    answer = desk.get("/schedules/new?feature=daily_zodiac_text")
    assert len(re.findall(r'name="lines.sign" value="\w+" checked', answer.text)) == 12
    assert re.search(r'name="lines.date".*?>\s*\{\{ date }}</textarea>', answer.text, re.DOTALL)
    assert "12 jobs each time." in said(answer)


def test_a_schedule_is_made_as_it_was_typed(desk: Browser, api: Api) -> None:
    answer = desk.post("/schedules/new", typed())
    assert answer.status_code == 303, said(answer)
    (stored,) = api.get("/schedules").json()["items"]
    assert answer.headers["location"] == f"/schedules/{stored['id']}"
    assert stored["inputs_matrix"] == {"sign": SIGNS, "language": ["en", "de"], "date": ["{{ date }}"]}
    assert stored["then"] == [
        {
            "feature_name": "daily_zodiac_tts",
            "input_map": {"text": "result.text", "voice": "alto"},
            "on_failure": "stop",
        }
    ]
    assert (stored["deadline_minutes"], stored["priority"], stored["use_batch_api"]) == (90, 3, True)
    shown = said(desk.get(f"/schedules/{stored['id']}"))
    for words in (
        "Every day at 06:00",
        "2 in a chain",
        "text = result.text",
        "after 1 h 30 min",
        "Nothing yet",
    ):
        assert words in shown, words
    listed = said(desk.get("/schedules"))
    assert "daily_zodiac_text → daily_zodiac_tts" in listed
    assert "never yet" in listed


def test_what_was_typed_can_be_seen_before_it_is_saved(desk: Browser, api: Api) -> None:
    previewed = desk.post("/schedules/new", typed(cron="30 2 * * *", do="preview"))
    assert previewed.status_code == 200
    chips = re.findall(r'<li class="badge"><time[^>]*>([^<]+)', previewed.text)
    assert len(chips) == 5
    assert all(chip.endswith(("02:30", "03:00")) for chip in chips)
    assert "4 jobs each time, and as many for each step." in said(previewed)

    wrong = desk.post("/schedules/new", typed(cron="soon", do="preview"))
    assert "A schedule has five fields" in said(wrong)
    assert "There is no time zone" in said(desk.post("/schedules/new", typed(timezone="Mars", do="preview")))

    added = desk.post("/schedules/new", typed(do="add step"))
    assert 'name="then.1.feature_name"' in added.text
    removed = desk.post("/schedules/new", typed(do="remove step 0"))
    assert "Nothing: each job stands alone." in said(removed)

    redrawn = desk.post("/schedules/new", typed(feature_name="chat_assistant", do="draw"))
    assert 'name="lines.message"' in redrawn.text
    assert 'value="Morning"' in redrawn.text
    assert api.get("/schedules").json()["items"] == []


@pytest.mark.parametrize(
    ("fields", "at", "words"),
    [
        ({"cron": "0 6 * *"}, "cron", "five fields"),
        ({"timezone": "Mars/Olympus"}, "timezone", "There is no time zone"),
        ({"name": ""}, "name", "required"),
        ({"deadline_minutes": "soon"}, "deadline_minutes", "whole number"),
        ({"lines.sign": []}, "lines.sign", "sign"),
        ({"lines.sign": ["dragon"]}, "lines.sign", "dragon"),
        ({"lines.date": "{{ tomorrow }}"}, "lines.date", "Known are date"),
        ({"then.0.input_map": "language = en"}, "then.0.input_map", "text: daily_zodiac_tts needs"),
        ({"then.0.input_map": "text"}, "then.0.input_map", "member = where from"),
        ({"then.0.feature_name": ""}, "then.0.feature_name", "Choose one"),
        ({"callback_url": "ftp://app.example"}, "callback_url", "https://"),
    ],
)
def test_what_is_wrong_stands_at_its_field(
    fields: dict[str, Any], at: str, words: str, desk: Browser, api: Api
) -> None:
    answer = desk.post("/schedules/new", typed(**fields))
    assert answer.status_code == 422
    (error,) = re.findall(rf'id="field-{re.escape(at)}-error">(.*?)</p>', answer.text, re.DOTALL)
    assert words in unescape(error)
    assert 'value="Europe/Berlin"' in answer.text or at == "timezone"
    assert api.get("/schedules").json()["items"] == []


def test_a_name_that_is_taken_stands_at_its_field(desk: Browser, api: Api) -> None:
    api.made("/schedules", schedule_body())
    answer = desk.post("/schedules/new", typed())
    assert answer.status_code == 409
    assert 'id="field-name-error"' in answer.text


def test_a_schedule_is_edited_also_after_it_has_fired(desk: Browser, api: Api) -> None:
    made, _ = fired(desk, api, then=[TTS])
    path = f"/schedules/{made['id']}"
    form = desk.get(f"{path}/edit").text
    assert re.findall(r'name="lines.sign" value="(\w+)" checked', form) == ["aries", "leo"]
    assert "text = result.text</textarea>" in form
    desk.post(f"{path}/run-now")

    saved = desk.post(
        f"{path}/edit", typed(**{"etag": etag_of(form), "cron": "@hourly", "lines.sign": ["virgo"]})
    )

    assert saved.status_code == 303, said(saved)
    stored = api.get(path).json()
    assert (stored["cron"], stored["inputs_matrix"]["sign"]) == ("0 * * * *", ["virgo"])
    late = desk.post(f"{path}/edit", typed(etag=etag_of(form)))
    assert late.status_code == 412
    assert "Somebody changed this meanwhile" in said(late)


def test_a_schedule_is_paused_resumed_and_deleted(desk: Browser, reader: Browser, api: Api) -> None:
    made = api.made("/schedules", schedule_body(EVIL))
    path = f"/schedules/{made['id']}"
    assert desk.post(f"{path}/pause", {"back": path}).headers["location"] == path
    paused = desk.get(path)
    assert "paused: only by hand" in said(paused)
    assert "<script>alert" not in paused.text
    assert "<script>alert" not in desk.get("/schedules").text
    assert "paused" in said(desk.get("/schedules"))
    desk.post(f"{path}/resume")
    assert api.get(path).json()["is_active"]
    assert f'action="{path}/run-now"' not in reader.get(path).text
    assert f"{path}/run-now" not in reader.get("/schedules").text
    assert reader.post(f"{path}/delete").status_code == 403
    assert desk.post(f"{path}/delete").headers["location"] == "/schedules"
    assert desk.get(path).status_code == 404


def test_what_cannot_run_now_says_why(desk: Browser, api: Api) -> None:
    made = api.made("/schedules", schedule_body())
    refused = desk.post(f"/schedules/{made['id']}/run-now", {"back": "/schedules"})
    assert refused.headers["location"] == "/schedules"
    assert "daily_zodiac_text" in said(desk.get("/schedules"))


def test_what_did_not_fire_says_why(desk: Browser, api: Api, people: People) -> None:
    made = api.made("/schedules", schedule_body())
    for days in range(1, 18):
        people.run(
            "INSERT INTO fires (schedule_id, instant, kind, fired_at, error) "
            "VALUES (%s, %s, 'scheduled', now(), %s)",
            [UUID(made["id"]), datetime.now(UTC) - timedelta(days=days), EVIL],
        )
    path = f"/schedules/{made['id']}"
    first = desk.get(path)
    assert said(first).count("did not fire") == 15
    assert "<script>alert" not in first.text
    (older,) = re.findall(r'href="([^"]*)" rel="next"', first.text)
    assert said(desk.get(unescape(older))).count("did not fire") == 2
    assert "did not fire" in said(desk.get("/schedules"))


def test_a_group_is_live_until_it_has_finished(desk: Browser, api: Api, people: People) -> None:
    made, group = fired(desk, api, then=[TTS], deadline_minutes=60, callback_url="https://app.example/hook")
    answer = desk.get(group)
    assert 'data-poll="2"' in answer.text
    for words in (
        "0 of 4",
        "2 are under way or wait",
        "2 may follow",
        "It is told once all has ended.",
        "aries",
    ):
        assert words in said(answer), words
    assert "2026" not in re.findall(r"<h3[^>]*>([^<]*)", answer.text)[0], "only what tells them apart"
    aries, leo = jobs_of(api, group)
    finish(people, aries["id"], result=Jsonb({"text": f"Patience, {EVIL}"}), cost_usd="0.25")
    finish(people, leo["id"], state="failed", error_class="timeout")
    answer = desk.get(group)
    for words in (
        *("2 of 4", "1 succeeded", "1 failed", "1 skipped", "Patience, <script>", "timeout", "$0.25"),
        *("daily_zodiac_tts", "Cancel what is left", "Run failed again"),
    ):
        assert words in said(answer), words
    assert "<script>alert" not in answer.text
    (spoken,) = (job for job in jobs_of(api, group) if job["feature"] == "daily_zodiac_tts")
    finish(people, spoken["id"], result=Jsonb({"media_type": "audio/wav"}), artifact_key="x/1.wav")
    answer = desk.get(group)
    assert "data-poll" not in answer.text
    assert f'<audio controls preload="none" src="/jobs/{spoken["id"]}/artifact"' in answer.text
    assert "Cancel what is left" not in said(answer)
    assert "group.finished pending" in said(answer)
    assert f'href="/schedules/{made["id"]}"' in answer.text
    api.delete(f"/schedules/{made['id']}")
    assert f'href="/schedules/{made["id"]}"' not in desk.get(group).text
    assert "1 of 3 failed" in said(desk.get(group)) or "finished" in said(desk.get(group))


def test_how_many_is_told_before_a_group_is_cancelled_or_repeated(
    desk: Browser, reader: Browser, api: Api, people: People
) -> None:
    _, group = fired(desk, api)
    aries, leo = jobs_of(api, group)
    finish(people, aries["id"], state="failed", error_class="timeout")
    answer = desk.get(group)
    addresses = [unescape(found) for found in re.findall(r'href="(/jobs/matching[^"]*)"', answer.text)]
    assert [said(desk.get(address)).count(" 1 job") for address in addresses] == [2, 2]
    cancel, retry = addresses
    assert "1 job cancelled" in said(desk.get(desk.post(cancel).headers["location"]))
    assert "1 job enqueued again" in said(desk.get(desk.post(retry).headers["location"]))
    assert len(people.run("SELECT id FROM jobs WHERE retry_of = %s", [UUID(aries["id"])])) == 1
    assert api.get(f"/jobs/{leo['id']}").json()["state"] == "cancelled"
    assert "/jobs/matching" not in reader.get(group).text


def test_a_large_group_is_shown_in_pages(desk: Browser, api: Api) -> None:
    _, group = fired(desk, api, inputs_matrix={"sign": SIGNS, "language": [f"l{n:02}" for n in range(20)]})
    first = desk.get(group)
    assert first.text.count('id="strand-') == 24
    assert "aries · l00" in said(first)
    (further,) = re.findall(r'href="([^"]*)" rel="next"', first.text)
    assert desk.get(unescape(further)).text.count('id="strand-') == 16


def test_no_group_is_a_page(desk: Browser) -> None:
    assert desk.get("/groups/01a20014-64af-763e-823e-5bdedc96b077").status_code == 404
    assert desk.get("/schedules/01a20014-64af-763e-823e-5bdedc96b077").status_code == 404


def test_the_list_of_jobs_is_narrowed_to_a_group(desk: Browser, api: Api) -> None:
    _, group = fired(desk, api, inputs_matrix={"sign": SIGNS, "language": [f"l{n:02}" for n in range(20)]})
    id_ = group.rpartition("/")[2]
    assigned(api)
    api.made("/jobs", {"feature": "tarot_reading", "input": {"cards": ["The Fool"]}})
    answer = desk.get(f"/jobs?group_id={id_}")
    assert "tarot_reading</a>" not in answer.text
    assert f'href="{group}"' in answer.text
    assert f'name="group_id" value="{id_}"' in answer.text
    (older,) = re.findall(r'href="([^"]*)" rel="next"', answer.text)
    assert f"group_id={id_}" in older
    wrong = desk.get("/jobs?group_id=none")
    assert wrong.status_code == 422
    assert "Nothing was searched" in said(wrong)


def test_the_overview_tells_what_fires_next_and_what_is_under_way(
    desk: Browser, api: Api, people: People
) -> None:
    assert "What fires next" not in said(desk.get("/overview"))
    fired(desk, api)
    people.run("UPDATE schedule_state SET next_at = now() + interval '90 min'")
    shown = said(desk.get("/overview"))
    assert "Morning in 1 h" in shown
    assert "0 of 2" in shown


def test_values_that_are_no_lines_are_edited_as_json(desk: Browser, api: Api, admin: Person) -> None:
    schema = {
        "type": "object",
        "properties": {
            "tags": {"type": "array"},
            "count": {"type": "integer"},
            "note": {"type": "string"},
            "is_long": {"type": "boolean"},
        },
    }
    api.made("/features", feature_body(input_schema=schema, lane="batch"))
    matrix = {
        "tags": [["a"], ["b", "c"]],
        "count": [1, 2],
        "note": ["two\nlines", " edge"],
        "is_long": [True, False],
        "other": 7,
    }
    made = api.made("/schedules", schedule_body(feature_name="greeting", inputs_matrix=matrix))
    form = desk.get(f"/schedules/{made['id']}/edit").text
    fields = dict(re.findall(r'name="((?:json|lines)\.\w+|rest)"[^>]*>\s*(.*?)</textarea>', form, re.DOTALL))
    assert fields["lines.count"] == "1\n2"
    assert fields["lines.is_long"] == "true\nfalse"
    sent = typed(
        feature_name="greeting",
        member=["tags", "count", "note", "is_long"],
        **{name: unescape(text) for name, text in fields.items()},
    )
    saved = desk.post(f"/schedules/{made['id']}/edit", {**sent, "etag": etag_of(form)})
    assert saved.status_code == 303, said(saved)
    assert api.get(f"/schedules/{made['id']}").json()["inputs_matrix"] == matrix
    wrong = desk.post(f"/schedules/{made['id']}/edit", {**sent, "json.tags": "[", "rest": "[]"})
    assert wrong.status_code == 422
    assert 'id="field-json.tags-error"' in wrong.text
    assert 'id="field-rest-error"' in wrong.text


@pytest.mark.parametrize(
    ("line", "kind", "value"),
    [
        ("7", "integer", 7),
        ("7", "string", "7"),
        ("{{ day }}", "integer", "{{ day }}"),
        ("true", "boolean", True),
        ("1e999", "number", "1e999"),
    ],
)
def test_a_line_is_a_value_of_its_members_type(line: str, kind: str, value: Any) -> None:
    schema = {"properties": {"a": {"type": kind}}}
    sent = SentForm([("member", "a"), ("lines.a", line)])
    assert schedule_inputs.read(schema, sent) == ({"a": [value]}, [])


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "Every minute"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("*/7 * * * *", ""),
        ("5 * * * *", "Every hour at :05"),
        ("*/5 * * * 1-5", "Every 5 minutes, Monday to Friday"),
        ("0 6 * * *", "Every day at 06:00"),
        ("30 6,18 * * *", "Every day at 06:30 and 18:30"),
        ("0 7 * * MON,thu", "Every Monday and Thursday at 07:00"),
        ("0 7 * * 0", "Every Sunday at 07:00"),
        ("0 7 * * 7", "Every Sunday at 07:00"),
        ("0 0 1 * *", "On day 1 of every month at 00:00"),
        ("0 0 1 1 *", "Every 1 January at 00:00"),
        ("0 0 1 * 1", ""),
        ("0 0 L * *", ""),
        ("0 0 * 2-4 *", ""),
        ("0 6 * * 1#2", ""),
        ("0 8-17 * * *", ""),
    ],
)
def test_short_expressions_are_said_in_words(expression: str, words: str) -> None:
    assert in_words(expression) == words


def test_times_are_shown_as_clocks_in_the_zone_show_them() -> None:
    time = datetime(2031, 3, 30, 1, 0, tzinfo=UTC)
    assert ">Sun 30 Mar 2031, 03:00</time>" in local(time, "Europe/Berlin")
    this_year = datetime.now(UTC).replace(month=6, day=15, hour=12, minute=0)
    assert str(this_year.year) not in local(this_year, "UTC").partition(">")[2]
    assert local(None, "UTC") == DASH
