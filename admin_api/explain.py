"""Explain: which route of an assignment would win now, and why each other one would not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from admin_api import assignments, fields
from admin_api.errors import field_errors
from admin_api.refusals import Forbidden, Invalid
from admin_api.security import Actor, Current, GuardedRoute, Principal, allow_reading
from admin_api.services import Services, services
from admin_api.sessions import Reading
from routing import explanation, values
from routing.access import Access
from routing.cooldowns import Cooldowns
from routing.explanation import Breakers, Candidate, Verdict
from routing.snapshot import counted, load
from store.tables import Admin
from workers import fleet, recent

router = APIRouter(prefix="/feature-assignments", tags=["feature-assignments"], route_class=GuardedRoute)


class Question(BaseModel):
    """A job to imagine. Without `input` it is the example of the feature's input_schema."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"input": {"sign": "aries"}, "plan": "free"}]}
    )

    input: fields.JsonObject | None = None
    plan: Annotated[str | None, Field(max_length=100)] = None
    user_id: Annotated[str | None, Field(max_length=200)] = None
    as_admin_id: Annotated[
        UUID | None,
        Field(description="As if this admin sent it. Only super admins may ask for somebody else."),
    ] = None


class Considered(BaseModel):
    """A model that was considered, in the order of the assignment."""

    model_id: UUID
    provider: str
    model: str
    verdict: Annotated[
        Verdict,
        Field(description="`wins`: tried first. `backup`: tried where those before it fail. Else not tried."),
    ]
    access: Annotated[
        Access | None, Field(description="By whose key it would be called. Null where that was not asked.")
    ]
    error_class: str | None
    reason: Annotated[str | None, Field(description="Why it is passed over, and what to change.")]
    notes: list[str]
    input_price_per_1k: str | None
    output_price_per_1k: str | None
    price_unit: str | None
    parameters: Annotated[
        fields.JsonObject | None,
        Field(description="As they would be sent: the model's under the assignment's."),
    ]


class Rendered(BaseModel):
    """The prompt as it would be sent. For capabilities other than text `user` is what is spoken, judged or
    drawn; `texts` are what is embedded, where there are several."""

    system: str | None
    user: str
    texts: list[str]
    voice: str | None


class FieldProblem(BaseModel):
    field: str
    message: str


class Explanation(BaseModel):
    """What would become of the job now. `error`: why it would be refused before any route is tried."""

    feature_name: str
    config_version: int
    winner: Considered | None
    candidates: list[Considered]
    prompt: Rendered | None
    prompt_error: Annotated[str | None, Field(description="Names the template's line.")]
    error: FieldProblem | None
    input: fields.JsonObject


@router.post("/{assignment_id}/explain")
@allow_reading
def explain_assignment(
    assignment_id: UUID, body: Question, session: Reading, caller: Current, request: Request
) -> Explanation:
    """Which route would win now, and why each other one would not. Nothing is called and nothing is stored.

    The answer comes from the code that workers run, on the configuration that is committed now.
    """
    row = assignments.found(session, assignment_id)
    example = row.feature.input_schema.get("example")
    given = body.input if body.input is not None else example if isinstance(example, dict) else {}
    asked = values.Request(
        row.feature.name,
        given,
        caller=_caller(session, caller, body),
        user_id=body.user_id,
        plan=body.plan,
        sticky=body.user_id or "",
    )
    return explained(asked, session, services(request))


def explained(asked: values.Request, session: Session, own: Services) -> Explanation:
    """What would become of a job now. `own`: the process's services, which see the whole configuration."""
    with own.pool.connection() as db:
        snapshot = counted(load(db, with_keys=False), db)
        figures = recent.count(db)
    found = explanation.explain(
        snapshot,
        asked,
        now=datetime.now(UTC),
        breakers=_breakers(session),
        figures=figures,
        cooldowns=_cooldowns(own),
    )
    composed = next((one.call for one in found.candidates if one.call is not None), None)
    winner = found.winner
    return Explanation(
        feature_name=asked.feature,
        config_version=found.config_version,
        winner=None if winner is None else _shown(winner),
        candidates=[_shown(one) for one in found.candidates],
        prompt=composed and _rendered(composed),
        prompt_error=None if composed or found.error else _prompt_error(found.candidates),
        error=None if found.error is None else _problem(found),
        input=dict(asked.input),
    )


def _caller(session: Session, caller: Principal, body: Question) -> values.Caller:
    if body.as_admin_id in (None, caller.admin_id):
        return caller.acts_for
    if caller.actor is not Actor.SUPER_ADMIN:
        raise Forbidden("Only super admins may ask on behalf of somebody else. Leave as_admin_id out.")
    admin = session.get(Admin, body.as_admin_id)
    if admin is None:
        raise Invalid(f"There is no admin {body.as_admin_id}.", field="as_admin_id")
    return values.Caller(admin.id, admin.role)


_BREAKERS = text("""
SELECT provider_id, count(*) FILTER (WHERE state = 'open') AS open,
       (SELECT count(*) FROM workers AS living WHERE NOT worker_is_lost(living)) AS workers
FROM worker_breakers JOIN workers ON workers.id = worker_id
WHERE NOT worker_is_lost(workers) GROUP BY provider_id""")


def _breakers(session: Session) -> dict[UUID, Breakers]:
    return {row.provider_id: Breakers(row.open, row.workers) for row in session.execute(_BREAKERS)}


def _cooldowns(own: Services) -> Cooldowns:
    """What rests in the whole fleet."""
    cooldowns = Cooldowns()
    for each in fleet.look(own.line).resting:
        cooldowns.merge(each)
    return cooldowns


def _prompt_error(candidates: tuple[Candidate, ...]) -> str | None:
    return next((one.reason for one in candidates if one.route is not None and one.call is None), None)


def _problem(found: explanation.Explanation) -> FieldProblem:
    assert found.error is not None  # noqa: S101 - the caller has looked
    (first, *_) = field_errors(found.error)
    return FieldProblem(field=first.field, message=first.message)


def _rendered(call: values.Call) -> Rendered:
    return Rendered(system=call.system, user=call.user, texts=list(call.texts), voice=call.voice)


def _shown(one: Candidate) -> Considered:
    price = one.route.price if one.route else None
    return Considered(
        model_id=one.model_id,
        provider=one.provider,
        model=one.model,
        verdict=one.verdict,
        access=_access(one),
        error_class=one.error_class,
        reason=one.reason,
        notes=list(one.notes),
        input_price_per_1k=_money(price and price.input_per_1k),
        output_price_per_1k=_money(price and price.output_per_1k),
        price_unit=price and price.unit.value,
        parameters=dict(one.call.parameters) if one.call else None,
    )


def _access(one: Candidate) -> Access | None:
    if one.route is None:
        return Access.NO_ACCESS if one.error_class == "no_access" else None
    return Access.AVAILABLE_PERSONAL if one.route.personal_key else Access.AVAILABLE_SHARED


def _money(amount: Any) -> str | None:
    return None if amount is None else f"{amount:f}"
