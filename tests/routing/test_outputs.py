"""Answers that must fit the feature's output_schema."""

from __future__ import annotations

from typing import Any

import pytest

from routing.schemas import is_strict
from routing.values import Capability, Plan
from tests.routing import factories
from tests.routing.runs import ran
from tests.routing.servers import ScriptedProvider, chat, scripted

_SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "salary": {"type": "integer"}},
    "required": ["title", "salary"],
    "additionalProperties": False,
}
_GOOD, _BAD = '{"title": "Engineer", "salary": 75000}', '{"title": "Engineer"}'


def _plan(*servers: ScriptedProvider, schema: Any = _SCHEMA, **assigned: Any) -> Plan:
    routes = [
        factories.route(factories.provider(server.base_url), price_row=factories.price())
        for server in servers
    ]
    of = factories.feature(Capability.TEXT, name="job_extraction", output_schema=schema)
    return factories.plan(*routes, of=of, user="Extract.", **assigned)


@pytest.mark.parametrize("text", [_GOOD, f"```json\n{_GOOD}\n```", f"  {_GOOD}\n"])
def test_the_checked_value_is_the_result(text: str) -> None:
    with scripted((200, chat(text))) as server:
        outcome = ran(_plan(server))
    assert outcome.reply is not None
    assert outcome.reply.data == {"title": "Engineer", "salary": 75000}
    assert server.seen[0].body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "job_extraction", "schema": _SCHEMA, "strict": True},
    }


def test_a_list_may_be_wanted() -> None:
    with scripted((200, chat("[1, 2]"))) as server:
        outcome = ran(_plan(server, schema={"type": "array", "items": {"type": "integer"}}))
    assert outcome.reply is not None
    assert outcome.reply.data == [1, 2]


def test_an_unfit_answer_is_shown_to_the_model_once() -> None:
    with scripted((200, chat(_BAD)), (200, chat(_GOOD))) as server:
        outcome = ran(_plan(server))
    assert outcome.reply is not None
    assert outcome.reply.data == {"title": "Engineer", "salary": 75000}
    first, second = outcome.attempts
    assert (first.error_class, first.status, first.called) == ("output_schema", 200, True)
    assert first.cost_usd == second.cost_usd  # it was paid for
    assert first.breaker == second.breaker == "closed"
    asked, answered, shown = server.seen[1].body["messages"]
    assert (asked["content"], answered["content"]) == ("Extract.", _BAD)
    assert "'salary' is a required property" in shown["content"]


def test_then_the_next_route_is_asked_afresh() -> None:
    with scripted((200, chat("I cannot."))) as bad, scripted((200, chat(_GOOD))) as good:
        outcome = ran(_plan(bad, good))
    assert [attempt.error_class for attempt in outcome.attempts] == ["output_schema", "output_schema", None]
    assert len(good.seen[0].body["messages"]) == 1


def test_and_in_the_end_the_job_fails() -> None:
    with scripted((200, chat(_BAD))) as server:
        outcome = ran(_plan(server))
    assert (outcome.error_class, outcome.retryable) == ("output_schema", False)
    assert "salary" in str(outcome.error_message)
    assert len(server.seen) == 2


def test_what_was_cut_off_is_not_asked_for_again() -> None:
    cut = chat('{"title": "Engi')
    cut["choices"][0]["finish_reason"] = "length"
    with scripted((200, cut)) as server:
        outcome = ran(_plan(server))
    assert "max_tokens" in str(outcome.error_message)
    assert len(server.seen) == 1


def test_a_provider_that_knows_no_schemas_is_called_without_and_held_to_it_all_the_same() -> None:
    refusal = (400, {"error": {"message": "This response_format type is unavailable now"}})
    with scripted(refusal, (200, chat(_GOOD))) as server:
        outcome = ran(_plan(server))
    assert outcome.reply is not None
    assert [attempt.error_class for attempt in outcome.attempts] == ["bad_request", None]
    assert "response_format" not in server.seen[1].body


def test_a_schema_that_cannot_judge_costs_no_record() -> None:
    with scripted((200, chat(_GOOD))) as server:
        outcome = ran(_plan(server, schema={"properties": {"title": {"$ref": "#/$defs/none"}}}))
    assert outcome.error_class == "output_schema"
    assert all(attempt.called for attempt in outcome.attempts)


def test_an_assignment_may_choose_its_own_format() -> None:
    with scripted((200, chat(_GOOD))) as server:
        assert ran(_plan(server, parameters={"response_format": {"type": "json_object"}})).reply
    assert server.seen[0].body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (_SCHEMA, True),
        ({**_SCHEMA, "required": ["title"]}, False),
        ({**_SCHEMA, "additionalProperties": True}, False),
        ({"type": "object"}, False),
        ({"type": "array", "items": _SCHEMA}, True),
        ({"type": "array", "items": {"type": "object", "properties": {}}}, False),
        ({"$defs": {"a": {"type": "object"}}, "type": "string"}, False),
        ({"type": "string"}, True),
    ],
)
def test_which_schemas_vendors_can_promise(schema: Any, expected: bool) -> None:
    assert is_strict(schema) is expected
