"""The configuration as a document: its entries, the YAML they are written as, and what differs between two.

An entry is a noun under its natural key (a slug, `slug/model_id`, a feature's name), with every member that
clients may send but no secret, no id and no stamp. So the same configuration is the same text everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from admin_api import models
from admin_api.assignments import AssignmentBody, Target
from admin_api.budgets import BudgetBody
from admin_api.features import FeatureBody
from admin_api.integrations import IntegrationBody
from admin_api.models import ModelBody
from admin_api.providers import ProviderBody
from admin_api.schedules import ScheduleBody
from routing.values import PriceUnit
from standalone.errors import CommandError
from workers import cron
from workers.cron import CronInvalid

FORMAT = 1


class DocumentError(CommandError):
    """The file is no configuration; the message names each place and what is wrong there."""


class Kind(StrEnum):
    """Kinds of entries, in the order in which they need each other."""

    PROVIDER = "provider"
    MODEL = "model"
    PRICE = "price"
    FEATURE = "feature"
    INTEGRATION = "integration"
    ASSIGNMENT = "assignment"
    SCHEDULE = "schedule"
    BUDGET = "budget"


class Key(NamedTuple):
    """What an entry is called. A price: `slug/model_id valid_from`; an assignment: its feature; a budget: its
    scope, period and action (`feature cv_draft day block`), the second of the same with a 2.
    """

    kind: Kind
    name: str


Entry = Mapping[str, Any]
Entries = Mapping[Key, Entry]


class PriceBody(BaseModel):
    """A price in a file: dollars per 1,000 `price_unit` from `valid_from` on."""

    model_config = ConfigDict(extra="forbid")

    valid_from: AwareDatetime
    price_unit: PriceUnit = PriceUnit.TOKENS
    input_price_per_1k: models.Price | None = None
    output_price_per_1k: models.Price | None = None
    cached_input_price_per_1k: models.Price | None = None
    cache_write_price_per_1k: models.Price | None = None
    batch_input_price_per_1k: models.Price | None = None
    batch_output_price_per_1k: models.Price | None = None


BODIES: Mapping[Kind, type[BaseModel]] = {
    Kind.PROVIDER: ProviderBody,
    Kind.MODEL: ModelBody,
    Kind.PRICE: PriceBody,
    Kind.FEATURE: FeatureBody,
    Kind.INTEGRATION: IntegrationBody,
    Kind.ASSIGNMENT: AssignmentBody,
    Kind.SCHEDULE: ScheduleBody,
    Kind.BUDGET: BudgetBody,
}
ELSEWHERE: Mapping[Kind, frozenset[str]] = {
    Kind.PROVIDER: frozenset({"api_key"}),
    Kind.MODEL: frozenset({"provider_id", *models.PRICES, "price_unit"}),
    Kind.PRICE: frozenset(),
    Kind.FEATURE: frozenset(),
    Kind.INTEGRATION: frozenset({"credentials"}),
    Kind.ASSIGNMENT: frozenset({"feature_name", "model_id", "backup_model_id"}),
    Kind.SCHEDULE: frozenset(),
    Kind.BUDGET: frozenset(),
}
"""Members that a file has not: secrets, and what its structure says."""

_WHERE_INSTEAD = {
    "api_key": "A file holds no secrets. Store the key with `orrery import-env` or PATCH /providers/{id}.",
    "credentials": "A file holds no secrets. Store them with PATCH /integrations/{id}.",
    **dict.fromkeys((*models.PRICES, "price_unit"), "Prices are listed under `prices`."),
}


# --- entries ------------------------------------------------------------------------------------------


def entry(kind: Kind, body: BaseModel) -> dict[str, Any]:
    """A body as an entry: plain JSON values, each in one spelling."""
    document = body.model_dump(mode="json", exclude=set(ELSEWHERE[kind]), warnings=False)
    if kind is Kind.PRICE:
        assert isinstance(body, PriceBody)  # noqa: S101
        document["valid_from"] = moment(body.valid_from)
        document |= {name: _plain(getattr(body, name)) for name in models.PRICES}
    if isinstance(body, ScheduleBody):
        document["then"] = [step.model_dump(mode="json", exclude_defaults=True) for step in body.then]
        with suppress(CronInvalid):  # as it is kept; what is none is refused where it is written
            document["cron"] = cron.parse(body.cron, body.timezone).expression
    if isinstance(body, BudgetBody):
        document["limit_usd"] = _plain(body.limit_usd)
        document["alert_percent"] = sorted(set(body.alert_percent))
    return document


def price_key(model: str, valid_from: datetime) -> Key:
    """The key of a model's price."""
    return Key(Kind.PRICE, f"{model} {moment(valid_from)}")


def budget_key(budget: Entry, known: Container[Key]) -> Key:
    """The key of a budget beside those that are known already."""
    names = (budget["scope"], budget["scope_id"], budget["period"], budget["action"])
    name = " ".join(filter(None, names))
    keys = (Key(Kind.BUDGET, name if number == 1 else f"{name} {number}") for number in count(1))
    return next(key for key in keys if key not in known)


