"""What the editor of an assignment shows: what is stored, or what was typed and not saved yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from admin_api.assignments import Assignment
from admin_api.features import Feature
from admin_api.pages.model_names import Models, NamedModel
from admin_api.pages.prompt_preview import sample_of
from admin_api.pages.route import SentForm


@dataclass(frozen=True, slots=True)
class Draft:
    """Models in order, both templates, and the input that they are tried with."""

    chain: Sequence[NamedModel]
    system: str
    user: str
    sample: str


def drafted(feature: Feature, stored: Assignment | None, models: Models, typed: SentForm | None) -> Draft:
    """The draft that was typed, else the one that is stored."""
    if typed is not None:
        chain = models.called(targets_of(typed))
        return Draft(chain, typed.get("system"), typed.get("user"), typed.get("sample"))
    prompt = stored and stored.prompt_template
    return Draft(
        chain=models.chain(target.model_id for target in stored.targets) if stored else [],
        system=(prompt and prompt.system) or "",
        user=(prompt and prompt.user) or "",
        sample=sample_of(feature),
    )


def targets_of(sent: SentForm) -> list[str]:
    """The names of the models that were sent, after what the pressed button does to them.

    `do` is `up 1`, `down 1`, `remove 1` or `add`; `add` holds a model that was chosen, whose button may have
    been forgotten.
    """
    names = sent.all("target")
    act, _, place = sent.get("do").partition(" ")
    if place.isdecimal() and int(place) < len(names):
        _move(names, act, int(place))
    added = sent.get("add")
    return [*names, added] if added and added not in names and act in ("", "add") else names


def _move(names: list[str], act: str, place: int) -> None:
    name = names.pop(place)
    if act != "remove":
        names.insert(max(place - 1, 0) if act == "up" else place + 1, name)
