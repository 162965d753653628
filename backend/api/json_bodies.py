"""Routes whose JSON bodies may be large: those are parsed and validated in a thread, not on the event loop."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from backend.core.jsonable import loads
from backend.core.large_values import LARGE, in_thread

MAX_FIELDS = 1_000
"""Fields of a body, of which no endpoint knows nearly as many. Each unknown one would be an error of its own."""

MAX_ERRORS = 100
"""Errors of a body that are reported. One may have a million."""


class JsonRoute(APIRoute):
    """A route that takes a JSON body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, which finds a large body parsed and validated."""
        handle = super().get_route_handler()
        field = self.body_field
        if field is None:
            return handle

        def validate(value: Any) -> tuple[Any, list[dict[str, Any]]]:
            checked, faults = field.validate(value, {}, loc=("body",))
            # Without their input, which may be the whole body.
            kept = [{key: part for key, part in fault.items() if key != "input"} for fault in faults[:MAX_ERRORS]]
            return checked, kept

        async def handle_json(request: Request) -> Response:
            parsed = _JsonRequest(request, validate)
            try:
                return await handle(parsed)
            except _InvalidBody as invalid:
                raise RequestValidationError(invalid.faults) from None
            finally:
                await parsed.release()

        return handle_json


class _InvalidBody(HTTPException):
    """Passes FastAPI's own handling of what goes wrong in `Request.json`."""

    def __init__(self, faults: list[dict[str, Any]]) -> None:
        super().__init__(422)
        self.faults = faults


class _JsonRequest(Request):
    """A request whose `json` is the validated model if the body is large, which FastAPI accepts as it is."""

    def __init__(self, request: Request, validate: Callable[[Any], tuple[Any, list[dict[str, Any]]]]) -> None:
        super().__init__(request.scope, request.receive)
        self._validate = validate
        self._large: BaseModel | None = None

    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= LARGE:
            return await super().json()
        self._large, faults = await in_thread(partial(self._parse, body))
        if faults:
            raise _InvalidBody(faults)
        return self._large

    async def release(self) -> None:
        """Free the parts of a large body in the thread as well: there may be a million of them."""
        if self._large is not None:
            await in_thread(partial(_clear, self._large))

    def _parse(self, body: bytes) -> tuple[Any, list[dict[str, Any]]]:
        value = loads(body)
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            message = f"has {len(value)} fields, far more than it can have"
            return None, [{"type": "too_many_fields", "loc": ("body",), "msg": message}]
        return self._validate(value)


def _clear(body: BaseModel) -> None:
    for value in vars(body).values():
        if isinstance(value, dict | list):
            value.clear()
