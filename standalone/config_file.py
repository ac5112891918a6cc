"""`orrery config export` and `import`: the configuration as a file, without secrets.

An import writes through the same functions as the API, so it is checked, audited and versioned as a PUT is;
but all of it is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session, joinedload, selectinload

from admin_api import (
    assignments,
    budgets,
    features,
    fields,
    integration_checks,
    models,
    providers,
    schedules,
)
from admin_api.assignments import AssignmentBody, PromptBody, target_of
from admin_api.budgets import BudgetBody
from admin_api.features import FeatureBody
from admin_api.integrations import IntegrationBody
from admin_api.job_bodies import Step
from admin_api.models import ModelBody
from admin_api.providers import ProviderBody
from admin_api.refusals import Refused
from admin_api.schedules import ScheduleBody
from admin_api.uses import refuse_if_used
from routing.snapshot import FEATURES, of_features
from standalone.config_document import (
    Change,
    Entries,
    Entry,
    Key,
    Kind,
    PriceBody,
    budget_key,
    differences,
    entry,
    price_key,
    target_entry,
)
from standalone.errors import CommandError
from store import audit
from store.ids import new_id
from store.orm import engine
from store.settings import Settings
from store.tables import (
    AIModel,
    AIProvider,
    Budget,
    Feature,
    FeatureAIAssignment,
    ModelPrice,
    Schedule,
    SystemIntegration,
)
from store.vault import Keyring, Vault


class ConfigError(CommandError):
    """The configuration was not imported; the message names the entries and what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import would change, and from which configuration on."""

    before: Entries
    changes: Sequence[Change]


def exported(settings: Settings) -> dict[Key, Entry]:
    """The whole configuration, of one moment. Noted in the audit log."""
    with _session(settings) as session:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        entries = _read(session)
    with _session(settings) as session:
        audit.record(session, audit.Event("export", "configuration", actor="cli"))
    return entries


def planned(settings: Settings, wanted: Entries, prune: frozenset[Kind]) -> Plan:
    """What importing `wanted` would change: tried out, and undone. Raises ConfigError where it cannot be."""
    with _session(settings) as session:
        plan = _imported(session, settings, wanted, prune)
        session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        session.rollback()
    return plan


def imported(settings: Settings, wanted: Entries, prune: frozenset[Kind], plan: Plan) -> None:
    """Import in one transaction what was `planned`.

    Raises ConfigError where it cannot be done, or where the configuration has changed since.
    """
    with _session(settings) as session:
        if _imported(session, settings, wanted, prune).before != plan.before:
            raise ConfigError(
                "The configuration has changed meanwhile. Run this again to see what differs now."
            )
        counts = {"added": 0, "changed": 0, "removed": 0}
        for change in plan.changes:
            did = "added" if change.before is None else "removed" if change.after is None else "changed"
            counts[did] += 1
        audit.record(session, audit.Event("import", "configuration", actor="cli", after=counts))


def _imported(session: Session, settings: Settings, wanted: Entries, prune: frozenset[Kind]) -> Plan:
    session.execute(text("SELECT version FROM config_state FOR UPDATE"))
    audit.acting(session, "cli")
    before = _read(session)
    changes = differences(before, wanted, prune=prune)
    _write(session, _Writer(session, Vault(Keyring.load(settings))), changes)
    return Plan(before, changes)


def _write(session: Session, writer: _Writer, changes: Sequence[Change]) -> None:
    """Carry the changes out, in rounds: what another one stands in the way of is tried again after it."""
    waiting = list(changes)
    while waiting:
        refused: list[tuple[Change, str]] = []
        for change in waiting:
            try:
                with session.begin_nested():
                    writer.write(change)
                    session.flush()
            except Refused as error:
                named = f" ({error.errors[0].field})" if error.errors else ""
                refused.append((change, f"{error.message}{named}"))
            except (IntegrityError, DataError) as error:
                refused.append((change, str(error.orig).splitlines()[0]))
        if len(refused) == len(waiting):
            listed = [f"{change.key.kind} {change.key.name}: {why}" for change, why in refused]
            raise ConfigError("\n".join(["The configuration was not imported.", *listed]))
        waiting = [change for change, _ in refused]


# --- from the database --------------------------------------------------------------------------------


def _read(session: Session) -> dict[Key, Entry]:
    found: dict[Key, Entry] = {}
    slugs = {row.id: row.slug for row in session.scalars(select(AIProvider))}
    names: dict[UUID, str] = {}
    for provider in session.scalars(select(AIProvider)):
        found[Key(Kind.PROVIDER, provider.slug)] = _body(Kind.PROVIDER, ProviderBody, provider)
    for model in session.scalars(select(AIModel)):
        names[model.id] = f"{slugs[model.provider_id]}/{model.model_id}"
        found[Key(Kind.MODEL, names[model.id])] = _body(Kind.MODEL, ModelBody, model)
    for price in session.scalars(select(ModelPrice)):
        key = price_key(names[price.model_id], price.valid_from)
        found[key] = _body(Kind.PRICE, PriceBody, price)
    for feature in session.scalars(select(Feature)):
        found[Key(Kind.FEATURE, feature.name)] = _body(Kind.FEATURE, FeatureBody, feature)
    for integration in session.scalars(select(SystemIntegration)):
        key = Key(Kind.INTEGRATION, integration.name)
        found[key] = _body(Kind.INTEGRATION, IntegrationBody, integration)
    for row in session.scalars(select(FeatureAIAssignment).options(*_WHOLE)):
        found[Key(Kind.ASSIGNMENT, row.feature.name)] = _assignment(row, names)
    for schedule in session.scalars(select(Schedule)):
        body = fields.stored(ScheduleBody, schedule)
        body.then = [Step.model_validate(step) for step in schedule.then]
        found[Key(Kind.SCHEDULE, schedule.name)] = entry(Kind.SCHEDULE, body)
    found |= {key: budget for key, (budget, _) in _budgets(session).items()}
    return found


_WHOLE = (
    joinedload(FeatureAIAssignment.feature),
    joinedload(FeatureAIAssignment.prompt_template),
    selectinload(FeatureAIAssignment.targets),
)


def _body(kind: Kind, body: type[Any], row: object) -> dict[str, Any]:
    """The row's entry. Not validated: what was made under other rules is exported, too."""
    return entry(kind, fields.stored(body, row))


