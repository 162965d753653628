"""The Airflow in memory behind a real socket, for what depends on connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from tests.kit.airflow import FakeAirflow
from tests.kit.application import served


@asynccontextmanager
async def served_airflow(airflow: FakeAirflow) -> AsyncIterator[str]:
    """Its address."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = await airflow.transport.handle_async_request(
            httpx.Request(request.method, str(request.url), headers=request.headers.raw, content=await request.body())
        )
        await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.headers.raw})
        if answer.is_closed:  # it was made whole
            await send({"type": "http.response.body", "body": answer.content})
            return
        async for piece in answer.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async with served(app) as address:
        yield address
