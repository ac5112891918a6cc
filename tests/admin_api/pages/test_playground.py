"""The playground: a form made of a schema, who would win, and a job that is run by hand."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from admin_api.pages.controls import Kind
from admin_api.pages.route import SentForm
from admin_api.pages.schema_forms import SchemaForm
from tests.admin_api.conftest import Api, People
from tests.admin_api.nouns import assigned, feature_body
from tests.admin_api.pages.conftest import Browse, Browser, said
from tests.admin_api.test_jobs import finish

SCHEMA = {
    "type": "object",
    "required": ["sign", "cards"],
    "properties": {
        "sign": {"enum": ["aries", "leo"], "description": "Of the zodiac."},
        "cards": {"type": "array"},
        "count": {"type": "integer", "minimum": 1},
        "warmth": {"type": "number"},
        "loud": {"type": "boolean"},
        "name": {"type": "string", "maxLength": 50},
        "story": {"type": "string"},
        "day": {"type": "string", "format": "date"},
        "any": {},
    },
    "example": {"sign": "leo", "cards": ["The Fool"], "name": "ليلى"},
}
ADDRESS = "/playground?feature=greeting"


def ready(api: Api) -> None:
    api.made("/features", feature_body(input_schema=SCHEMA))
    assigned(api, "greeting", models=2)


def typed(**members: str) -> dict[str, str]:
    return {f"input.{name}": value for name, value in {"sign": "aries", "cards": "[1]", **members}.items()}


def test_members_of_a_schema_become_controls() -> None:
    form = SchemaForm.of(SCHEMA)
    kinds = {name: control.kind for name, control in form.controls.items()}
    assert kinds == {
        "sign": Kind.CHOICE,
        "cards": Kind.JSON,
        "count": Kind.WHOLE,
        "warmth": Kind.NUMBER,
        "loud": Kind.FLAG,
        "name": Kind.TEXT,
        "story": Kind.LONG,
        "day": Kind.DAY,
        "any": Kind.JSON,
    }
    sent = [("input.sign", "leo"), ("input.cards", "[]"), ("input.count", "3"), ("input.warmth", "0.5")]
    assert form.read(SentForm([*sent, ("input.name", "")])) == (
        {"sign": "leo", "cards": [], "count": 3, "warmth": 0.5, "loud": False},
        [],
    )
    document, unread = form.read(SentForm([("input.cards", "["), ("input.count", "x")]))
    assert document == {"loud": False}
    assert [each.field for each in unread] == ["input.sign", "input.cards", "input.count"]


def test_a_schema_without_members_takes_json() -> None:
    for schema in ({}, {"type": "object"}):
        form = SchemaForm.of(schema)
        assert form.read(SentForm([("input", '{"a": 1}')])) == ({"a": 1}, [])
        assert form.read(SentForm([("input", "")])) == ({}, [])
    named = SchemaForm.of({"properties": {"input": {"type": "string"}}})
    assert named.read(SentForm([("input.input", "x")])) == ({"input": "x"}, [])


def test_a_feature_is_chosen_and_its_example_filled_in(desk: Browser, api: Api) -> None:
    ready(api)
    assert 'href="/playground?feature=greeting"' in desk.get("/playground").text
    answer = desk.get(ADDRESS)
    assert '<option value="leo" selected>' in answer.text
    assert 'value="ليلى"' in answer.text
    assert "The Fool" in answer.text
    for words in ("Of the zodiac.", "m0", "wins", "m1", "backup"):
        assert words in said(answer)
    assert desk.get("/playground?feature=none").status_code == 404


def test_a_job_is_run_and_watched_on_the_same_page(desk: Browser, api: Api, people: People) -> None:
    ready(api)
    sent = {
        **typed(name="<script>alert(1)</script>", count="3"),
        "user_id": "u-1",
        "plan": "free",
        "priority": "-5",
    }
    location = desk.post(ADDRESS, sent).headers["location"]
    ((job_id, input_, user, plan, priority, caller),) = people.run(
        "SELECT id::text, input, user_id, plan, priority, caller_admin_id IS NOT NULL FROM jobs"
    )
    assert location == f"{ADDRESS}&job={job_id}"
    wanted: Any = {
        "sign": "aries",
        "cards": [1],
        "count": 3,
        "loud": False,
        "name": "<script>alert(1)</script>",
    }
    assert (input_, user, plan, priority, caller) == (wanted, "u-1", "free", -5, True)

    answer = desk.get(location)
    assert 'data-poll="2"' in answer.text
    assert "It waits for a worker." in said(answer)
    assert '<option value="aries" selected>' in answer.text, "the form is filled with what was run"
    assert "<script>alert" not in answer.text
    finish(
        people, job_id, result=Jsonb({"text": "مرحبا"}), provider="p", model="m0", latency_ms=120, cost_usd=0
    )
    answer = desk.get(location)
    assert "data-poll" not in answer.text
    assert '<div class="output" dir="auto" id="answer">مرحبا</div>' in answer.text
    assert "120 ms" in said(answer)


def test_texts_are_followed_as_they_are_written_unless_somebody_objects(
    desk: Browser, api: Api, people: People
) -> None:
    ready(api)
    assert 'name="stream" value="on" checked' in desk.get(ADDRESS).text
    location = desk.post(ADDRESS, {**typed(), "stream": "on"}).headers["location"]
    desk.post(ADDRESS, typed())
    assert people.run("SELECT stream FROM jobs ORDER BY id") == [(True,), (False,)]
    refused = desk.post(ADDRESS, typed(count="0")).text
    assert 'name="stream" value="on">' in refused

    job_id = location.rpartition("=")[2]
    assert f'aria-live="polite" data-follow="/jobs/{job_id}/events"' in desk.get(location).text
    assert 'name="stream"' not in desk.get("/playground?feature=text_embedding").text
    finish(people, job_id, result=Jsonb({"text": "Hello"}), provider="p", model="m0")
    answer = desk.get(f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == (
        'event: text\ndata: {"text": "Hello"}\n\nevent: done\ndata: {"state": "succeeded"}\n\n'
    )
    assert "data-follow" not in desk.get(location).text


def test_strangers_follow_no_job(browse: Browse, api: Api) -> None:
    ready(api)
    body = {"feature": "greeting", "input": {"sign": "aries", "cards": ["The Sun"]}}
    job_id = api.made("/jobs", body)["id"]
    assert browse().get(f"/jobs/{job_id}/events").status_code == 303


def test_what_is_wrong_stands_at_its_field(desk: Browser, api: Api, people: People) -> None:
    ready(api)
    answer = desk.post(ADDRESS, {**typed(cards="[", name="Ada"), "priority": "101"})
    assert answer.status_code == 422
    assert 'id="field-input.cards-error"' in answer.text
    assert 'id="field-priority-error"' in answer.text
    assert 'value="Ada"' in answer.text
    answer = desk.post(ADDRESS, typed(count="0"))
    assert answer.status_code == 422
    assert 'id="field-input.count-error"' in answer.text
    assert people.run("SELECT FROM jobs") == []


def test_who_would_win_is_told_without_running(desk: Browser, api: Api, people: People) -> None:
    ready(api)
    answer = desk.post(ADDRESS, {**typed(name="Ada"), "do": "check"})
    assert answer.status_code == 200
    assert 'value="Ada"' in answer.text
    assert "wins" in said(answer)
    assert "It would be refused." in said(desk.post(ADDRESS, {**typed(count="0"), "do": "check"}))
    assert people.run("SELECT FROM jobs") == []


def test_a_job_can_be_changed_and_run(desk: Browser, api: Api) -> None:
    ready(api)
    body = {"feature": "greeting", "input": {"sign": "aries", "cards": ["The Sun"]}, "user_id": "ann"}
    job_id = api.made("/jobs", body)["id"]
    answer = desk.get(f"{ADDRESS}&like={job_id}")
    assert "The Sun" in answer.text
    assert 'value="ann"' in answer.text


def test_a_feature_that_nothing_serves_says_so(desk: Browser, api: Api) -> None:
    api.made("/features", feature_body(input_schema=SCHEMA))
    assert "It would be refused." in said(desk.get(ADDRESS))
    answer = desk.post(ADDRESS, typed())
    assert answer.status_code == 422
    assert "has no assignment. Assign a model to it." in said(answer)


def test_a_reader_may_run_a_job(reader: Browser, api: Api) -> None:
    ready(api)
    assert reader.post(ADDRESS, typed()).status_code == 303
