"""The first configuration, step by step: provider, test, model, assignment, and a job with its answer.

Each step is a page of its own that can be left: `/setup` leads to the first one that is not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from admin_api import fields, moves
from admin_api.catalog import CatalogModel, CatalogQuery, Installation, install, list_catalog
from admin_api.features import Feature, FeatureQuery, get_feature, list_features
from admin_api.installation import provider_body
from admin_api.job_bodies import JobBody
from admin_api.jobs import enqueue_job, found
from admin_api.models import ModelBody, create_model, get_model
from admin_api.pages.again import again_of
from admin_api.pages.job import sight
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, done
from admin_api.pages.schema_forms import SchemaForm
from admin_api.pages.setup_forms import BY_HAND, KNOWN, MODEL, UNKNOWN
from admin_api.pages.setup_progress import PATH, Journey, Step, address, journey, marks
from admin_api.pagination import PageQuery
from admin_api.probes import Verdict
from admin_api.providers import create_provider, get_provider, test_provider
from admin_api.refusals import FieldsRefused, Invalid, NotFound
from admin_api.security import Current, Principal, allow_writing
from admin_api.services import Services, Using
from admin_api.sessions import Reading, Writing, writing
from admin_api.vendors import Vendor, vendors
from admin_api.workers import list_workers
from routing.providers import PROTOCOLS
from routing.values import Capability

router = APIRouter(route_class=PageRoute)

_MODELS = 12  # of the catalog, to choose one of; its own page lists all


@router.get(PATH)
@allow_writing
def show_setup(request: Request, session: Reading, caller: Current, using: Using) -> Response:
    """Where it goes on; where all is done, what comes next."""
    there = journey(session, caller, using)
    if there.next is not None:
        return done(there.address(there.next))
    return page(request, "setup_done.html", marks=marks(there, None))


# --- provider -----------------------------------------------------------------------------------------


@router.get(f"{PATH}/provider")
@allow_writing
def choose_provider(
    request: Request, session: Reading, caller: Current, using: Using, vendor: str | None = None
) -> Response:
    there = journey(session, caller, using)
    if vendor is None:
        known = list_catalog(CatalogQuery(limit=200), session).items
        return _page(request, "vendors", there, Step.PROVIDER, vendors=[v for v in known if v.is_supported])
    known_vendor = _vendor(vendor)
    if known_vendor is None:
        view = UNKNOWN.view(request, given={"type": next(iter(PROTOCOLS))})
    else:
        given = provider_body(known_vendor, None).model_dump(mode="json", exclude={"api_key"})
        view = KNOWN.view(request, given=given)
    return _page(request, "provider", there, Step.PROVIDER, vendor=known_vendor, form=view)


@router.post(f"{PATH}/provider")
@allow_writing
def add_provider(vendor: str, sent: Sent, session: Writing, caller: Current, using: Using) -> Response:
    known = _vendor(vendor)
    body = (UNKNOWN if known is None else KNOWN).body(sent)
    if known is not None and known.needs_key and body.api_key is None:
        raise Invalid(f"{known.name} needs a key.", field="api_key")
    made = create_provider(body, session, caller, using)
    return done(address(Step.TEST, provider=made.id))


def _vendor(slug: str) -> Vendor | None:
    """The catalog's vendor. Raises NotFound where it is neither known nor `BY_HAND`."""
    if slug == BY_HAND:
        return None
    if slug not in vendors():
        raise NotFound(f"The catalog has no vendor {slug!r}.")
    return vendors()[slug]


# --- test ---------------------------------------------------------------------------------------------


@router.get(f"{PATH}/test")
@allow_writing
def ready_to_test(
    request: Request, session: Reading, caller: Current, using: Using, provider: UUID | None = None
) -> Response:
    if provider is None:
        return _resumed(Step.TEST, session, caller, using)
    return _test_page(provider, None, request, session, caller, using)


@router.post(f"{PATH}/test")
@allow_writing
def run_test(provider: UUID, request: Request, session: Reading, caller: Current, using: Using) -> Response:
    """Really ask the provider; no transaction is open meanwhile."""
    verdict = test_provider(provider, using)
    return _test_page(provider, verdict, request, session, caller, using)


def _test_page(
    provider_id: UUID,
    verdict: Verdict | None,
    request: Request,
    session: Session,
    caller: Principal,
    using: Services,
) -> Response:
    provider = get_provider(provider_id, session)
    was_tested = verdict is not None and verdict.ok
    there = journey(session, caller, using, provider_id=provider_id, was_tested=was_tested)
    onward = address(Step.MODEL, provider=provider_id)
    return _page(request, "test", there, Step.TEST, provider=provider, verdict=verdict, onward=onward)


# --- model --------------------------------------------------------------------------------------------


