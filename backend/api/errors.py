"""Converts every error into problem details (RFC 9457)."""

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from backend.api.identity.refusals import record_refusal
from backend.api.middleware import security_headers
from backend.core.jsonable import MAX_INPUT_DEPTH
from backend.core.problems import FieldError, Invalid, Problem, Unauthorized, pointer
from backend.core.settings import Settings
from backend.db.outage import database_problem

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "The error as problem details (RFC 9457). `errors` names fields by JSON pointer and query "
        "parameters as `?name`. 429, 503 and other errors that a later request may not meet have a `Retry-After` "
        "header.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}},
    }
}
"""The documentation of errors that OpenAPI shows for every endpoint."""


def problem_response(problem: Problem) -> JSONResponse:
    """The HTTP response for a problem."""
    headers: dict[str, str] = {}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    if isinstance(problem, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.body(), problem.status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI, settings: Settings) -> None:
    """Register the exception handlers."""
    headers = security_headers(settings)

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> JSONResponse:
        record_refusal(request, problem)
        return problem_response(problem)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [
            FieldError(
                _pointer(fault["loc"], fault["type"]) + fault.get("ctx", {}).get("pointer", ""), str(fault["msg"])
            )
            for fault in error.errors()
        ]
        first = faults[0]
        return problem_response(Invalid(f"{first.pointer or 'The body'}: {first.detail}", errors=faults))

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> JSONResponse:
        # The parser's own limits: FastAPI reports both as a mere 400.
        if isinstance(error.__cause__, RecursionError):
            return problem_response(_invalid_body(f"is nested more than {MAX_INPUT_DEPTH} levels deep"))
        if isinstance(error.__cause__, ValueError) and "integer string conversion" in str(error.__cause__):
            return problem_response(_invalid_body("contains a number that is too long"))
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
        problem = database_problem(error)
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]  # without the row it is about
        log.error("%s %s: the database failed: %s: %s", request.method, request.url.path, type(error).__name__, reason)
        return problem_response(problem)

    @app.exception_handler(Exception)
    async def on_anything(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        response = problem_response(Problem("Something went wrong here; the log has the details."))
        # Starlette runs this handler outside of all middleware.
        response.headers.update({"Cache-Control": "no-store", **headers})
        response.headers["X-Request-ID"] = getattr(request.state, "request_id", "")
        return response


def _invalid_body(detail: str) -> Invalid:
    return Invalid(f"The body {detail}.", errors=[FieldError("", detail)])


def _pointer(location: tuple[Any, ...], kind: str) -> str:
    """The place of an error: a JSON pointer, or `?name` for a query parameter."""
    source, *path = location
    if kind == "json_invalid":  # the body is not JSON, so there is nothing to point into
        return ""
    if source == "query":
        return f"?{path[0]}"
    return pointer(*path)
