"""The steps of a schedule in its form: what follows each job, one step after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from admin_api.bodies import parse
from admin_api.errors import FieldProblem
from admin_api.job_bodies import Step
from admin_api.pages.controls import Choice, Control, Filled, Kind, Tweak
from admin_api.pages.route import SentForm
from admin_api.refusals import FieldError, Invalid, Malformed

FIELD = "then"


@dataclass(frozen=True, slots=True)
class Typed:
    """A step as it stands in the form."""

    feature_name: str
    input_map: str
    on_failure: str


@dataclass(frozen=True, slots=True)
class StepFields:
    """The fields of a step."""

    fields: Sequence[Filled]


def typed_steps(sent: SentForm) -> list[Typed]:
    """The steps of the form; `do` adds one, or removes one."""
    steps = list(_sent(sent))
    act = sent.get("do")
    if act == "add step":
        steps.append(Typed("", "", "stop"))
    elif (removed := re.fullmatch(r"remove step (\d{1,3})", act)) is not None:
        steps = [step for place, step in enumerate(steps) if place != int(removed[1])]
    return steps


def stored_steps(steps: Sequence[Step]) -> list[Typed]:
    """The steps as their fields show them."""
    return [Typed(step.feature_name, _lines(step.input_map), step.on_failure) for step in steps]


def filled(
    steps: Sequence[Typed], features: Sequence[Choice], errors: Sequence[FieldProblem]
) -> list[StepFields]:
    """The fields of the steps with what was refused of them."""
    return [
        StepFields(
            [
                _field(place, "feature_name", step.feature_name, _FEATURE, errors, features),
                _field(place, "on_failure", step.on_failure, _ON_FAILURE, errors, _WHETHER),
                _field(place, "input_map", step.input_map, _INPUT_MAP, errors),
            ]
        )
        for place, step in enumerate(steps)
    ]


def read(sent: SentForm) -> tuple[list[dict[str, Any]], list[FieldError]]:
    """The steps that were typed, and what of them cannot be read."""
    found: list[dict[str, Any]] = []
    unread: list[FieldError] = []
    for place, step in enumerate(_sent(sent)):
        input_map, wrong = _mapped(step.input_map)
        if wrong:
            unread.append(FieldError(f"{FIELD}/{place}/input_map", wrong))
        if not step.feature_name:
            unread.append(FieldError(f"{FIELD}/{place}/feature_name", "Choose one, or remove the step."))
        found.append(
            {"feature_name": step.feature_name, "input_map": input_map, "on_failure": step.on_failure}
        )
    return found, unread


def general_error(errors: Sequence[FieldProblem]) -> str:
    """What is wrong with the steps as a whole."""
    return " ".join(each.message for each in errors if each.field == FIELD)


_FEATURE = Tweak(label="Feature", kind=Kind.CHOICE)
_ON_FAILURE = Tweak(label="If the job before it failed", help="", kind=Kind.CHOICE)
_INPUT_MAP = Tweak(
    label="Its input",
    help="One line each, member = where from: result.text, input.language, metadata.x, text around "
    "{{ result.text }}, or a JSON value. Empty: the text before it, and members of the same name.",
    kind=Kind.LONG,
    placeholder="text = result.text",
)
_WHETHER: Sequence[Choice] = (
    ("stop", "stop: it never comes"),
    ("continue", "continue: it runs all the same"),
)


def _field(
    place: int,
    name: str,
    value: str,
    tweak: Tweak,
    errors: Sequence[FieldProblem],
    choices: Sequence[Choice] = (),
) -> Filled:
    control = Control.of(f"{FIELD}.{place}.{name}", Step.model_fields[name], tweak)
    where = f"{FIELD}/{place}/{name}"
    return Filled(control, value, error=" ".join(_said(errors, where)), choices=choices)


def _said(errors: Sequence[FieldProblem], where: str) -> Iterator[str]:
    for each in errors:
        if each.field == where:
            yield each.message
        elif each.field.startswith(f"{where}/"):
            yield f"{each.field.removeprefix(f'{where}/')}: {each.message}"


def _sent(sent: SentForm) -> Iterator[Typed]:
    for place in count():
        names = [f"{FIELD}.{place}.{name}" for name in ("feature_name", "input_map", "on_failure")]
        if names[0] not in sent:
            return
        yield Typed(*(sent.get(name).strip() for name in names))


def _mapped(text: str) -> tuple[dict[str, Any], str]:
    """The map that was typed, and what is wrong with it."""
    found: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, source = (part.strip() for part in line.partition("="))
        if not name or not equals or not source:
            return found, "Write one line each: member = where from."
        found[name] = _source(source)
    return found, ""


def _source(text: str) -> Any:
    """A JSON value where it is one, else text: a path, or text with paths in it."""
    try:
        return parse(text.encode())
    except (Malformed, Invalid):
        return text


def _lines(input_map: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} = {_shown(source)}" for name, source in input_map.items())


def _shown(source: Any) -> str:
    if isinstance(source, str) and source.splitlines() == [source.strip()] and _source(source) == source:
        return source
    return json.dumps(source, ensure_ascii=False)
