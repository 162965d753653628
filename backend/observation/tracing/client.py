"""The process's connection to Langfuse. It is made when the first agent is traced, so after a fork and only with keys.

Langfuse has a tracer provider of its own: the global one, which is the user's or Airflow's, stays as it is.
"""

import contextvars
import importlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
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
    """Langfuse's client, with what may be sent through it."""

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
        # The SDK would upload pictures before it asks what may leave. Whoever wants that for a graph of their own can
        # say so.
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
        """Have sent at once what has ended so far."""
        self._provider.force_flush()

    def flush(self, seconds: float) -> bool:
        """The same, waiting for `seconds` at most; says whether all of it was sent or given up."""
        self.send()
        return self.exporter.flush(seconds)


@contextmanager
def _known_certificates() -> Iterator[None]:
    """Within this, the SDK's asynchronous API, which it makes unasked, doesn't read the machine's certificates anew: a
    task would pay 30 ms for it. There is no parameter for it; where the SDK changes, it takes these 30 ms again."""
    import httpx
    from langfuse._client import resource_manager

    module: Any = resource_manager
    usual = getattr(module, "AsyncLangfuseAPI", None)
    if usual is None:
        yield
        return
    module.AsyncLangfuseAPI = lambda **given: usual(
        **given, httpx_client=httpx.AsyncClient(verify=tls(), timeout=given.get("timeout"))
    )
    try:
        yield
    finally:
        module.AsyncLangfuseAPI = usual


class SpanMaker:
    """Makes spans with one session, user and set of tags, apart from whatever else is traced around the agents."""

    def __init__(
        self,
        client: TraceClient,
        *,
        name: str,
        session: str,
        user: str | None,
        tags: Sequence[str],
        metadata: dict[str, Any],
    ) -> None:
        from langfuse import propagate_attributes

        self.client = client
        self._attributes = partial(
            propagate_attributes, trace_name=name, session_id=session, user_id=user, tags=[*tags], metadata=metadata
        )
        # An empty context knows nothing of the spans of Airflow or of a user, who would not know ours either.
        self._context = contextvars.Context()
        self._manager = self._attributes()  # kept: it takes the attributes back when it goes
        self._context.run(self._manager.__enter__)

    def root(self, trace_id: str, name: str, kind: str, **more: Any) -> Any:
        """A span that no other one is around."""
        make = partial(self.client.langfuse.start_observation, trace_context={"trace_id": trace_id}, name=name)
        return self._context.copy().run(partial(make, as_type=kind, **more))

    def child(self, parent: Any, name: str, kind: str, **more: Any) -> Any:
        """A span within another one."""
        return self._context.copy().run(partial(parent.start_observation, name=name, as_type=kind, **more))

    @contextmanager
    def current(self, trace_id: str, span: Any) -> Iterator[None]:
        """Let what users' own code traces with Langfuse be part of this span.

        Not where OpenTelemetry is set up for all of the process: other spans would lose their trace to ours.
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
    """The process's client; None without keys, or when it can't be made, which the log says once.

    It may take some 50 ms, and the first time in a process that hasn't loaded Langfuse half a second.
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
    """Load what tracing needs, if there are keys: for a process that forks tasks. No client, no thread."""
    if get_settings().tracing:
        for name in _MODULES:
            importlib.import_module(name)
