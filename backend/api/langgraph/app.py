"""The application at `/langgraph`, with an OpenAPI document of its own."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI

import backend
from backend.api import docs_pages, errors
from backend.api.langgraph import assistants, crons, events, runs, store, threads
from backend.core.settings import Settings

PATH = "/langgraph"

DESCRIPTION = """\
LangGraph's protocol, for its clients: each run is a run of a workflow in Airflow.

Send the token of `POST /auth/token`, or a service token, as `Authorization: Bearer <token>` or as `X-Api-Key`.
"""

system = APIRouter(tags=["system"])


@system.get("/ok")
async def ok() -> dict[str, bool]:
    """That the API answers."""
    return {"ok": True}


@system.get("/info")
async def info() -> dict[str, Any]:
    """The versions, and what there is."""
    return {
        "version": backend.__version__,
        "langgraph_py_version": version("langgraph"),
        "flags": {"assistants": True, "crons": True, "langsmith": False, "langsmith_tracing_replicas": False},
        "host": {"kind": "self-hosted", "project_id": None},
        "metadata": {},
    }


def make_app(settings: Settings) -> FastAPI:
    """Create the application. Its services are those in the state of the application that it is mounted in."""
    app = FastAPI(
        title="LangGraph Flow: LangGraph's protocol",
        version=backend.__version__,
        description=DESCRIPTION,
        responses=errors.DOCUMENTED,
        docs_url=None,
        redoc_url=None,
    )
    errors.install(app, settings)
    docs_pages.install(app, PATH)
    for router in (system, assistants.router, threads.router, crons.router, runs.router, events.router, store.router):
        app.include_router(router)
    return app
