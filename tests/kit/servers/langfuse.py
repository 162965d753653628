"""A local stand-in for Langfuse: it receives and decodes the OTLP requests of the real SDK, and misbehaves on
request."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

TRACES = "/api/public/otel/v1/traces"
PROJECTS = "/api/public/projects"

_OBSERVATION = "langfuse.observation."


@dataclass(frozen=True)
class Span:
    """One span as Langfuse sees it. Times are in nanoseconds."""

    name: str
    trace_id: str
    id: str
    parent_id: str | None
    started_at: int
    ended_at: int
    attributes: dict[str, Any]

    @property
    def kind(self) -> str:
        """The observation's type."""
        return str(self.attributes.get(f"{_OBSERVATION}type"))

    @property
    def level(self) -> str:
        """`DEFAULT`, `WARNING` or `ERROR`."""
        return str(self.attributes.get(f"{_OBSERVATION}level", "DEFAULT"))

    @property
    def message(self) -> str | None:
        """The status message."""
        return self.attributes.get(f"{_OBSERVATION}status_message")

    @property
    def model(self) -> str | None:
        """A generation's model."""
        return self.attributes.get(f"{_OBSERVATION}model.name")

    @property
    def input(self) -> Any:
        """The input, decoded."""
        return self._json("input")

    @property
    def output(self) -> Any:
        """The output, decoded."""
        return self._json("output")

    @property
    def usage(self) -> Any:
        """A generation's tokens."""
        return self._json("usage_details")

    @property
    def cost(self) -> Any:
        """A generation's cost in US dollars."""
        return self._json("cost_details")

    @property
    def parameters(self) -> Any:
        """A generation's parameters."""
        return self._json("model.parameters")

    @property
    def metadata(self) -> dict[str, Any]:
        """The observation's metadata, decoded."""
        return self._flat(f"{_OBSERVATION}metadata.")

    @property
    def trace_metadata(self) -> dict[str, Any]:
        """The trace's metadata, decoded."""
        return self._flat("langfuse.trace.metadata.")

    def _json(self, name: str) -> Any:
        found = self.attributes.get(_OBSERVATION + name)
        try:
            return json.loads(found) if found is not None else None
        except ValueError:
            return found

    def _flat(self, prefix: str) -> dict[str, Any]:
        found = self.attributes.items()
        return {name.removeprefix(prefix): json.loads(value) for name, value in found if name.startswith(prefix)}


@dataclass
class LangfuseServer:
    """Responds with `status`, or not at all while `hanging` is set. Accepts one pair of keys."""

    public_key: str = "pk-lf-kit"
    secret_key: str = "sk-lf-kit-secret"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """Path, headers (in lower case) and decompressed body of each request, in order."""
    spans: list[Span] = field(default_factory=list)
    """The spans that were accepted."""

    def __post_init__(self) -> None:
        self.hanging = threading.Event()
        self._ended = threading.Event()
        self.arrived = threading.Condition()
        kit = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # prescribed
                kit._answer(self, b"")

            def do_POST(self) -> None:  # prescribed
                kit._answer(self, self.rfile.read(int(self.headers["content-length"])))

            def log_message(self, *args: Any) -> None:
                """Log nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Ignore clients that disconnect while they wait, which is what tests do."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments for `Settings(...)`."""
        return {
            "langfuse_host": self.url,
            "langfuse_public_key": self.public_key,
            "langfuse_secret_key": self.secret_key,
        }

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for a process."""
        return {
            "LANGFUSE_HOST": self.url,
            "LANGFUSE_PUBLIC_KEY": self.public_key,
            "LANGFUSE_SECRET_KEY": self.secret_key,
        }

    @property
    def exported(self) -> bytes:
        """All bytes received, decompressed."""
        return b"".join(body for _, _, body in self.requests)

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace, ordered by their start."""
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.started_at)

    def tree(self, trace_id: str) -> list[str]:
        """The spans of one trace as indented lines of type and name, ordered by their start."""
        spans = self.trace(trace_id)
        known = {span.id for span in spans}

        def below(parent: str | None, depth: int) -> list[str]:
            return [
                line
                for span in spans
                if (span.parent_id if span.parent_id in known else None) == parent
                for line in (f"{'  ' * depth}{span.kind} {span.name}", *below(span.id, depth + 1))
            ]

        return below(None, 0)

    def named(self, name: str) -> Span:
        """The only span with this name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def wait_for_trace(self, trace_id: str, names: Sequence[str], timeout: float = 20) -> list[Span]:
        """Wait until a trace has a span of each of these names, and return its spans."""

        def complete() -> bool:
            return set(names) <= {span.name for span in self.spans if span.trace_id == trace_id}

        with self.arrived:
            assert self.arrived.wait_for(complete, timeout), f"only {self.tree(trace_id)} came"
        return self.trace(trace_id)

    def wait_for_request(self, count: int = 1, timeout: float = 20) -> None:
        """Wait until this many requests with traces have been received."""
        with self.arrived:
            came = self.arrived.wait_for(lambda: sum(path == TRACES for path, _, _ in self.requests) >= count, timeout)
        assert came, "no traces came"

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        status = self._status(headers)
        with self.arrived:
            self.requests.append((handler.path, headers, body))
            if handler.path == TRACES and status == 200 and not self.hanging.is_set():
                self.spans += decoded(body)
            self.arrived.notify_all()
        if self.hanging.is_set():
            self._ended.wait()
            return
        answer = json.dumps({"data": [{"id": "kit-project", "name": "kit"}]}).encode() if status == 200 else b"{}"
        handler.send_response(status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    def _status(self, headers: dict[str, str]) -> int:
        expected = base64.b64encode(f"{self.public_key}:{self.secret_key}".encode()).decode()
        return self.status if headers.get("authorization") == f"Basic {expected}" else 401


def decoded(body: bytes) -> list[Span]:
    """The spans of an OTLP request."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            name=span.name,
            trace_id=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex() or None,
            started_at=span.start_time_unix_nano,
            ended_at=span.end_time_unix_nano,
            attributes={attribute.key: _value(attribute.value) for attribute in span.attributes},
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
