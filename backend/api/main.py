"""The ASGI application, and its OpenAPI document."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

import backend
from backend.api import (
    docs_pages,
    errors,
    images,
    limits,
    metrics,
    monitoring,
    notifications,
    operations,
    preferences,
    schedules,
    templates,
    workflow_runs,
    workflow_status,
    workflow_streams,
    workflow_triggers,
    workflows,
)
from backend.api.event_stream import StreamingApp
from backend.api.identity import audit, auth, tokens
from backend.api.langgraph import app as langgraph
from backend.api.mcp import server as mcp
from backend.api.middleware import BodyLimit, CrossSite, ResponseHeaders
from backend.api.runs import checkpoints, comparison, questions, tool_calls, traces, values
from backend.core.settings import Settings, get_settings
from backend.services.application import run_application

DESCRIPTION = """\
Trigger LangGraph agents as Airflow runs, watch every task, node and token live, and query what they did and cost.

Get a token with `POST /auth/token` (your Airflow user), send it as `Authorization: Bearer <token>`.
Errors are RFC 9457 problem details.
"""


def create_app(
    settings: Settings | None = None, *, airflow_transport: httpx.AsyncBaseTransport | None = None
) -> FastAPI:
    """Create the application. `settings` default to those of the environment; `airflow_transport` is for tests."""
    settings = settings or get_settings()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every call to Airflow at INFO

    graphs = langgraph.make_app(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with run_application(settings, airflow_transport=airflow_transport) as application:
            app.state.application = graphs.state.application = application
            async with mcp.serving(app, application):
                yield

    app = StreamingApp(
        title="LangGraph Flow",
        version=backend.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        responses=errors.DOCUMENTED,
        docs_url=None,
        redoc_url=None,
    )
    errors.install(app, settings)
    docs_pages.install(app)
    app.add_middleware(BodyLimit, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_credentials=True,
            allow_methods=["DELETE", "GET", "PATCH", "POST", "PUT"],
            allow_headers=[
                "Authorization",
                "Cache-Control",
                "Content-Type",
                "Idempotency-Key",
                "Last-Event-ID",
                "X-Api-Key",
                "X-Auth-Scheme",
                "X-Request-ID",
            ],
            expose_headers=[
                "Accept-Ranges",
                "Content-Location",
                "Content-Range",
                "ETag",
                "Link",
                "Location",
                "Retry-After",
                "X-Request-ID",
                "X-Pagination-Next",
                "X-Total-Count",
                "X-Try-Number",
            ],
        )
    app.add_middleware(CrossSite, settings=settings)
    app.add_middleware(ResponseHeaders, settings=settings)
    metrics.install(app)
    for router in (
        auth.router,
        tokens.router,
        audit.router,
        workflow_triggers.router,
        workflow_runs.router,
        checkpoints.router,
        workflows.router,
        workflow_streams.router,
        comparison.router,
        workflow_status.router,
        values.router,
        traces.router,
        tool_calls.router,
        monitoring.router,
        images.router,
        preferences.router,
        limits.router,
        templates.router,
        schedules.router,
        questions.router,
        notifications.router,
        operations.router,
        mcp.router,
    ):
        app.include_router(router)
    app.mount(langgraph.PATH, graphs)
    return app


def openapi_text(app: FastAPI) -> str:
    """The OpenAPI document as the repository keeps it; the frontend's types are generated from it."""
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"
