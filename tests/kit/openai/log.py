"""The fake OpenAI server's log of requests."""

from __future__ import annotations

from collections import Counter, deque

from pydantic import BaseModel, Field

from tests.kit.openai.behaviour import Api, Json

LOG_LIMIT = 50_000  # records kept; the counters go on
EXCERPT = 2_000  # characters of the prompt kept


class RequestRecord(BaseModel):
    """One request. `time` is the server's monotonic clock in seconds; on Linux all processes share it."""

    number: int
    time: float
    path: str
    api: Api
    model: str = ""
    stream: bool = False
    prompt: str = ""
    """The beginning of the text of all messages."""
    prompt_length: int = 0
    images: list[str] = Field(default_factory=list)
    image_pixels: list[tuple[int, int] | None] = Field(default_factory=list)
    tools: list[str] = Field(default_factory=list)
    params: Json = Field(default_factory=dict)
    """The body without the messages."""
    headers: dict[str, str] = Field(default_factory=dict)
    """In lower case, without those that carry a secret."""
    has_authorization: bool = False

    behaviour: str = ""
    """The name of the preset or behaviour, `rate` for the server's own limit, or empty."""
    status: int | None = None
    """None until headers are sent, and permanently after a reset or a hang."""
    events_sent: int = 0
    client_disconnected: bool = False
    """The client disconnected before the end of the response."""
    duration: float | None = None
    """Seconds until the last byte or the end of the connection; None while in flight."""


class Stats(BaseModel):
    """Counters since the start or the last reset."""

    requests: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    disconnected: int = 0
    statuses: dict[int, int] = Field(default_factory=dict)


class RequestLog:
    """A reset starts a new log; a request that was in flight keeps writing to the old one."""

    def __init__(self) -> None:
        self.records: deque[RequestRecord] = deque(maxlen=LOG_LIMIT)
        self.statuses: Counter[int] = Counter()
        self._stats = Stats()

    def begin(self, record: RequestRecord) -> None:
        self.records.append(record)
        self._stats.requests += 1
        self._stats.in_flight += 1
        self._stats.max_in_flight = max(self._stats.max_in_flight, self._stats.in_flight)

    def end(self, record: RequestRecord) -> None:
        self._stats.in_flight -= 1
        self._stats.disconnected += record.client_disconnected
        if record.status is not None:
            self.statuses[record.status] += 1

    def stats(self) -> Stats:
        return self._stats.model_copy(update={"statuses": dict(self.statuses)})
