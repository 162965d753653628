"""Sends traces to Langfuse from a thread of its own, so that neither agents nor the SDK ever wait for it."""

import base64
import gzip
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

import httpx
from langfuse import __version__ as sdk_version
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger(__name__)

WAITING_BYTES = 16 * 2**20
"""Largest queue of compressed requests. Spans beyond it are dropped."""

REQUEST_BYTES = 3 * 2**20
"""Size of a request before compression. Langfuse refuses much larger ones."""

CLOSE_SECONDS = 3.0
"""How long an ending process waits until its last spans are sent."""

REFUSED_SECONDS = 60.0
"""How long nothing is sent after Langfuse has refused the keys."""

TIMEOUT = httpx.Timeout(5.0, connect=2.0)
_WAITS = (0.5, 1.0, 2.0, 4.0)
_LONGEST_WAIT = 10.0
_COMPRESSION = 3


class TraceExporter(SpanExporter):
    """The exporter to which Langfuse's span processor passes its batches.

    Transient errors are retried, and spans that can't be sent are counted. An outage is logged when it starts and when
    it ends. An ending process waits up to `CLOSE_SECONDS`, without further retries.
    """

    def __init__(self, base_url: str, public_key: str, secret_key: str, client: httpx.Client) -> None:
        """`base_url` is Langfuse's address without a trailing slash."""
        path = os.environ.get("LANGFUSE_OTEL_TRACES_EXPORT_PATH") or "api/public/otel/v1/traces"
        self._url = f"{base_url}/{path}"
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(f"{public_key}:{secret_key}".encode()).decode(),
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
            "x-langfuse-sdk-name": "python",
            "x-langfuse-sdk-version": sdk_version,
            "x-langfuse-public-key": public_key,
            "x-langfuse-ingestion-version": "4",
        }
        self._client = client
        self.sent = 0
        """Spans accepted by Langfuse."""
        self.dropped = 0
        """Spans that were given up."""
        self._failing = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._bytes = 0
        self._sending = 0  # spans of the current request
        self._hurried = False
        self._refused_until = 0.0
        self._thread: threading.Thread | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Queue spans. Returns at once."""
        if self._pid != os.getpid():  # a fork has no thread, and the queue is the parent's
            self._begin()
        for body, count in _requests(spans):
            self._put(gzip.compress(body, _COMPRESSION), count)
        return SpanExportResult.SUCCESS

    def flush(self, seconds: float) -> bool:
        """Wait up to `seconds` for the queued spans; returns whether all of them were sent or given up."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._waiting and not self._sending, seconds)
            self._hurried = False
        return done

    def shutdown(self) -> None:
        """Send the last spans, because the process ends."""
        done = self.flush(CLOSE_SECONDS)
        left = 0 if done else self._sending + sum(count for _, count in self._waiting)
        if lost := self.dropped + left:
            log.warning("%s spans of traces did not reach Langfuse", lost)

    def _put(self, body: bytes, count: int) -> None:
        with self._changed:
            if self._bytes + len(body) > WAITING_BYTES or time.monotonic() < self._refused_until:
                self.dropped += count
                return
            self._waiting.append((body, count))
            self._bytes += len(body)
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_all, name="visual-ai-traces", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                body, count = self._waiting.popleft()
                self._bytes -= len(body)
                self._sending = count
            try:
                reason = self._send(body)
            except Exception as error:  # without the thread, all later spans would be lost
                reason = type(error).__name__
            self._log_outage(reason)  # before `flush` returns
            with self._changed:
                self._sending = 0
                if reason is None:
                    self.sent += count
                else:
                    self.dropped += count
                    if self._hurried:
                        self.dropped += sum(waiting for _, waiting in self._waiting)
                        self._waiting.clear()
                        self._bytes = 0
                self._changed.notify_all()

    def _send(self, body: bytes) -> str | None:
        """Send a request; returns the reason if it failed."""
        for pause in (*_WAITS, None):
            asked_for = 0.0
            try:
                response = self._client.post(self._url, content=body, headers=self._headers, timeout=TIMEOUT)
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                reason = f"unreachable: {type(error).__name__}"
            else:
                if response.is_success:
                    return None
                reason = f"answered {response.status_code}"
                if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                    self._refused_until = time.monotonic() + REFUSED_SECONDS
                    return f"the keys are refused: {response.status_code}"
                if response.status_code != httpx.codes.TOO_MANY_REQUESTS and not response.is_server_error:
                    return reason
                asked_for = _seconds(response.headers.get("retry-after"))
            if pause is None or asked_for > _LONGEST_WAIT:
                return reason
            with self._changed:
                if self._changed.wait_for(lambda: self._hurried, max(pause, asked_for)):
                    return reason
        raise AssertionError("the loop returns")

    def _log_outage(self, reason: str | None) -> None:
        if (reason is not None) == self._failing:
            return
        self._failing = reason is not None
        if reason is None:
            log.info("traces reach Langfuse again")
        else:
            log.warning("traces don't reach Langfuse (%s); agents go on without them", reason)


def _requests(spans: Sequence[ReadableSpan]) -> Iterator[tuple[bytes, int]]:
    """The bodies of requests, with the number of spans in each."""
    body = encode_spans(spans).SerializeToString()
    if len(body) > REQUEST_BYTES and len(spans) > 1:
        half = len(spans) // 2
        yield from _requests(spans[:half])
        yield from _requests(spans[half:])
    else:
        yield body, len(spans)


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
