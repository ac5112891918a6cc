"""Composition of the API process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import contextmanager_in_threadpool

from admin_api import (
    assignments,
    bulk,
    docs,
    errors,
    features,
    health,
    job_actions,
    jobs,
    models,
    providers,
    queues,
)
from admin_api.bodies import BodyLimit
from admin_api.services import opened
from store.settings import Settings

PREFIX = "/api/v1"
LARGEST_CONFIGURATION = 1024 * 1024  # bytes


def create_app(settings: Settings) -> FastAPI:
    """The API as an ASGI application. Its lifespan opens and closes what it works with."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextmanager_in_threadpool(opened(settings)) as services:
            app.state.services = services
            yield

    app = docs.Documented(
        title="Orrery",
        version=version("orrery"),
        summary="AI jobs: configuration, queue and results.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(
        BodyLimit,
        limit=LARGEST_CONFIGURATION,
        larger={f"{PREFIX}/jobs": jobs.LARGEST_JOB, f"{PREFIX}/jobs/bulk": None},
    )
    errors.install(app)
    docs.install(app)
    app.include_router(health.router)
    app.include_router(_api())
    return app


def _api() -> APIRouter:
    api = APIRouter(prefix=PREFIX, responses=errors.PROBLEM_RESPONSES)
    for noun in (providers, models, features, assignments, jobs, job_actions, bulk, queues):
        api.include_router(noun.router)
    return api