@router.get(f"{PATH}/model")
@allow_writing
def choose_model(
    request: Request,
    session: Reading,
    caller: Current,
    using: Using,
    provider: UUID | None = None,
    model_id: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    if provider is None:
        return _resumed(Step.MODEL, session, caller, using)
    stored = get_provider(provider, session)
    there = journey(session, caller, using, provider_id=provider, was_tested=True)
    offers = _offers(stored.slug, session)
    return _page(
        request,
        "model",
        there,
        Step.MODEL,
        provider=stored,
        offers=offers[:_MODELS],
        offered=len(offers),
        form=MODEL.view(request, given={"model_id": model_id, "name": model_id, "capabilities": ["text"]}),
        onward=address(Step.ASSIGN, provider=provider) if there.models else "",
    )


@router.post(f"{PATH}/model")
@allow_writing
def add_model(
    provider: UUID, sent: Sent, request: Request, session: Reading, caller: Current, using: Using
) -> Response:
    """A model of the catalog, where one was chosen; else the one that was typed."""
    if known := sent.get("known"):
        slug = get_provider(provider, session).slug
        wanted = Installation(models=[known], add_to_existing=True, test=False)
        installed = install(slug, wanted, caller, using, request)
        model_id = installed.models[0].id if installed.models else None
        return done(address(Step.ASSIGN, provider=provider, model=model_id))
    with writing(using, request) as written:
        named = ModelBody.model_construct(provider_id=provider, model_id="", name="")
        made = create_model(fields.merged(named, MODEL.changes(sent)), written, caller)
    return done(address(Step.ASSIGN, provider=provider, model=made.id))


def _offers(slug: str, session: Session) -> list[CatalogModel]:
    """What the catalog has of the vendor and the provider has not, models of text first."""
    today = datetime.now(UTC).date()
    offers = [
        model
        for vendor in list_catalog(CatalogQuery(provider=slug), session).items
        for model in vendor.models
        if not model.is_installed and (model.retires_at is None or model.retires_at >= today)
    ]
    return sorted(offers, key=lambda model: (model.retires_at is not None, "text" not in model.capabilities))


# --- assignment ---------------------------------------------------------------------------------------


@router.get(f"{PATH}/assign")
@allow_writing
def choose_features(
    request: Request,
    session: Reading,
    caller: Current,
    using: Using,
    provider: UUID | None = None,
    model: UUID | None = None,
) -> Response:
    if provider is None:
        return _resumed(Step.ASSIGN, session, caller, using)
    there = journey(session, caller, using, provider_id=provider)
    if model is None and not there.models:
        return done(there.address(Step.MODEL))
    chosen = get_model(model, session) if model else max(there.models, key=lambda each: each.id)
    again = again_of(request)
    places = moves.places(session, chosen.id)
    return _page(
        request,
        "assign",
        there,
        Step.ASSIGN,
        model=chosen,
        models=there.models,
        places=places,
        ticked=again.sent.all("features") if again else _unassigned(places),
        onward=address(Step.RUN) if there.features else "",
    )


@router.post(f"{PATH}/assign")
@allow_writing
def assign_features(model: UUID, sent: Sent, session: Writing, caller: Current) -> Response:
    chosen = sent.all("features")
    if not chosen:
        raise Invalid("Choose a feature for it to serve.", field="features")
    moves.move(session, model, chosen, caller)
    return done(address(Step.RUN, feature=chosen[0]))


def _unassigned(places: Sequence[moves.Place]) -> list[str]:
    return [place.feature for place in places if place.assignment_id is None]


# --- job ----------------------------------------------------------------------------------------------


@router.get(f"{PATH}/run")
@allow_writing
def ready_to_run(
    request: Request,
    session: Reading,
    caller: Current,
    using: Using,
    feature: Annotated[str, Query(max_length=100)] = "",
    job: UUID | None = None,
) -> Response:
    there = journey(session, caller, using)
    if not there.features:
        return done(there.address(there.next or Step.PROVIDER))
    chosen = get_feature(feature or _easiest(there.features, session), session)
    ran = None if job is None else sight(found(using, job, caller.token_id), using)
    return _page(
        request,
        "run",
        there,
        Step.RUN,
        features=sorted({*there.features, chosen.name}),
        feature=chosen,
        input=_input(request, chosen, ran.job.input if ran else None),
        ran=ran,
        has_worker=any(each.state == "running" for each in list_workers(PageQuery(limit=200), using).items),
    )


@router.post(f"{PATH}/run")
@allow_writing
def run_job(feature: str, sent: Sent, session: Reading, caller: Current, using: Using) -> Response:
    document, unread = SchemaForm.of(get_feature(feature, session).input_schema).read(sent)
    if unread:
        raise FieldsRefused(unread)
    made = enqueue_job(JobBody(feature=feature, input=document), Response(), caller, using)
    return done(address(Step.RUN, feature=feature, job=made.id))


def _easiest(features: Sequence[str], session: Session) -> str:
    """The one to begin with: a text that comes at once, if there is one."""
    query = FeatureQuery(capability=Capability.TEXT, lane="interactive", limit=200)
    quick = [each.name for each in list_features(query, session).items if each.name in features]
    return (quick or features)[0]


def _input(request: Request, feature: Feature, ran: Any) -> Any:
    """The form of the input: as typed, as it ran, or the example of the schema."""
    again = again_of(request)
    example = feature.input_schema.get("example")
    given = ran or (example if isinstance(example, dict) else {})
    errors = () if again is None else again.problem.errors
    return SchemaForm.of(feature.input_schema).filled(given, again.sent if again else None, errors)


def _resumed(step: Step, session: Session, caller: Principal, using: Services) -> Response:
    """To the step for the provider that has come furthest; to the first one where there is none."""
    there = journey(session, caller, using)
    return done(there.address(step if there.provider else Step.PROVIDER))


def _page(request: Request, step: str, there: Journey, current: Step, **context: Any) -> Response:
    return page(request, f"setup_{step}.html", marks=marks(there, current), journey=there, **context)