def moment(time: datetime) -> str:
    """RFC 3339, UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount.normalize():f}"


# --- differences --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """An entry that is to be added (`before` None), changed, or removed (`after` None)."""

    key: Key
    before: Entry | None
    after: Entry | None

    def lines(self) -> Iterator[str]:
        """The change for people."""
        mark = "+" if self.before is None else "-" if self.after is None else "~"
        yield f"{mark} {self.key.kind} {self.key.name}"
        if self.after is None:
            return
        for name, value in self.after.items():
            if self.before is None:
                if value not in (None, [], {}) and name not in ("slug", "name", "model_id", "valid_from"):
                    yield f"    {name}: {_short(value)}"
            elif self.before.get(name) != value:
                yield f"    {name}: {_short(self.before.get(name))} -> {_short(value)}"


def differences(before: Entries, after: Entries, *, prune: frozenset[Kind] = frozenset()) -> list[Change]:
    """What makes `before` into `after`. Entries that only `before` has go where their kind is pruned."""
    order = list(Kind)
    found = [
        Change(key, before.get(key), wanted)
        for key, wanted in sorted(after.items(), key=lambda item: (order.index(item[0].kind), item[0].name))
        if before.get(key) != wanted
    ]
    gone = [key for key in before if key not in after and key.kind in prune]
    gone.sort(key=lambda key: (-order.index(key.kind), key.name))
    return found + [Change(key, before[key], None) for key in gone]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:157]}..."


# --- YAML ---------------------------------------------------------------------------------------------


def written(entries: Entries) -> str:
    """The entries as YAML. Members that have their default are left out; the order is always the same."""
    by_kind: dict[Kind, dict[str, dict[str, Any]]] = {kind: {} for kind in Kind}
    for key, value in sorted(entries.items(), key=lambda item: item[0].name):
        by_kind[key.kind][key.name] = _without_defaults(key.kind, value)
    for name, price in by_kind[Kind.PRICE].items():
        by_kind[Kind.MODEL][name.rpartition(" ")[0]].setdefault("prices", []).append(price)
    for name, model in by_kind[Kind.MODEL].items():
        by_kind[Kind.PROVIDER][name.partition("/")[0]].setdefault("models", []).append(model)
    for name, assignment in by_kind[Kind.ASSIGNMENT].items():
        by_kind[Kind.FEATURE][name]["assignment"] = assignment
    document = {
        "orrery": FORMAT,
        "providers": list(by_kind[Kind.PROVIDER].values()),
        "features": list(by_kind[Kind.FEATURE].values()),
        "integrations": list(by_kind[Kind.INTEGRATION].values()),
        "schedules": list(by_kind[Kind.SCHEDULE].values()),
        "budgets": list(by_kind[Kind.BUDGET].values()),
    }
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _without_defaults(kind: Kind, value: Entry) -> dict[str, Any]:
    kept = {}
    for name, member in value.items():
        field = BODIES[kind].model_fields[name]
        default = (
            ... if field.is_required() else to_jsonable_python(field.get_default(call_default_factory=True))
        )
        if member != default:
            kept[name] = member
    return kept


def read(text: str) -> tuple[dict[Key, Entry], frozenset[Kind]]:
    """The entries of a file, and the kinds of the sections that it has. Raises DocumentError."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise DocumentError(f"The file is no YAML: {error}") from None
    reader = _Reader()
    reader.document(document)
    if reader.problems:
        raise DocumentError("\n".join(["The file cannot be imported.", *reader.problems]))
    return reader.entries, frozenset(reader.kinds)


_SECTIONS: Mapping[str, tuple[Kind, ...]] = {
    "providers": (Kind.PROVIDER, Kind.MODEL, Kind.PRICE),
    "features": (Kind.FEATURE, Kind.ASSIGNMENT),
    "integrations": (Kind.INTEGRATION,),
    "schedules": (Kind.SCHEDULE,),
    "budgets": (Kind.BUDGET,),
}


