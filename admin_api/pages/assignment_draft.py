"""What the editor of an assignment shows: what is stored, or what was typed and not saved yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from admin_api.assignments import Assignment, ShownTarget
from admin_api.features import Feature
from admin_api.pages.model_names import Models, NamedModel
from admin_api.pages.prompt_preview import sample_of
from admin_api.pages.route import SentForm


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a model is a target, as they are typed."""

    weight: str = "1"
    plan: str = ""
    burn: str = ""

    @classmethod
    def of(cls, target: ShownTarget) -> Terms:
        """The terms of a stored target."""
        burn = target.conditions.budget_burn_percent
        return cls(f"{target.weight:g}", target.conditions.plan or "", "" if burn is None else f"{burn:g}")

    def members(self) -> dict[str, Any]:
        """As members of a target; what is no number is refused there."""
        return {
            "weight": _number(self.weight or "1"),
            "conditions": {
                "plan": self.plan or None,
                "budget_burn_percent": _number(self.burn) if self.burn else None,
            },
        }


@dataclass(frozen=True, slots=True)
class Draft:
    """Models in order, each with its terms, both templates, and the input that they are tried with."""

    chain: Sequence[NamedModel]
    terms: Sequence[Terms]
    system: str
    user: str
    sample: str


def drafted(feature: Feature, stored: Assignment | None, models: Models, typed: SentForm | None) -> Draft:
    """The draft that was typed, else the one that is stored."""
    if typed is not None:
        sent = targets_of(typed)
        known = {model.name: model for model in models.called([name for name, _ in sent])}
        placed = [(known[name], terms) for name, terms in sent if name in known]
        return Draft(
            [model for model, _ in placed],
            [terms for _, terms in placed],
            typed.get("system"),
            typed.get("user"),
            typed.get("sample"),
        )
    prompt = stored and stored.prompt_template
    return Draft(
        chain=models.chain(target.model_id for target in stored.targets) if stored else [],
        terms=[Terms.of(target) for target in stored.targets] if stored else [],
        system=(prompt and prompt.system) or "",
        user=(prompt and prompt.user) or "",
        sample=sample_of(feature),
    )


def targets_of(sent: SentForm) -> list[tuple[str, Terms]]:
    """The names of the models that were sent, and their terms, after what the pressed button does to them.

    `do` is `up 1`, `down 1`, `remove 1` or `add`; `add` holds a model that was chosen, whose button may have
    been forgotten.
    """
    names = sent.all("target")
    typed = [sent.all(f"target.{name}") for name in ("weight", "plan", "burn")]
    rows = [(name, Terms(*terms)) for name, *terms in zip_longest(names, *typed, fillvalue="") if name]
    act, _, place = sent.get("do").partition(" ")
    if place.isdecimal() and int(place) < len(rows):
        _move(rows, act, int(place))
    added = sent.get("add")
    return [*rows, (added, Terms())] if added and added not in names and act in ("", "add") else rows


def _move(rows: list[tuple[str, Terms]], act: str, place: int) -> None:
    row = rows.pop(place)
    if act != "remove":
        rows.insert(max(place - 1, 0) if act == "up" else place + 1, row)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
