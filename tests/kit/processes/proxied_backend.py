"""A backend for tests of reverse proxies: it echoes requests, and streams events on demand."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ProxiedBackend(ThreadingHTTPServer):
    """`/workflow-status/stream/…` sends the event after the cursor at once and another one after `release`; the rest
    echoes headers."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.release = threading.Event()
        self.closed = threading.Event()
        self.bodies: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def proxied_backend(port: int = 0) -> Iterator[ProxiedBackend]:
    """A running one."""
    with ProxiedBackend(port) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ProxiedBackend

    def do_GET(self) -> None:
        if self.path.startswith("/workflow-status/stream/"):
            self._stream()
        else:
            self._answer(200, {"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}})

    def do_POST(self) -> None:
        size = len(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(size)
        self._answer(201, {"size": size})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        cursor = int(self.headers.get("Last-Event-ID", "0"))
        self._send(b"retry: 500\nid: %d\ndata: first\n\n" % (cursor + 1))
        self.server.release.wait(30)
        self._send(b"id: %d\ndata: second\n\n" % (cursor + 2))
        self._send(b"")

    def _send(self, data: bytes) -> None:
        with suppress(OSError):  # the browser has left
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
