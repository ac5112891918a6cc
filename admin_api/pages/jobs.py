"""Jobs: the list, and what is done to the selected ones or to all that match."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from admin_api.features import FeatureQuery, list_features
from admin_api.job_actions import cancel_job, cancel_jobs, filters_of, may_act_on, repeated_all, retry_job
from admin_api.job_bodies import FilterBody, JobFilter, ListedJob, listed
from admin_api.jobs import allow_enqueueing, searched
from admin_api.pages import job_filters
from admin_api.pages.again import again_of
from admin_api.pages.job_filters import Filter
from admin_api.pages.render import page
from admin_api.pages.route import Done, PageRoute, Sent, SentForm, done, safe_path
from admin_api.pagination import encoded
from admin_api.providers import ProviderQuery, list_providers
from admin_api.refusals import Invalid, Refused
from admin_api.security import Actor, Current, Principal, allow_reading, rule_of
from admin_api.services import Services, Using
from admin_api.sessions import Reading
from routing.errors import RoutingError
from workers import matching
from workers.backpressure import QueueFull
from workers.matching import Action

router = APIRouter(route_class=PageRoute)

_MOST_FEATURES = 50
_MOST_PROVIDERS = 50
_MOST_COUNTED = 1000
_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
_NOTHING = dict.fromkeys(JobFilter.model_fields, "")  # what the form shows where nothing is asked for
_DONE: Mapping[Action, str] = {"cancel": "cancelled", "retry": "enqueued again"}


class Matching(Filter):
    """Jobs, and what is to be done to all of them."""

    action: Action = "cancel"


@dataclass(frozen=True, slots=True)
class Row:
    """A job of the list, and whether the caller may cancel or repeat it."""

    job: ListedJob
    may_pick: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of the list, and the address of the next; "" where there is none."""

    filter: Filter
    rows: Sequence[Row]
    older: str

    @property
    def is_partial(self) -> bool:
        """Whether more may match although the page is not full: a search in texts reads a part at a time."""
        return bool(self.older) and len(self.rows) < self.filter.limit


@router.get("/jobs")
@allow_reading
def jobs(request: Request, session: Reading, caller: Current, using: Using) -> Response:
    """Jobs that match, newest first."""
    listing, again = None, again_of(request)
    if again is None:
        # This page tells, too, of a filter that cannot be read, and of a search that takes too long.
        request.state.sent = SentForm(request.query_params.multi_items())
        request.state.shown_at = request.url.path
        listing = _listing(job_filters.read(request, Filter), caller, using)
    chosen = Filter() if listing is None else listing.filter
    typed = _NOTHING | (dict(request.query_params) if listing is None else chosen.asked)
    return page(
        request,
        "jobs.html",
        listing=listing,
        typed=typed,
        errors={} if again is None else {each.field: each.message for each in again.problem.errors},
        is_live=listing is not None and chosen.cursor is None and chosen.q is None,
        tabs=[(state, chosen.address(state=state)) for state in ("", *_STATES)],
        features=_features(session, typed["feature"]),
        providers=_providers(session, typed["provider"]),
        may_act=_may_act(caller),
    )


@router.post("/jobs/selection")
@allow_enqueueing
def act_on_selection(sent: Sent, caller: Current, using: Using) -> Response:
    """Cancel or repeat the jobs that were ticked. What cannot be is told, and does not stop the others."""
    action = _action(sent.get("action"))
    back = safe_path(sent.get("back"), otherwise="/jobs")
    try:
        ids = [UUID(picked) for picked in sent.all("pick")]
    except ValueError:
        raise Invalid("This is no job's id.", field="pick") from None
    act = _act(action, caller, using)
    refusals = [refusal for job_id in ids if (refusal := _refusal(act, job_id)) is not None]
    return _told(back, len(ids) - len(refusals), action, refusals)


@router.get("/jobs/matching")
@allow_enqueueing
def all_matching(request: Request, caller: Current, using: Using) -> Response:
    """What would be done to how many jobs, before it is done."""
    asked = job_filters.read(request, Matching)
    counted = None
    if asked.asked:
        counted = matching.count(
            using.pool, filters_of(asked.chosen, caller), asked.action, most=_MOST_COUNTED
        )
    return page(
        request,
        "jobs_matching.html",
        filter=asked,
        counted=counted,
        only_own=caller.actor is Actor.ADMIN,
    )


@router.post("/jobs/matching")
@allow_enqueueing
def act_on_all_matching(request: Request, caller: Current, using: Using) -> Response:
    """Cancel or repeat all jobs that match the filter of the address."""
    asked = job_filters.read(request, Matching)
    body = FilterBody(filter=asked.chosen)
    if asked.action == "cancel":
        return _told(asked.address(), cancel_jobs(body, caller, using).cancelled, asked.action, ())
    repeated = repeated_all(body.filter, caller, using)
    return _told(asked.address(), len(repeated.ids), asked.action, [said for _, said in repeated.refused])


def _listing(chosen: Filter, caller: Principal, using: Services) -> Listing:
    found = searched(chosen, caller, using)
    may_act = _may_act(caller)
    return Listing(
        filter=chosen,
        rows=[Row(listed(job), may_act and may_act_on(job, caller)) for job in found.jobs],
        older=chosen.older(None if found.before is None else encoded([found.before])),
    )


def _may_act(caller: Principal) -> bool:
    return rule_of(cancel_job).permits(caller)


def _features(session: Session, wanted: str) -> list[str]:
    """What the filter offers: the first features by name, and the one that is asked for."""
    return _with(
        wanted, [each.name for each in list_features(FeatureQuery(limit=_MOST_FEATURES), session).items]
    )


def _providers(session: Session, wanted: str) -> list[str]:
    return _with(
        wanted, [each.slug for each in list_providers(ProviderQuery(limit=_MOST_PROVIDERS), session).items]
    )


def _with(wanted: str, names: list[str]) -> list[str]:
    return names if not wanted or wanted in names else [wanted, *names]


def _action(word: str) -> Action:
    if word not in ("cancel", "retry"):
        raise Invalid("This is cancel or retry.", field="action")
    return "cancel" if word == "cancel" else "retry"


def _act(action: Action, caller: Principal, using: Services) -> Callable[[UUID], Any]:
    if action == "cancel":
        return lambda job_id: cancel_job(job_id, caller, using)
    return lambda job_id: retry_job(job_id, Response(), caller, using)


def _refusal(act: Callable[[UUID], Any], job_id: UUID) -> str | None:
    """Act on the job; why not, where it is refused."""
    try:
        act(job_id)
    except (Refused, RoutingError) as refused:
        return refused.message
    except QueueFull as full:
        return str(full)
    return None


def _told(path: str, count: int, action: Action, refusals: Sequence[str]) -> Done:
    text = f"{count:,} {'job' if count == 1 else 'jobs'} {_DONE[action]}."
    if not refusals:
        return done(path, text, kind="good" if count else "warn")
    left = f"{len(refusals):,} {'was' if len(refusals) == 1 else 'were'} left out: {refusals[0]}"
    return done(path, f"{text} {left}", kind="warn")
