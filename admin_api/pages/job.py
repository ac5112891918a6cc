"""A job: what was asked, what came of it, by which route and after which tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import PlainTextResponse
from sqlalchemy.orm import Session

from admin_api import job_actions, job_events, jobs
from admin_api.attempts import AttemptQuery, UsageAttempt, list_attempts
from admin_api.explain import Explanation, explained
from admin_api.job_bodies import Tokens, shown, tokens
from admin_api.jobs import allow_enqueueing, found
from admin_api.pages.job_chains import bonds
from admin_api.pages.job_results import Made, made, taken
from admin_api.pages.render import page
from admin_api.pages.route import LIVE, PageRoute, done, shown_at
from admin_api.refusals import NotFound
from admin_api.security import Current, Principal, allow_reading, rule_of
from admin_api.services import Services, Using, services
from admin_api.sessions import Reading
from routing import values
from store.tables import Admin
from workers import records
from workers.records import Job

router = APIRouter(route_class=PageRoute)

_MOST_ATTEMPTS = 12
_MOST_REPEATS = 5
_CLOCKS_APART = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Tries:
    """The last attempts of a job, the oldest first; `are_all`: whether there are no earlier ones."""

    attempts: Sequence[UsageAttempt]
    are_all: bool

    @property
    def longest_ms(self) -> int:
        """The scale that all of them are drawn to."""
        return max((each.latency_ms or 0 for each in self.attempts), default=0)


@dataclass(frozen=True, slots=True)
class Sight:
    """A job, and what the page tells beside its record."""

    job: Job
    tokens: Tokens
    made: Made | None
    tries: Tries

    @property
    def is_later(self) -> bool:
        """Whether its time has not come yet."""
        return self.job.run_at > datetime.now(UTC)

    @property
    def waited_seconds(self) -> float | None:
        """From when it was due to its first call."""
        if not self.tries.attempts or not self.tries.are_all:
            return None
        due = max(self.job.created_at, self.job.run_at) if self._is_first_run else self.job.created_at
        return max(0.0, (self.tries.attempts[0].started_at - due).total_seconds())

    @property
    def _is_first_run(self) -> bool:
        return all(each.run == 1 for each in self.tries.attempts)


def sight(job: Job, using: Services) -> Sight:
    """What is told of the job wherever it is shown in whole."""
    return Sight(job, tokens(job), made(job), _tries(job, using))


@router.get("/jobs/{job_id}")
@allow_reading
def job(job_id: UUID, request: Request, session: Reading, caller: Current, using: Using) -> Response:
    """All that is known of a job; live until it has ended."""
    found_job = found(using, job_id, caller.token_id)
    is_live = LIVE in request.headers
    with using.pool.connection() as db:
        repeats = records.repeats(db, job_id, limit=_MOST_REPEATS)
    return page(
        request,
        "job.html",
        sight=sight(found_job, using),
        input=taken(found_job),
        bonds=bonds(found_job, session),
        repeats=repeats,
        sender=_sender(found_job, session),
        may_act=_may_act(found_job, caller),
        # The live part does not hold it.
        explanation=None if is_live else _explanation(found_job, session, services(request)),
    )


@router.post("/jobs/{job_id}/cancel")
@allow_enqueueing
@shown_at("/jobs/{job_id}")
def cancel(job_id: UUID, caller: Current, using: Using) -> Response:
    """Cancel the job."""
    job_actions.cancel_job(job_id, caller, using)
    return done(f"/jobs/{job_id}", "Job cancelled.")


@router.post("/jobs/{job_id}/retry")
@allow_enqueueing
@shown_at("/jobs/{job_id}")
def retry(job_id: UUID, caller: Current, using: Using) -> Response:
    """Run the job again, and go to the new one."""
    made_job = job_actions.retry_job(job_id, Response(), caller, using)
    return done(f"/jobs/{made_job.id}", "Enqueued again. This is the new job.")


@router.get("/jobs/{job_id}/artifact")
@allow_reading
def artifact(job_id: UUID, request: Request, caller: Current, using: Using) -> Response:
    """What the job made beside its record, by byte ranges, for players."""
    return jobs.get_artifact(job_id, request, caller, using)


@router.get("/jobs/{job_id}/events")
@allow_reading
def events(
    job_id: UUID,
    request: Request,
    caller: Current,
    using: Using,
    last_event_id: Annotated[str | None, Header(max_length=50)] = None,
) -> Response:
    """What the job says while it runs, as the API tells it, for `follow.js`."""
    return job_events.follow_job(job_id, request, caller, using, last_event_id)


@router.get("/jobs/{job_id}/record.json")
@allow_reading
def record(job_id: UUID, caller: Current, using: Using) -> Response:
    """All of the job, as the API shows it."""
    body = shown(found(using, job_id, caller.token_id)).model_dump_json(by_alias=True, indent=2)
    return _file(body, "application/json", f"{job_id}.json")


@router.get("/jobs/{job_id}/download")
@allow_reading
def download(job_id: UUID, caller: Current, using: Using) -> Response:
    """All of the text that the job made."""
    result = found(using, job_id, caller.token_id).result or {}
    if result.get("text") is None:
        raise NotFound(f"Job {job_id} made no text.")
    return _file(str(result["text"]), "text/plain; charset=utf-8", f"{job_id}.txt")


def _file(body: str, media_type: str, name: str) -> Response:
    """Shown as it is: whatever a model wrote, no browser runs it."""
    headers = {
        "Content-Disposition": f'inline; filename="{name}"',
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    return PlainTextResponse(body, headers=headers, media_type=media_type)


def _tries(job: Job, using: Services) -> Tries:
    since = job.created_at - _CLOCKS_APART
    query = AttemptQuery(job_id=job.id, since=since, limit=_MOST_ATTEMPTS)
    listed = list_attempts(query, using)
    return Tries(list(reversed(listed.items)), listed.next_cursor is None)


def _sender(job: Job, session: Session) -> str | None:
    """In whose name it was enqueued; None: the application's own."""
    if job.caller_admin_id is None:
        return None
    admin = session.get(Admin, job.caller_admin_id)
    return str(job.caller_admin_id) if admin is None else admin.email


def _may_act(job: Job, caller: Principal) -> bool:
    return rule_of(job_actions.cancel_job).permits(caller) and job_actions.may_act_on(job, caller)


def _explanation(job: Job, session: Session, own: Services) -> Explanation:
    """Which routes the job would meet now, in the name of who enqueued it."""
    admin = None if job.caller_admin_id is None else session.get(Admin, job.caller_admin_id)
    asked = values.Request(
        job.feature,
        job.input,
        caller=values.Caller() if admin is None else values.Caller(admin.id, admin.role),
        user_id=job.user_id,
        plan=job.plan,
        sticky=job.user_id or str(job.id),
    )
    return explained(asked, session, own)
