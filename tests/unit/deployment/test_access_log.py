"""The backend's log of requests names paths, not what was in their queries."""

import logging
import socket
import threading

import httpx
import pytest
from fastapi import FastAPI

from backend.api.server import Server
from tests.kit.processes.stack import wait_until


def test_queries_stay_out_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(FastAPI(), lifespan="off")
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started, timeout=20)
            port = listener.getsockname()[1]
            httpx.get(f"http://127.0.0.1:{port}/workflow-status/d/r?token=very-secret", trust_env=False)
        finally:
            server.should_exit = True
            thread.join()
            for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
                logging.getLogger(name).handlers.clear()
    written = "".join(capsys.readouterr())
    assert '"GET /workflow-status/d/r HTTP/1.1" 404' in written
    assert "very-secret" not in written
