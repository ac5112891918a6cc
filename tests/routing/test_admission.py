"""What is refused at the door although it is JSON, and schemas that cannot judge."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.admission import check_input
from routing.errors import ConfigurationError, InputRejected
from routing.schemas import flaw, plainly_fits


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
        flaw(schema, value, field="input_schema")


def test_millions_of_errors_are_not_all_looked_at() -> None:
    schema = {"properties": {"texts": {"items": {"type": "string"}}}}
    with pytest.raises(InputRejected) as refused:
        check_input(schema, {"texts": [1] * 1_000_000})
    assert refused.value.field.startswith("input/texts/")


@pytest.mark.parametrize("value", ["a\x00b", "\ud800", {"k\x00": 1}, [["\udfff"]]])
def test_characters_that_cannot_be_stored_are_refused(value: Any) -> None:
    with pytest.raises(InputRejected, match="cannot be stored"):
        check_input({}, {"text": value})


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "ab", "2026-02-30", "2026-01-31", "x@y", "127.0.0.1", "é", "😀", "a\n", "1"])
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "é"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"]),
            "enum": st.lists(_SCALARS, min_size=1, max_size=3),
            "const": _SCALARS,
            "minimum": st.integers(-2, 2),
            "exclusiveMaximum": st.integers(-2, 4),
            "multipleOf": st.sampled_from([1, 2, 3]),
            "minLength": st.integers(0, 2),
            "maxLength": st.integers(0, 2),
            "pattern": st.sampled_from(["^a", "b$", "^[a-z]+$", r"\d", "é"]),
            "format": st.sampled_from(["date", "email", "ipv4", "uuid", "nobody-knows-it"]),
            "minItems": st.integers(0, 2),
            "uniqueItems": st.booleans(),
            "required": st.lists(st.sampled_from(["a", "b"]), unique=True),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner),
            "additionalProperties": inner | st.booleans(),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
        },
    ),
    max_leaves=5,
)


@given(_SCHEMAS, _VALUES)
def test_what_plainly_fits_has_no_flaw(schema: dict[str, Any], value: Any) -> None:
    """Two implementations, and the quick one must never let through what the other refuses."""
    if plainly_fits(schema, value):
        assert flaw(schema, value, field="input_schema") is None


def test_what_fits_is_mostly_found_out_at_once() -> None:
    schema = {
        "type": "object",
        "properties": {"sign": {"type": "string", "maxLength": 20}},
        "required": ["sign"],
    }
    assert plainly_fits(schema, {"sign": "leo"})
    assert not plainly_fits(schema, {"sign": 1})
    assert not plainly_fits({"$ref": "http://127.0.0.1:9/elsewhere.json"}, {})
    assert not plainly_fits({"type": "of no kind"}, {})


def test_nesting_has_an_end() -> None:
    value: Any = {}
    for _ in range(100_000):
        value = {"a": value}
    with pytest.raises(InputRejected, match="deeper than 200 levels"):
        check_input({}, value)
