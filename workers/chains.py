"""Chains: what follows a job, as data.

A step names a feature and where its input comes from. Steps are compiled when the job is enqueued, and
followed by the database in the transaction that ends the job before (`follow_up` in the migrations): a chain
is never half-way lost, whoever dies.

    {"feature_name": "daily_zodiac_tts", "input_map": {"text": "result.text", "voice": "alto"}, "on_failure":
    "stop"}

Each member of `input_map` is a path (`result.text`, `input.language`, `metadata.x`), text with paths in it
(`Good morning! {{ result.text }}`), or any other JSON value, which is taken as it is. Without a map a step
gets `text`, and the members of the input before that have the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from routing.errors import InputRejected
from routing.snapshot import Snapshot
from routing.values import Feature

MOST_STEPS = 10
_MEMBERS = frozenset({"feature_name", "input_map", "on_failure"})
_PATH = r"(?:\$\.)?((?:result|input|metadata)(?:\.[A-Za-z0-9_-]+)+|state)"
_WHOLE = re.compile(rf"{_PATH}|\{{\{{\s*{_PATH}\s*\}}\}}")
_INSIDE = re.compile(rf"\{{\{{\s*{_PATH}\s*\}}\}}")
_SHORT = {"text": "result.text", "data": "result.data"}


def compiled(
    snapshot: Snapshot, first: Feature, steps: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]] | None:
    """The steps after a job of `first`, as `jobs.follow_ups` keeps them; None where there are none.

    Raises InputRejected, its field as `then/0/input_map/text`.
    """
    if len(steps) > MOST_STEPS:
        raise InputRejected(f"A chain may have {MOST_STEPS} steps.", field="then")
    made = []
    before = first
    for place, step in enumerate(steps):
        where = f"then/{place}"
        feature = _feature(snapshot, step, where)
        input_map = step.get("input_map") or _usual(before, feature)
        _check_members(feature, input_map, f"{where}/input_map")
        made.append(
            {
                "feature_name": feature.name,
                "input_map": input_map,
                "on_failure": step.get("on_failure", "stop"),
                "input": {
                    name: _source(value, f"{where}/input_map/{name}") for name, value in input_map.items()
                },
            }
        )
        before = feature
    return made or None


def as_sent(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compiled steps as they would be sent."""
    return [{name: value for name, value in step.items() if name in _MEMBERS} for step in steps]


def _feature(snapshot: Snapshot, step: Mapping[str, Any], where: str) -> Feature:
    unknown = sorted(step.keys() - _MEMBERS)
    if unknown:
        raise InputRejected(
            "There is no such field. Check its name, or remove it.", field=f"{where}/{unknown[0]}"
        )
    if step.get("on_failure", "stop") not in ("stop", "continue"):
        raise InputRejected("This is stop or continue.", field=f"{where}/on_failure")
    if not isinstance(step.get("input_map", {}), dict):
        raise InputRejected("This is an object: where each member comes from.", field=f"{where}/input_map")
    feature = snapshot.features.get(str(step.get("feature_name")))
    if feature is None:
        raise InputRejected(
            f"There is no feature {step.get('feature_name')!r}.", field=f"{where}/feature_name"
        )
    return feature


def _usual(before: Feature, feature: Feature) -> dict[str, str]:
    known = before.input_schema.get("properties", {})
    return {
        name: "result.text" if name == "text" else f"input.{name}"
        for name in feature.input_schema.get("properties", {})
        if name == "text" or name in known
    }


def _check_members(feature: Feature, input_map: Mapping[str, Any], where: str) -> None:
    """What can be known before there is a result: that no member is missing, and none too many."""
    schema = feature.input_schema
    missing = [name for name in schema.get("required", ()) if name not in input_map]
    if missing:
        raise InputRejected(
            f"{feature.name} needs {missing[0]!r}. Say where it comes from, as result.text.",
            field=f"{where}/{missing[0]}",
        )
    strange = sorted(input_map.keys() - schema.get("properties", {}).keys())
    if strange and schema.get("additionalProperties") is False:
        raise InputRejected(f"{feature.name} takes no {strange[0]!r}.", field=f"{where}/{strange[0]}")


def _source(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, str):
        return {"value": value}
    if (whole := _WHOLE.fullmatch(_SHORT.get(value, value))) is not None:
        return {"path": _path(whole)}
    parts: list[dict[str, Any]] = []
    end = 0
    for found in _INSIDE.finditer(value):
        parts += [{"value": value[end : found.start()]}, {"path": _path(found)}]
        end = found.end()
    rest = value[end:]
    if "{{" in rest or any("{{" in part.get("value", "") for part in parts):
        raise InputRejected(
            "Between {{ and }} stands a path, as result.text, input.language or metadata.x.", field=where
        )
    return {"parts": [*parts, {"value": rest}]} if parts else {"value": value}


def _path(found: re.Match[str]) -> list[str]:
    return next(group for group in found.groups() if group is not None).split(".")
