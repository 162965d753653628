"""The whole backend inside a test: called directly on the test's event loop, or behind a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from backend.api.main import create_app
from backend.api.server import Server
from backend.core.settings import Settings
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.waiting import eventually

PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "jwt_secret": "s" * 32,
    "airflow_password": "not the default",
    "metrics_token": "the token of a scraper",
}
SCRAPER = {"Authorization": f"Bearer {PRODUCTION['metrics_token']}"}


def make_settings(database_url: str, **changes: Any) -> Settings:
    """Settings that ignore the environment's `.env`. The reconciler makes its first pass only."""
    changes = {"reconcile_interval": 3600.0, **changes}
    return Settings(_env_file=None, database_url_override=database_url, **changes)


@asynccontextmanager
async def application(database_url: str, airflow: FakeAirflow, **changes: Any) -> AsyncIterator[FastAPI]:
    """The application with its services running. With an `airflow_url` it calls the Airflow that is served there."""
    settings = make_settings(database_url, **changes)
    airflow.users["airflow"].password = settings.airflow_password.get_secret_value()
    transport = airflow.transport if "airflow_url" not in changes else None
    app = create_app(settings, airflow_transport=transport)
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def client_of(
    app: FastAPI, *, address: str = "127.0.0.1", base_url: str = "http://localhost"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client at `address` that calls the application without a network. An exception becomes a response of 500."""
    transport = httpx.ASGITransport(app, client=(address, 50000), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as http:
        yield http


@asynccontextmanager
async def served(app: FastAPI, port: int = 0) -> AsyncIterator[str]:
    """The address of a real server of the application, on a given port or on a free one."""
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    server = Server(app, lifespan="off", log_level="critical", log_config=None)
    task = asyncio.create_task(server._serve([listener]))  # `serve` would install signal handlers
    try:
        # Its first start in a process also collects what all tests before have left: ten seconds on a busy machine.
        await eventually(lambda: server.started, 60)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await task
        for connection in list(server.server_state.connections):  # they would end with the process
            connection.transport.abort()
        listener.close()


async def raw_request(
    address: str, method: str, path: str, headers: Mapping[str, str] | None = None, *, version: str = "1.1"
) -> tuple[int, bytes, bytes]:
    """The status, the head and the whole response of one request whose path is sent as it is."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        lines = {"Host": "localhost", "Connection": "close", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode())
        response = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
    return int(response.split(b" ")[1]), response.partition(b"\r\n\r\n")[0], response


async def sign_in(http: httpx.AsyncClient, username: str) -> Mapping[str, str]:
    """Sign in and return the headers of the user's requests. The session cookie is dropped."""
    response = await http.post("/auth/token", json={"username": username, "password": PASSWORD})
    assert response.status_code == 200, response.text
    http.cookies.clear()
    return {"Authorization": f"Bearer {response.json()['access_token']}"}
