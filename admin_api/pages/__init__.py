"""The web UI: one module and one template per page. How to add one is told in docs/architecture.md."""

from __future__ import annotations

from fastapi import FastAPI

from admin_api.pages import (
    account,
    alerts,
    assignment,
    assignments,
    audit,
    batches,
    budgets,
    catalog,
    enrolment,
    features,
    forecast,
    groups,
    integrations,
    job,
    jobs,
    login,
    models,
    overview,
    own_keys,
    people,
    playground,
    provider_forms,
    providers,
    queues,
    retention,
    schedule,
    schedule_form,
    schedules,
    setup,
    static,
    tokens,
    usage,
)
from admin_api.pages.layer import Layer

PARTS = (
    static,
    login,
    overview,
    jobs,  # /jobs/matching is no job's id
    job,
    playground,
    queues,
    schedule_form,  # /schedules/new is no schedule's id
    schedules,
    schedule,
    groups,
    forecast,
    batches,
    usage,
    alerts,
    provider_forms,  # /providers/new is no provider's id
    providers,
    models,
    catalog,
    assignments,
    assignment,
    features,
    budgets,
    integrations,
    setup,
    people,
    tokens,
    account,
    own_keys,
    enrolment,
    audit,
    retention,
)
"""The pages, by the module each is in."""


def install(app: FastAPI) -> None:
    """Serve the pages, and show people at browsers what goes wrong as pages, too."""
    app.add_middleware(Layer)
    for part in PARTS:
        app.include_router(part.router)
