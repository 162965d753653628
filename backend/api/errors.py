"""Turns every failure into problem details (RFC 9457)."""

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from backend.core.problems import FieldError, Invalid, Problem, Unauthorized, Unavailable, pointer

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What is wrong, as problem details (RFC 9457); `errors` names fields by JSON pointer, `?name` a "
        "query parameter. 429, 503 and whatever else a later request may meet better come with `Retry-After`.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}},
    }
}
"""What OpenAPI says of every endpoint's failures."""


def problem_response(problem: Problem) -> JSONResponse:
    """The HTTP form of a problem."""
    headers: dict[str, str] = {}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    if isinstance(problem, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.body(), problem.status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Register the handlers."""

    @app.exception_handler(Problem)
    async def on_problem(_: Request, problem: Problem) -> JSONResponse:
        return problem_response(problem)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [FieldError(_pointer(fault["loc"], fault["type"]), str(fault["msg"])) for fault in error.errors()]
        first = faults[0]
        return problem_response(Invalid(f"{first.pointer or 'The body'}: {first.detail}", errors=faults))

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> JSONResponse:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": str(error.detail),
            "status": error.status_code,
            "detail": str(error.detail),
        }
        return JSONResponse(body, error.status_code, error.headers, media_type=MEDIA_TYPE)

    @app.exception_handler(DBAPIError)
    @app.exception_handler(PoolTimeout)
    async def on_database(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s: the database failed: %s", request.method, request.url.path, type(error).__name__)
        return problem_response(Unavailable("The database is out of reach; try again shortly.", retry_after=5))

    @app.exception_handler(Exception)
    async def on_anything(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        response = problem_response(Problem("Something went wrong here; the log has the details."))
        # This handler answers outside of all middleware.
        response.headers["X-Request-ID"] = getattr(request.state, "request_id", "")
        return response


def _pointer(location: tuple[Any, ...], kind: str) -> str:
    """A JSON pointer; a query parameter is named as `?name`."""
    source, *path = location
    if kind == "json_invalid":  # the location is a place in a text that is no document
        return ""
    if source == "query":
        return f"?{path[0]}"
    return pointer(*path)
