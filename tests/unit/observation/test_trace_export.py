"""The export to Langfuse: bounded in memory and time, with few log lines, and no agent waits for it."""

import gzip
import logging
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from backend.observation.tracing import exporter as exporter_module
from backend.observation.tracing.exporter import TraceExporter
from tests.kit.servers.langfuse import decoded

Answer = Callable[[httpx.Request], httpx.Response]


def spans(count: int, size: int = 0) -> list[ReadableSpan]:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    found: list[ReadableSpan] = []
    for number in range(count):
        span = tracer.start_span(f"span {number}", attributes={"text": "x" * size})
        span.end()
        assert isinstance(span, ReadableSpan)
        found.append(span)
    return found


class Langfuse:
    """Answers as scripted, and keeps what it receives."""

    def __init__(self) -> None:
        self.answers: list[int | Exception] = []
        self.headers: dict[str, str] = {}
        self.requests: list[bytes] = []
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.begun.set()
        self.open.wait(20)
        self.requests.append(gzip.decompress(request.content))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, headers=self.headers)


@pytest.fixture
def langfuse() -> Iterator[Langfuse]:
    server = Langfuse()
    yield server
    server.open.set()


@pytest.fixture
def exporter(langfuse: Langfuse) -> TraceExporter:
    client = httpx.Client(transport=httpx.MockTransport(langfuse))
    return TraceExporter("https://langfuse.test", "pk", "sk", client)


def test_transient_errors_are_retried(
    exporter: TraceExporter, langfuse: Langfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_module, "_WAITS", (0.01, 0.01, 0.01))
    langfuse.answers = [503, 429, httpx.ConnectError("sk")]
    exporter.export(spans(3))
    with exporter._changed:
        assert exporter._changed.wait_for(lambda: exporter.sent == 3, 10)
    assert len(langfuse.requests) == 4
    assert [span.name for span in decoded(langfuse.requests[-1])] == ["span 0", "span 1", "span 2"]
    assert exporter.dropped == 0


def test_large_batches_are_sent_in_parts(
    exporter: TraceExporter, langfuse: Langfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_module, "REQUEST_BYTES", 10_000)
    exporter.export(spans(20, size=1_000))
    assert exporter.flush(10)
    assert len(langfuse.requests) >= 3
    assert all(len(body) <= 10_000 for body in langfuse.requests)
    assert sum(len(decoded(body)) for body in langfuse.requests) == exporter.sent == 20


def test_the_queue_is_bounded(
    exporter: TraceExporter, langfuse: Langfuse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exporter_module, "WAITING_BYTES", 2_000)
    langfuse.open.clear()
    for _ in range(100):
        exporter.export(spans(1))
    assert langfuse.begun.wait(10)
    assert exporter._bytes <= 2_000
    assert exporter.dropped > 50
    assert not exporter.flush(0.01)
    monkeypatch.setattr(exporter_module, "CLOSE_SECONDS", 0.01)
    caplog.set_level(logging.WARNING)
    exporter.shutdown()
    assert [record.getMessage() for record in caplog.records] == ["100 spans of traces did not reach Langfuse"]


def test_rejected_keys_are_logged_once_and_not_retried_with_each_batch(
    exporter: TraceExporter, langfuse: Langfuse, caplog: pytest.LogCaptureFixture
) -> None:
    langfuse.answers = [401] * 10
    for _ in range(5):
        exporter.export(spans(2))
        assert exporter.flush(10)
    assert len(langfuse.requests) == 1
    assert exporter.dropped == 10
    assert [record.getMessage() for record in caplog.records] == [
        "traces don't reach Langfuse (the keys are refused: 401); agents go on without them"
    ]


def test_shutdown_does_not_wait_for_retries(exporter: TraceExporter, langfuse: Langfuse) -> None:
    langfuse.answers = [500] * 10
    for _ in range(3):
        exporter.export(spans(1))
    assert exporter.flush(10)
    assert (exporter.sent, exporter.dropped) == (0, 3)
    assert len(langfuse.requests) == 1


def test_an_outage_is_logged_when_it_begins_and_ends(
    exporter: TraceExporter, langfuse: Langfuse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=exporter_module.__name__)
    for answer in (400, 400, 200, 200):
        langfuse.answers = [answer]
        exporter.export(spans(1))
        assert exporter.flush(10)
    assert [record.getMessage() for record in caplog.records if record.name == exporter_module.__name__] == [
        "traces don't reach Langfuse (answered 400); agents go on without them",
        "traces reach Langfuse again",
    ]
