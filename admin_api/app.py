"""Composition of the API process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import contextmanager_in_threadpool
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from admin_api import (
    access,
    alerts,
    answers,
    assignments,
    attempts,
    audit,
    auth,
    batches,
    budgets,
    bulk,
    catalog,
    docs,
    errors,
    etags,
    explain,
    features,
    forecast,
    groups,
    guards,
    health,
    integrations,
    job_actions,
    job_events,
    jobs,
    login_sessions,
    metrics,
    model_prices,
    models,
    pages,
    people,
    personal_keys,
    provider_health,
    providers,
    queues,
    retention,
    schedules,
    token_routes,
    usage,
    versions,
    workers,
)
from admin_api.bodies import BodyLimit
from admin_api.services import opened
from store.settings import Settings

PREFIX = "/api/v1"
LARGEST_CONFIGURATION = 1024 * 1024  # bytes


def create_app(settings: Settings, *, pause_seconds: float = 30) -> FastAPI:
    """The API as an ASGI application. Its lifespan opens and closes what it works with.

    `pause_seconds`: the longest pause inside of a request's body.
    """

    app = _Application(
        title="Orrery",
        version=version("orrery"),
        summary="AI jobs: configuration, queue and results.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    app.add_middleware(
        BodyLimit,
        limit=LARGEST_CONFIGURATION,
        larger={f"{PREFIX}/jobs": jobs.LARGEST_JOB, f"{PREFIX}/jobs/bulk": None},
        pause_seconds=pause_seconds,
    )
    errors.install(app)
    pages.install(app)
    app.add_middleware(guards.Guards, private=[f"{PREFIX}/"])
    if settings.proxies:  # the outermost: all others see who calls, not the proxy
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.proxies)
    answers.install(app)
    docs.install(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(_api())
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with contextmanager_in_threadpool(opened(app.state.settings)) as services:
        app.state.services = services
        yield


class _Application(docs.Documented):
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return answers.documented(etags.documented(super().openapi(), PREFIX))


def _api() -> APIRouter:
    api = APIRouter(prefix=PREFIX, responses=errors.PROBLEM_RESPONSES)
    for noun in (
        auth,
        people,
        token_routes,
        login_sessions,
        providers,
        models,
        model_prices,
        features,
        assignments,
        explain,
        versions,
        jobs,
        job_events,
        job_actions,
        bulk,
        queues,
        audit,
        access,
        personal_keys,
        budgets,
        schedules,
        groups,
        forecast,
        batches,
        retention,
        catalog,
        integrations,
        usage,
        attempts,
        alerts,
        workers,
        provider_health,
    ):
        api.include_router(noun.router)
    return api
