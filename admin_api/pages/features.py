"""Features: what applications ask for by name, with the schemas of what goes in and comes out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from admin_api.assignments import AssignmentQuery, list_assignments
from admin_api.features import (
    Feature,
    FeatureBody,
    FeatureQuery,
    FeatureReplacement,
    Name,
    change_feature,
    create_feature,
    delete_feature,
    get_feature,
    list_features,
)
from admin_api.pages.controls import Kind, Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, changes, done, shown_at
from admin_api.pagination import every
from admin_api.security import Current, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing

router = APIRouter(route_class=PageRoute)

PATH = "/features"

_AT_ONCE = 25

_TWEAKS: dict[str, Tweak] = {
    "name": Tweak(
        help="What applications ask for: a-z, 0-9 and _. It stays for good.", placeholder="greeting"
    ),
    "category": Tweak(help="Features of one category stand together.", placeholder="chat"),
    "capability": Tweak(help="What a model must be able to do."),
    "description": Tweak(kind=Kind.TEXT, placeholder="A greeting by name."),
    "max_queued": Tweak(label="Most unfinished jobs", help="Beyond, more are refused. Empty: any number."),
    "keep_days": Tweak(
        label="Days to keep",
        help="Then what jobs were given and made is erased. Empty: with their records.",
    ),
    "store_input": Tweak(
        label="Store inputs", help="Otherwise they are erased as jobs end, which cannot be retried then."
    ),
    "store_output": Tweak(label="Store outputs", help="Otherwise they are erased an hour after jobs ended."),
    "is_active": Tweak(help="An inactive one refuses new jobs."),
}
_PURPOSE = ("category", "description", "capability", "lane", "is_active", "max_queued")
_PRIVACY = Group("What is kept", "keep_days", "store_input", "store_output")
_SCHEMAS = Group("What goes in and comes out", "input_schema", "output_schema")

NEW = Form(FeatureBody, Group("Purpose", "name", *_PURPOSE), _PRIVACY, _SCHEMAS, **_TWEAKS)
CHANGED = Form(FeatureReplacement, Group("Purpose", *_PURPOSE), _PRIVACY, _SCHEMAS, **_TWEAKS)

BEGINNING: dict[str, Any] = {
    "capability": "text",
    "lane": "standard",
    "is_active": True,
    "store_input": True,
    "store_output": True,
    "input_schema": {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
        "example": {"name": "Ada"},
    },
}
"""What the form of a new feature begins with, to be written over."""


@router.get(PATH)
@allow_reading
def show_features(query: Annotated[FeatureQuery, Query()], request: Request, session: Reading) -> Response:
    found = list_features(query.model_copy(update={"limit": _AT_ONCE}), session)
    assigned = every(lambda cursor: list_assignments(AssignmentQuery(limit=200, cursor=cursor), session))
    return page(
        request,
        "features.html",
        features=found.items,
        assigned={each.feature_name for each in assigned},
        first=PATH if query.cursor else "",
        further=f"{PATH}?cursor={found.next_cursor}" if found.next_cursor else "",
    )


@router.get(f"{PATH}/new")
@allow_writing
def new_feature(request: Request) -> Response:
    return page(
        request,
        "form.html",
        title="New feature",
        lead="Applications ask for it by name, and never for a provider or a model.",
        crumbs=[("Features", PATH)],
        form=NEW.view(request, given=BEGINNING),
        submit="Save feature",
        cancel=PATH,
    )


@router.post(f"{PATH}/new")
@allow_writing
def add_feature(sent: Sent, session: Writing, caller: Current) -> Response:
    made = create_feature(NEW.body(sent), session, caller)
    return done(f"/assignments/{made.name}", f"{made.name} is there. Assign a model, and it takes jobs.")


@router.get(PATH + "/{name}/edit")
@allow_reading
def edit_feature(name: Name, request: Request, session: Reading) -> Response:
    feature = get_feature(name, session)
    return page(
        request,
        "feature.html",
        feature=feature,
        form=CHANGED.view(request, feature),
        is_assigned=bool(list_assignments(AssignmentQuery(feature=name), session).items),
    )


@router.post(PATH + "/{name}/edit")
@allow_writing
@changes(get_feature)
def save_feature(name: Name, sent: Sent, session: Writing, caller: Current) -> Response:
    change_feature(name, CHANGED.changes(sent), session, caller)
    return done(f"{PATH}/{name}/edit", "Feature saved. Jobs that are enqueued from now on see it.")


@router.post(PATH + "/{name}/delete")
@allow_writing
@shown_at(PATH + "/{name}/edit")
def remove_feature(name: Name, session: Writing, caller: Current) -> Response:
    delete_feature(name, session, caller)
    return done(PATH, f"{name} is deleted. What was recorded of its jobs stays.")


@router.post(PATH + "/{name}/active")
@allow_writing
@shown_at(PATH + "/{name}/edit")
def switch_feature(name: Name, sent: Sent, session: Writing, caller: Current) -> Response:
    found: Feature = change_feature(name, {"is_active": sent.get("is_active") == "yes"}, session, caller)
    said = "takes jobs again" if found.is_active else "refuses new jobs now"
    return done(f"{PATH}/{name}/edit", f"{name} {said}.")
