"""`FakeAirflow` behind a real port, for backends that are processes of their own."""

from __future__ import annotations

import random
import socket
import threading
from types import TracebackType
from typing import Any, Self

import httpx
import uvicorn
from starlette.types import Receive, Scope, Send

from tests.kit.airflow import FakeAirflow
from tests.kit.openai.exchange import TransportProtocol


class AirflowServer:
    """A context manager. `airflow` belongs to the server's thread: set it up beforehand, or with `call`.

    `drop_answers` is the share of triggers that take effect and whose answer is lost. `down()` closes every connection
    and refuses new ones until `up()`.
    """

    def __init__(self, airflow: FakeAirflow | None = None, *, drop_answers: float = 0.0, seed: int = 1) -> None:
        self.airflow = airflow or FakeAirflow()
        self.drop_answers = drop_answers
        self.requests = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Start to listen."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        config = uvicorn.Config(
            self._app, interface="asgi3", http=TransportProtocol, ws="none", lifespan="off", log_level="critical",
            timeout_keep_alive=3600,
        )  # fmt: skip
        config.log_config = None
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="airflow", daemon=True)
        self._thread.start()

    def down(self) -> None:
        """Close every connection; new ones are refused."""
        if self._server is None or self._thread is None:
            return
        self._server.force_exit = self._server.should_exit = True
        self._thread.join(timeout=10)
        self._server = self._thread = None

    def call(self, change: Any) -> Any:
        """Change the Airflow while it serves: `change(airflow)` runs between two requests."""
        with self._lock:
            return change(self.airflow)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        request = httpx.Request(
            scope["method"], f"{self.url}{target.decode()}", headers=scope["headers"], content=bytes(body)
        )
        with self._lock:
            self.requests += 1
            try:
                response = await self.airflow.answer(request)
            except httpx.TransportError:
                response = None
            triggers = scope["method"] == "POST" and scope["path"].endswith("/dagRuns")
            if triggers and self._random.random() < self.drop_answers:
                response = None
        if response is None:
            scope["state"]["transport"].abort()
            return
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        if response.is_closed:  # it was made whole
            await send({"type": "http.response.body", "body": response.content})
            return
        async for piece in response.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
