"""Retention: how long jobs and calls are kept, and erasing what an end user's jobs hold."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy import select

from admin_api.pages.controls import Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, changes, done, shown_at
from admin_api.retention import (
    FEWEST_DAYS_OF_CALLS,
    ErasureBody,
    RetentionBody,
    change_retention,
    erase_user,
    get_retention,
    list_retention,
)
from admin_api.security import Current, allow_reading, allow_writing
from admin_api.services import Using
from admin_api.sessions import Reading, Writing
from store.tables import Feature

router = APIRouter(route_class=PageRoute)

PATH = "/retention"

_ERASE = f"{PATH}/erase"
_CALLED = {
    "job_history": ("Finished jobs", "Inputs, results and artifacts go with them."),
    "ai_usage_analytics": ("Calls", "Totals by the hour and the day stay for good."),
}

POLICY = Form(
    RetentionBody,
    Group("How long", "keep_days"),
    keep_days=Tweak(
        label="Days",
        placeholder="for ever",
        help="A day (UTC) is dropped, for good, once it ended so many days ago. Empty: never. Calls are kept "
        f"for {FEWEST_DAYS_OF_CALLS} days at least.",
    ),
)
ERASURE = Form(
    ErasureBody,
    Group("Whose", "user_id"),
    user_id=Tweak(label="User", help="The user_id that your application gives with its jobs."),
)


@router.get(PATH)
@allow_reading
def show_retention(request: Request, session: Reading) -> Response:
    """The policies, the features that have one of their own, and the form that erases."""
    special = (~Feature.store_input) | (~Feature.store_output) | Feature.keep_days.is_not(None)
    return page(
        request,
        "retention.html",
        policies=[(each, *_called(each.table_name)) for each in list_retention(session).items],
        features=session.scalars(select(Feature).where(special).order_by(Feature.name)).all(),
        form=ERASURE.view(request, action=_ERASE),
    )


@router.get(PATH + "/{table_name}/edit")
@allow_writing
def edit_retention(table_name: str, request: Request, session: Reading) -> Response:
    stored = get_retention(table_name, session)
    name, lead = _called(table_name)
    return page(
        request,
        "form.html",
        title=f"How long to keep: {name.lower()}",
        lead=lead,
        crumbs=[("Retention", PATH)],
        form=POLICY.view(request, stored),
        submit="Save",
        cancel=PATH,
    )


@router.post(PATH + "/{table_name}/edit")
@allow_writing
@changes(get_retention)
def save_retention(table_name: str, sent: Sent, session: Writing, caller: Current) -> Response:
    saved = change_retention(table_name, POLICY.changes(sent), session, caller)
    kept = "for ever" if saved.keep_days is None else f"for {saved.keep_days} days"
    return done(PATH, f"{_called(table_name)[0]} are kept {kept}.")


@router.post(_ERASE)
@allow_writing
@shown_at(PATH)
def erase(sent: Sent, using: Using) -> Response:
    """Erase what the jobs of an end user were given and made."""
    body = ERASURE.body(sent)
    erased = erase_user(body, using)
    if not erased.jobs and not erased.artifacts:
        return done(PATH, f"There was nothing of {body.user_id} left to erase.", kind="warn")
    jobs = f"{erased.jobs:,} {'job' if erased.jobs == 1 else 'jobs'}"
    artifacts = f"{erased.artifacts:,} {'artifact' if erased.artifacts == 1 else 'artifacts'}"
    return done(PATH, f"Erased what {jobs} of {body.user_id} held, and {artifacts}.")


def _called(table_name: str) -> tuple[str, str]:
    """What people call a table's rows, and what becomes of what belongs to them."""
    return _CALLED.get(table_name, (table_name, ""))
