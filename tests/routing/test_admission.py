"""What is refused at the door although it is JSON, and schemas that cannot judge."""

from __future__ import annotations

from typing import Any

import pytest

from routing.admission import check_input
from routing.errors import ConfigurationError, InputRejected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1e308] * 100_000, [10**400] * 100_000])
def test_numbers_that_would_fill_the_database_are_refused(value: Any) -> None:
    with pytest.raises(InputRejected):
        check_input({}, {"metrics": value})


def test_ordinary_numbers_pass() -> None:
    check_input({}, {"metrics": [1e308, 1e-308, 0, 10**30, True, None, 3.14] * 1000})


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, {"a": 1}),
        (
            {
                "properties": {"x": {"$id": "http://o/", "properties": {"y": {"$ref": "#/$defs/q"}}}},
                "$defs": {"q": {}},
            },
            {"x": {"y": "s"}},
        ),
        ({"properties": {"x": {"multipleOf": 0.5}}}, {"x": 10**400}),
    ],
)
def test_a_schema_that_cannot_judge_is_the_configurations_fault(schema: Any, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="input_schema"):
        check_input(schema, value)


def test_millions_of_errors_are_not_all_looked_at() -> None:
    schema = {"properties": {"texts": {"items": {"type": "string"}}}}
    with pytest.raises(InputRejected) as refused:
        check_input(schema, {"texts": [1] * 1_000_000})
    assert refused.value.field.startswith("input/texts/")


@pytest.mark.parametrize("value", ["a\x00b", "\ud800", {"k\x00": 1}, [["\udfff"]]])
def test_characters_that_cannot_be_stored_are_refused(value: Any) -> None:
    with pytest.raises(InputRejected, match="cannot be stored"):
        check_input({}, {"text": value})
