"""Whether the models of an assignment can serve its feature, as far as that is known before a job runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from admin_api.refusals import Invalid
from routing import values
from routing.errors import ConfigurationError
from routing.providers import codec
from routing.values import Call, Capability, Route
from store.tables import AIModel, AIProvider, FeatureAIAssignment


def check_targets(
    session: Session,
    row: FeatureAIAssignment,
    targets: Sequence[tuple[UUID, str]],
    parameters: Mapping[str, Any],
) -> None:
    """Check each `(model id, field it came from)`. Raises Invalid, naming the field and the fix."""
    found = session.scalars(
        select(AIModel)
        .where(AIModel.id.in_([model_id for model_id, _ in targets]))
        .options(joinedload(AIModel.provider))
    )
    models = {model.id: model for model in found}
    before = {target.model_id for target in row.targets}
    for model_id, field in targets:
        model = models.get(model_id)
        if model is None:
            raise Invalid(f"There is no model {model_id}.", field=field, hint="GET /models lists them.")
        _check_capability(model, row.feature.capability, field)
        if model_id not in before:
            _check_active(model, field)
        _check_call(model, Capability(row.feature.capability), parameters, field)


def _check_capability(model: AIModel, capability: str, field: str) -> None:
    if capability not in model.capabilities:
        raise Invalid(
            f"Model {model.model_id!r} lacks the capability {capability} that the feature needs (it has "
            f"{', '.join(model.capabilities)}). Add it to the model, or assign another.",
            field=field,
        )


def _check_active(model: AIModel, field: str) -> None:
    for what, is_active in (
        (f"Model {model.model_id!r}", model.is_active),
        (f"Provider {model.provider.slug!r} of model {model.model_id!r}", model.provider.is_active),
    ):
        if not is_active:
            raise Invalid(f"{what} is inactive. Activate it first, or assign another.", field=field)
    if _model(model).is_retired(datetime.now(UTC)):
        raise Invalid(
            f"Model {model.model_id!r} was retired after {model.retires_at}. Assign its successor.",
            field=field,
        )


def _check_call(model: AIModel, capability: Capability, parameters: Mapping[str, Any], field: str) -> None:
    """Encode a call as a worker would: what the adapter refuses now it would refuse for every job."""
    route = Route(provider_of(model.provider), _model(model), None)
    merged = {
        name: value
        for name, value in {**model.default_parameters, **parameters}.items()
        if value is not None and name != "voice"  # the job's or the assignment's voice is no parameter
    }
    call = Call(capability, route, system=None, user="x", parameters=merged, voice="x")
    try:
        adapter = codec(route, capability)
    except ConfigurationError as error:
        raise Invalid(error.message, field=field) from None
    try:
        adapter.encode(call, None)
    except ConfigurationError as error:
        raise Invalid(error.message, field="parameters") from None


def provider_of(row: AIProvider) -> values.Provider:
    """The provider as routing knows it, without its key."""
    return values.Provider(
        id=row.id,
        slug=row.slug,
        protocol=row.type,
        base_url=row.base_url,
        api_version=row.api_version,
        organization=row.organization,
        settings=row.settings,
        sealed_key=None,
        key_version=row.key_version,
        allow_shared_for_normal_admins=row.allow_shared_for_normal_admins,
        allow_private_network=row.allow_private_network,
        timeout_seconds=row.timeout_seconds,
        is_active=row.is_active,
    )


def _model(row: AIModel) -> values.Model:
    return values.Model(
        id=row.id,
        provider_id=row.provider_id,
        model_id=row.model_id,
        capabilities=frozenset(row.capabilities),
        context_window=row.context_window,
        max_output_tokens=row.max_output_tokens,
        default_parameters=row.default_parameters,
        constraints=row.constraints,
        is_active=row.is_active,
        sort_order=row.sort_order,
        is_default=row.is_default,
        retires_at=row.retires_at,
        api_style=row.api_style,
    )
