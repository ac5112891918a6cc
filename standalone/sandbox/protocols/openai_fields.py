"""How OpenAI checks a request's fields, with its own messages and codes."""

from collections.abc import Mapping, Sequence
from typing import Any

from standalone.sandbox.values import Refusal

Body = Mapping[str, Any]

_TYPE_NAMES: Mapping[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def refuse(param: str | None, code: str | None, message: str) -> Refusal:
    return Refusal(400, message, "invalid_request_error", param=param, code=code)


def reject_unknown(body: Body, known: frozenset[str]) -> None:
    for name in body:
        if name not in known:
            raise refuse(name, "unknown_parameter", f"Unknown parameter: '{name}'.")


def required_model(body: Body) -> str:
    model = body.get("model")
    if model in (None, ""):
        raise refuse(None, None, "you must provide a model parameter")
    if not isinstance(model, str):
        raise wrong_type("model", "a string", model)
    return model


def required(body: Body, name: str) -> Any:
    if body.get(name) is None:
        message = f"Missing required parameter: '{name}'."
        raise refuse(name, "missing_required_parameter", message)
    return body[name]


def wrong_type(param: str, expected: str, value: object) -> Refusal:
    found = _TYPE_NAMES[type(value)]
    message = f"Invalid type for '{param}': expected {expected}, but got {found} instead."
    return refuse(param, "invalid_type", message)


def number(body: Body, name: str, low: float, high: float) -> float | None:
    """A number within bounds, or None if it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(name, "a decimal", value)
    _within(name, value, low, high, "decimal")
    return float(value)


def integer(body: Body, name: str, low: int, high: int | None = None) -> int | None:
    """A whole number within bounds, or None if it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, "an integer", value)
    _within(name, value, low, high, "integer")
    return value


def _within(name: str, value: float, low: float, high: float | None, kind: str) -> None:
    if value < low:
        bound = f"{kind} below minimum value. Expected a value >= {low}, but got {value} instead."
        raise refuse(name, f"{kind}_below_min_value", f"Invalid '{name}': {bound}")
    if high is not None and value > high:
        bound = f"{kind} above maximum value. Expected a value <= {high}, but got {value} instead."
        raise refuse(name, f"{kind}_above_max_value", f"Invalid '{name}': {bound}")


def flag(body: Body, name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong_type(name, "a boolean", value)
    return bool(value)


def choice(body: Body, name: str, supported: Sequence[str]) -> str | None:
    """One of the supported strings, or None if it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if value not in supported:
        raise invalid_value(name, value, supported)
    return str(value)


def invalid_value(param: str, value: object, supported: Sequence[str]) -> Refusal:
    *most, last = (f"'{one}'" for one in supported)
    listed = f"{', '.join(most)}, and {last}" if most else last
    return refuse(param, "invalid_value", f"Invalid value: '{value}'. Supported values are: {listed}.")