class _Reader:
    """Collects the entries of a document, and everything that is wrong with it."""

    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}
        self.kinds: set[Kind] = set()
        self.problems: list[str] = []

    def document(self, document: object) -> None:
        if not isinstance(document, dict) or document.get("orrery") != FORMAT:
            self.problems.append(f"It must begin with `orrery: {FORMAT}`, which is the format's version.")
            return
        for name, section in document.items():
            if name in _SECTIONS:
                self.kinds.update(_SECTIONS[name])
                for place, member in self._listed(section, name):
                    self._noun(_SECTIONS[name][0], member, place)
            elif name != "orrery":
                self.problems.append(f"{name}: unknown. There are {', '.join(_SECTIONS)}.")

    def _noun(self, kind: Kind, member: dict[str, Any], place: str) -> None:
        if kind is Kind.BUDGET:
            self._budget(member, place)
            return
        inner = {Kind.PROVIDER: "models", Kind.FEATURE: "assignment"}.get(kind)
        within = member.pop(inner, None) if inner else None
        natural = "slug" if kind is Kind.PROVIDER else "name"
        name = member.get(natural)
        place = f"{place.partition('[')[0]}[{name}]" if isinstance(name, str) else place
        if not self._entry(Key(kind, str(name)), member, place) or within is None:
            return
        if kind is Kind.FEATURE:
            self._assignment(str(name), within, f"{place}.assignment")
        else:
            for where, model in self._listed(within, f"{place}.models"):
                self._model(str(name), model, where)

    def _budget(self, member: dict[str, Any], place: str) -> None:
        body = self._valid(Kind.BUDGET, member, place)
        if body is not None:
            budget = entry(Kind.BUDGET, body)
            self._add(budget_key(budget, self.entries), budget, place)

    def _model(self, slug: str, member: dict[str, Any], place: str) -> None:
        prices = member.pop("prices", None)
        if isinstance(member.get("model_id"), str):
            member["model_id"] = member["model_id"].strip()
            place = f"{place.rpartition('[')[0]}[{member['model_id']}]"
        name = f"{slug}/{member.get('model_id')}"
        if not self._entry(Key(Kind.MODEL, name), {**member}, place, provider_id=UUID(int=0)):
            return
        for where, price in self._listed(prices or [], f"{place}.prices"):
            body = self._valid(Kind.PRICE, price, where)
            if isinstance(body, PriceBody):
                self._add(price_key(name, body.valid_from), entry(Kind.PRICE, body), where)

    def _assignment(self, feature: str, member: object, place: str) -> None:
        if not isinstance(member, dict):
            self.problems.append(f"{place}: must hold members, as `targets`.")
            return
        targets = list(self._listed(member.get("targets") or [], f"{place}.targets"))
        references = [target.pop("model", None) for _, target in targets]
        for (where, _), reference in zip(targets, references, strict=True):
            if not isinstance(reference, str) or "/" not in reference:
                self.problems.append(f"{where}.model: must name a model as `provider-slug/model_id`.")
        unresolved = [{**target, "model_id": UUID(int=n)} for n, (_, target) in enumerate(targets)]
        body = self._valid(Kind.ASSIGNMENT, {**member, "targets": unresolved}, place, feature_name=feature)
        if isinstance(body, AssignmentBody):
            shown = entry(Kind.ASSIGNMENT, body)
            shown["targets"] = [
                {"model": reference, **_target(target)}
                for reference, target in zip(references, body.targets or [], strict=True)
            ]
            self._add(Key(Kind.ASSIGNMENT, feature), shown, place)

    def _entry(self, key: Key, member: dict[str, Any], place: str, **filled: object) -> bool:
        body = self._valid(key.kind, member, place, **filled)
        if body is not None:
            self._add(key, entry(key.kind, body), place)
        return body is not None

    def _add(self, key: Key, value: Entry, place: str) -> None:
        if key in self.entries:
            self.problems.append(f"{place}: stands there twice.")
        self.entries[key] = value

    def _valid(self, kind: Kind, member: dict[str, Any], place: str, **filled: object) -> BaseModel | None:
        misplaced = [name for name in member if name in ELSEWHERE[kind]]
        self.problems += [
            f"{place}.{name}: {_WHERE_INSTEAD.get(name, 'unknown; the structure of the file says it.')}"
            for name in misplaced
        ]
        try:
            return BODIES[kind].model_validate({**member, **filled}) if not misplaced else None
        except ValidationError as error:
            self.problems += [
                f"{place}{''.join(_step(part) for part in found['loc'])}: {found['msg']}"
                for found in error.errors(include_input=False, include_url=False)
            ]
            return None

    def _listed(self, section: object, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if not isinstance(section, list):
            self.problems.append(f"{place}: must be a list.")
            return
        for index, member in enumerate(section):
            if isinstance(member, dict) and all(isinstance(name, str) for name in member):
                yield f"{place}[{index}]", dict(member)
            else:
                self.problems.append(f"{place}[{index}]: must hold members, each a name with a value.")


def target_entry(reference: str, target: Target) -> dict[str, Any]:
    """A target as an assignment's entry lists it, at its place in the order."""
    return {"model": reference, **_target(target)}


def _target(target: Target) -> dict[str, Any]:
    return target.model_dump(
        mode="json", exclude={"model_id", "position"}, exclude_defaults=True, warnings=False
    )


def _step(part: object) -> str:
    return f"[{part}]" if isinstance(part, int) else f".{part}"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines are written as blocks; nothing is an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_BREAKS = re.compile("[\r\x85\u2028\u2029\ufeff]")  # lost or changed unless they are escaped


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _BREAKS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


class _Loader(yaml.SafeLoader):
    """Times stay texts, and a member may not stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[object] = []
        for name, _ in node.value:
            if name.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name.value!r} stands there twice", name.start_mark
                )
            seen.append(name.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
