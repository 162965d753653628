"""Prometheus metrics of one backend process."""

import asyncio
import time
from collections.abc import Iterator

from fastapi import FastAPI
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.limits import KINDS
from backend.core.ratelimit.state import LimitState
from backend.services.application import Application
from backend.services.notifications.deliveries import Deliveries
from backend.services.recording.reconciler import Reconciler

__all__ = ["CONTENT_TYPE", "Metrics", "RequestMetrics", "install"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one application, in a registry of its own, so that several in one process don't share counts."""

    def __init__(self, app: FastAPI) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "visual_ai_http_requests",
            "Requests served, by route template.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.latency = Histogram(
            "visual_ai_http_request_duration_seconds",
            "Time to the end of the response; for an event stream, to its start.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(_ApplicationCollector(app))

    def render(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)


def install(app: FastAPI) -> None:
    """Count the requests of `app`. Its metrics are in `app.state.metrics`."""
    app.state.metrics = Metrics(app)
    app.add_middleware(RequestMetrics, metrics=app.state.metrics)


class RequestMetrics:
    """Counts and times each request. Labels are bounded: clients can't add values with invented paths or methods."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status: int | None = None
        counted = False

        def count(code: int) -> None:
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            # The router leaves the matched route in the scope.
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.requests.labels(method, route, str(code)).inc()
            self._metrics.latency.labels(method, route).observe(time.perf_counter() - started)

        async def watched_send(message: Message) -> None:
            nonlocal status, counted
            if message["type"] == "http.response.start":
                status = message["status"]
                content_type = Headers(raw=message.get("headers", [])).get("content-type", "")
                if content_type.startswith("text/event-stream"):
                    counted = True
                    count(status)
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except asyncio.CancelledError:
            status = status or 499  # nginx's code for a client that disconnected
            raise
        finally:
            if not counted:
                count(status or 500)


class _ApplicationCollector(Collector):
    """Reads the services' own counters when Prometheus scrapes."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def collect(self) -> Iterator[Metric]:
        """The metrics, or none before the services have started."""
        application: Application | None = getattr(self._app.state, "application", None)
        if application is None:
            return
        yield GaugeMetricFamily(
            "visual_ai_event_feed_connected",
            "Whether the event feed is connected.",
            value=float(application.health.feed_connected()),
        )
        streams = application.streams
        yield GaugeMetricFamily("visual_ai_streams_open", "Open event streams.", value=streams.open_streams)
        yield CounterMetricFamily(
            "visual_ai_streams_dropped", "Streams ended because their clients read too slowly.", value=streams.dropped
        )
        yield CounterMetricFamily(
            "visual_ai_airflow_requests", "Requests sent to Airflow.", value=application.airflow.calls
        )
        yield _restored(application.reconciler)
        yield from _limits(application.model_limits.states)
        yield _refusals(application.admission.refusals)
        yield _notifications(application.deliveries)


def _restored(reconciler: Reconciler) -> Metric:
    """Records that tasks could not write, and that this process restored."""
    lost = CounterMetricFamily(
        "visual_ai_lost_records_restored",
        "Records that tasks lost, restored from checkpoints and XComs.",
        labels=["record"],
    )
    lost.add_metric(["result"], reconciler.results.restored)
    for record, count in reconciler.records.restored.items():
        lost.add_metric([record], count)
    return lost


def _notifications(deliveries: Deliveries) -> Metric:
    """Outcomes of notifications in this process."""
    outcomes = CounterMetricFamily(
        "visual_ai_notifications",
        "Notifications sent, attempts that failed and are retried, and notifications given up.",
        labels=["outcome"],
    )
    outcomes.add_metric(["sent"], deliveries.sent)
    outcomes.add_metric(["failed"], deliveries.failed)
    outcomes.add_metric(["dead"], deliveries.dead)
    return outcomes


def _refusals(refusals: dict[str, int]) -> Metric:
    """What operators' limits have refused, in all processes together."""
    refused = CounterMetricFamily(
        "visual_ai_limit_refusals",
        "Model calls, runs, batches, uploads and streams that an operator's limit refused, by its kind.",
        labels=["kind"],
    )
    for kind in KINDS:
        refused.add_metric([kind], refusals.get(kind, 0))
    return refused


def _limits(states: dict[str, LimitState]) -> Iterator[Metric]:
    """The rate limits and outages of models that all agents together have met."""
    held_back = CounterMetricFamily(
        "visual_ai_model_calls_held_back", "Model calls that were delayed or rejected.", labels=["model"]
    )
    limited = CounterMetricFamily("visual_ai_model_rate_limited", "Model calls answered with 429.", labels=["model"])
    opened = CounterMetricFamily(
        "visual_ai_model_circuit_opened", "Times a model's provider was found to be down.", labels=["model"]
    )
    is_open = GaugeMetricFamily(
        "visual_ai_model_circuit_open", "Whether the model's provider is currently considered down.", labels=["model"]
    )
    rate = GaugeMetricFamily(
        "visual_ai_model_rate", "Calls per second that a model's limit allows, if it has one.", labels=["model"]
    )
    for model, state in states.items():
        held_back.add_metric([model], state.counts.held_back)
        limited.add_metric([model], state.counts.rate_limited)
        opened.add_metric([model], state.counts.opened)
        is_open.add_metric([model], float(state.circuit.is_open))
        if state.phase == "learned" and state.rate is not None:
            rate.add_metric([model], state.rate)
    yield from (held_back, limited, opened, is_open, rate)