def _budgets(session: Session) -> dict[Key, tuple[dict[str, Any], Budget]]:
    """Budgets and their rows. Providers are named by their slugs."""
    slugs = {str(row.id): row.slug for row in session.scalars(select(AIProvider))}
    found: dict[Key, tuple[dict[str, Any], Budget]] = {}
    for row in session.scalars(select(Budget).order_by(Budget.id)):
        budget = _body(Kind.BUDGET, BudgetBody, row)
        if row.scope == "provider":
            budget["scope_id"] = slugs.get(str(row.scope_id), row.scope_id)
        found[budget_key(budget, found)] = budget, row
    return found


def _assignment(row: FeatureAIAssignment, names: dict[UUID, str]) -> dict[str, Any]:
    body = fields.stored(AssignmentBody, row)
    prompt = row.prompt_template
    body.prompt_template = (
        None if prompt is None else PromptBody(system=prompt.system_template, user=prompt.user_template)
    )
    body.targets = None
    shown = entry(Kind.ASSIGNMENT, body)
    shown["targets"] = [
        target_entry(names[target.model_id], target_of(target))
        for target in sorted(row.targets, key=lambda target: target.position)
    ]
    return shown


# --- into the database --------------------------------------------------------------------------------


class _Writer:
    """Makes single entries what they are to be, as the API would. Nobody is `updated_by`: no admin did it."""

    def __init__(self, session: Session, vault: Vault) -> None:
        self._session = session
        self._vault = vault
        # As they are before: what is added or removed would count them anew.
        self._budgets = {key: row for key, (_, row) in _budgets(session).items()}

    def write(self, change: Change) -> None:
        """Raises Refused."""
        if change.after is None:
            self._remove(change.key)
        else:
            getattr(self, f"_{change.key.kind}")(change.key.name, change.after)

    def _provider(self, slug: str, wanted: Entry) -> None:
        row = self._provider_row(slug)
        if row is None:
            row = AIProvider(id=new_id(), key_version=0)
            self._session.add(row)
        providers.written(self._session, row, ProviderBody.model_validate(wanted), None, self._vault)

    def _model(self, name: str, wanted: Entry) -> None:
        provider = self._provider_row(name.partition("/")[0])
        assert provider is not None, "a file has models inside of their provider"  # noqa: S101
        row = self._model_row(name)
        if row is None:
            row = AIModel(id=new_id())
            self._session.add(row)
        body = ModelBody.model_validate({**wanted, "provider_id": provider.id})
        models.written(self._session, row, body, None, None)  # as without a price before and after: it stays

    def _price(self, name: str, wanted: Entry) -> None:
        model = self._model_row(name.rpartition(" ")[0])
        assert model is not None, "a file has prices inside of their model"  # noqa: S101
        body = PriceBody.model_validate(wanted)
        row = self._price_row(model.id, body.valid_from)
        if row is None:
            row = ModelPrice(id=new_id(), model_id=model.id)
            self._session.add(row)
        for member in PriceBody.model_fields:
            setattr(row, member, getattr(body, member))

    def _feature(self, name: str, wanted: Entry) -> None:
        row = self._session.scalar(select(Feature).where(Feature.name == name))
        if row is None:
            row = Feature(id=new_id(), name=name)
            self._session.add(row)
        features.written(self._session, row, FeatureBody.model_validate(wanted), None)

    def _integration(self, name: str, wanted: Entry) -> None:
        """Without credentials, so what needs them cannot be checked as a PUT would."""
        row = self._session.scalar(select(SystemIntegration).where(SystemIntegration.name == name))
        body = IntegrationBody.model_validate(wanted)
        integration_checks.check_settings(body.settings)
        if row is None:
            row = SystemIntegration(id=new_id(), credentials_version=0, credential_names=[])
            self._session.add(row)
        for member in IntegrationBody.model_fields.keys() - {"credentials"}:
            setattr(row, member, getattr(body, member))

    def _assignment(self, name: str, wanted: Entry) -> None:
        feature = self._session.scalar(select(Feature).where(Feature.name == name))
        assert feature is not None, "a file has an assignment inside of its feature"  # noqa: S101
        row = self._session.scalar(
            select(FeatureAIAssignment).where(FeatureAIAssignment.feature_id == feature.id).options(*_WHOLE)
        )
        if row is None:
            row = FeatureAIAssignment(id=new_id(), feature=feature, prompt_template=None, targets=[])
            self._session.add(row)
        targets = [
            {**{member: value for member, value in target.items() if member != "model"}, "model_id": model.id}
            for target in wanted["targets"]
            for model in [self._named(target["model"])]
        ]
        body = AssignmentBody.model_validate({**wanted, "feature_name": name, "targets": targets})
        assignments.written(self._session, row, body, None)

    def _schedule(self, name: str, wanted: Entry) -> None:
        found = self._session.scalar(select(Schedule).where(Schedule.name == name))
        row = found or Schedule(id=new_id())
        snapshot = of_features(row._asdict() for row in self._session.execute(text(FEATURES)))
        schedules.written(row, ScheduleBody.model_validate(wanted), None, snapshot)
        self._session.add(row)

    def _budget(self, name: str, wanted: Entry) -> None:
        row = self._budgets.get(Key(Kind.BUDGET, name))
        if row is None:
            row = Budget(id=new_id())
            self._session.add(row)
        budgets.written(self._session, row, BudgetBody.model_validate(wanted), None)

    def _remove(self, key: Key) -> None:
        if key.kind is Kind.ASSIGNMENT:
            feature = select(Feature.id).where(Feature.name == key.name).scalar_subquery()
            self._session.execute(
                delete(FeatureAIAssignment).where(FeatureAIAssignment.feature_id == feature)
            )
        elif key.kind is Kind.FEATURE:
            self._session.execute(delete(Feature).where(Feature.name == key.name))
        elif key.kind is Kind.INTEGRATION:
            self._session.execute(delete(SystemIntegration).where(SystemIntegration.name == key.name))
        elif key.kind is Kind.SCHEDULE:
            self._session.execute(delete(Schedule).where(Schedule.name == key.name))
        elif key.kind is Kind.BUDGET:
            self._session.delete(self._budgets[key])
        elif key.kind is Kind.PRICE:
            name, _, valid_from = key.name.rpartition(" ")
            model = self._model_row(name)
            row = model and self._price_row(model.id, datetime.fromisoformat(valid_from))
            if row is not None:
                self._session.delete(row)
        elif key.kind is Kind.MODEL:
            model = self._model_row(key.name)
            if model is not None:
                refuse_if_used(self._session, f"Model {key.name!r}", AIModel.id == model.id)
                self._session.execute(delete(AIModel).where(AIModel.id == model.id))
        else:
            self._session.execute(delete(AIProvider).where(AIProvider.slug == key.name))

    def _named(self, reference: str) -> AIModel:
        row = self._model_row(reference)
        if row is None:
            raise Refused(f"There is no model {reference!r}, neither in the file nor here.", field="targets")
        return row

    def _provider_row(self, slug: str) -> AIProvider | None:
        return self._session.scalar(select(AIProvider).where(AIProvider.slug == slug))

    def _model_row(self, name: str) -> AIModel | None:
        slug, _, model_id = name.partition("/")
        return self._session.scalar(
            select(AIModel).join(AIProvider).where(AIProvider.slug == slug, AIModel.model_id == model_id)
        )

    def _price_row(self, model_id: UUID, valid_from: datetime) -> ModelPrice | None:
        return self._session.scalar(
            select(ModelPrice).where(ModelPrice.model_id == model_id, ModelPrice.valid_from == valid_from)
        )


@contextmanager
def _session(settings: Settings) -> Iterator[Session]:
    """A session of the database's owner, committed at the end."""
    owner = engine(settings.database(), application="orrery config")
    try:
        with Session(owner, autoflush=False, expire_on_commit=False) as session, session.begin():
            yield session
    finally:
        owner.dispose()
