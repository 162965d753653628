"""The process's connection to Langfuse. It is made when the first agent is traced: after a fork, and only with keys.

Langfuse gets a tracer provider of its own. The global one belongs to the user or to Airflow, and is left alone.
"""

import contextvars
import importlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from backend.core.settings import Settings, get_settings
from backend.models.http_clients import tls
from backend.observation.tracing.redaction import TraceContent

log = logging.getLogger(__name__)

_MODULES = (
    "langfuse",
    "backend.observation.tracing.exporter",
    "opentelemetry.exporter.otlp.proto.common.trace_encoder",
)


class TraceClient:
    """Langfuse's client, and the filter for what may be sent to it."""

    def __init__(self, settings: Settings) -> None:
        import httpx
        from langfuse import Langfuse
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON, TraceIdRatioBased

        from backend.observation.tracing.exporter import TIMEOUT, TraceExporter

        public, secret = settings.langfuse_public_key, settings.langfuse_secret_key
        if not public or secret is None:
            raise ValueError("there are no keys")
        # The SDK would upload pictures before it applies the mask. Users who want that for their own graphs can set it.
        os.environ.setdefault("LANGFUSE_MEDIA_UPLOAD_ENABLED", "false")
        rate = settings.langfuse_sample_rate
        client = httpx.Client(verify=tls(), timeout=TIMEOUT)
        self.content = TraceContent(enabled=settings.trace_content)
        self.exporter = TraceExporter(settings.langfuse_url, public, secret.get_secret_value(), client)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON if rate >= 1 else TraceIdRatioBased(rate),
            resource=Resource({"service.name": "langgraph-flow"}),
        )
        with _known_certificates():
            self.langfuse = Langfuse(
                public_key=public,
                secret_key=secret.get_secret_value(),
                base_url=settings.langfuse_url,
                environment=settings.tracing_environment,
                sample_rate=rate,
                mask=self.content.mask,
                httpx_client=client,
                span_exporter=self.exporter,
                tracer_provider=self._provider,
            )

    def send(self) -> None:
        """Send all ended spans now, without waiting for it."""
        self._provider.force_flush()

    def flush(self, seconds: float) -> bool:
        """Send all ended spans, waiting up to `seconds`; returns whether all of them were sent or given up."""
        self.send()
        return self.exporter.flush(seconds)


@contextmanager
def _known_certificates() -> Iterator[None]:
    """Keeps the SDK's asynchronous API, which it creates without being asked, from reading the machine's certificates
    again, which would cost a task 30 ms. There is no parameter for it. If the SDK changes, only the 30 ms return."""
    import httpx
    from langfuse._client import resource_manager

    module: Any = resource_manager
    usual = getattr(module, "AsyncLangfuseAPI", None)
    if usual is None:
        yield
        return
    module.AsyncLangfuseAPI = lambda **arguments: usual(
        **arguments, httpx_client=httpx.AsyncClient(verify=tls(), timeout=arguments.get("timeout"))
    )
    try:
        yield
    finally:
        module.AsyncLangfuseAPI = usual


class SpanMaker:
    """Makes spans with the same session, user and tags, isolated from whatever else is traced around the agents."""

    def __init__(self, client: TraceClient, **attributes: Any) -> None:
        """`attributes` are those that Langfuse's `propagate_attributes` takes."""
        from langfuse import propagate_attributes

        self.client = client
        self._attributes = partial(propagate_attributes, **attributes)
        # An empty context isolates our spans from those of Airflow and of users.
        self._context = contextvars.Context()
        self._manager = self._attributes()  # kept, because it removes the attributes when it is deleted
        self._context.run(self._manager.__enter__)

    def root(self, trace_id: str, name: str, kind: str, **more: Any) -> Any:
        make = partial(self.client.langfuse.start_observation, trace_context={"trace_id": trace_id}, name=name)
        return self._context.copy().run(partial(make, as_type=kind, **more))

    def child(self, parent: Any, name: str, kind: str, **more: Any) -> Any:
        return self._context.copy().run(partial(parent.start_observation, name=name, as_type=kind, **more))

    @contextmanager
    def current(self, trace_id: str, span: Any) -> Iterator[None]:
        """Make what users' code traces with Langfuse part of this span.

        Does nothing where OpenTelemetry is set up for the whole process, because other spans would move to our trace.
        """
        from opentelemetry import trace

        if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            yield
            return
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        place = trace.SpanContext(int(trace_id, 16), int(span.id, 16), is_remote=False, trace_flags=flags)
        around = trace.NonRecordingSpan(place)
        with trace.use_span(around, record_exception=False, set_status_on_exception=False), self._attributes():
            yield


_lock = threading.Lock()
_clients: dict[tuple[str | None, str], TraceClient | None] = {}


def trace_client(settings: Settings) -> TraceClient | None:
    """The process's client; None without keys, or if it can't be made, which is logged once.

    Takes about 50 ms, or half a second in a process that hasn't loaded Langfuse yet.
    """
    if not settings.tracing:
        return None
    with _lock:
        key = (settings.langfuse_public_key, settings.langfuse_url)
        if key not in _clients:
            try:
                _clients[key] = TraceClient(settings)
            except Exception as error:
                log.warning("agents are not traced, Langfuse's client can't be made: %s", type(error).__name__)
                _clients[key] = None
        return _clients[key]


def prepare() -> None:
    """Import what tracing needs, if there are keys, in a process that forks tasks. Makes no client and no thread."""
    if get_settings().tracing:
        for name in _MODULES:
            importlib.import_module(name)
