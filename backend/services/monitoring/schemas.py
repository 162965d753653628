"""The responses of the monitoring endpoints.

Times are UTC. Rates and shares are between 0 and 1. A figure is null if there is no data to compute it from. A cost is
the sum of the known costs, and null if no price is known.
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

Moment = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
_SERIES = "Without gaps, oldest first; the first bucket may begin before `since`, but counts only from it on."

Rate = Annotated[float, Field(ge=0, le=1)]


class Ranged(BaseModel):
    """The time an answer is about; `since` and `until` are by the database's clock."""

    time_range: str = Field(examples=["24h"])
    since: Moment
    until: Moment


class Usage(BaseModel):
    """Tokens and what they cost, in US dollars."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None


class Duration(BaseModel):
    """Seconds from start to end of finished runs."""

    p50: float | None
    p95: float | None
    p99: float | None
    avg: float | None


class QueueTime(BaseModel):
    """Seconds from being queued to the start of runs that started."""

    p50: float | None
    p95: float | None


class RunStates(BaseModel):
    """How many runs are in each state."""

    queued: int
    running: int
    awaiting_input: int
    success: int
    failed: int
    cancelled: int


class DagMetrics(Usage):
    """The runs of one DAG."""

    dag_id: str
    total: int
    finished: int
    success: int
    failed: int
    cancelled: int
    success_rate: Rate | None
    duration_p50: float | None = Field(description="Seconds.")
    duration_p95: float | None = Field(description="Seconds.")


class RunBucket(Usage):
    """The runs queued from `start` until the next bucket; `total` includes those that have not finished."""

    start: Moment
    total: int = 0
    success: int = 0
    failed: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None


class WorkflowMetrics(Ranged, Usage):
    """Runs queued in the range. Finished ones ended in `success`, `failed` or `cancelled`."""

    dag_id: str | None = Field(description="The DAG the figures are limited to.")
    user_id: str | None = Field(description="The user the figures are limited to.")
    total: int
    finished: int
    by_state: RunStates
    success_rate: Rate | None = Field(description="Share of the finished runs that succeeded.")
    throughput_per_hour: float = Field(description="Finished runs per hour of the range.")
    duration_seconds: Duration
    queue_seconds: QueueTime
    by_dag: list[DagMetrics] = Field(description="The DAGs with the most runs, at most 200.")
    bucket_seconds: int
    time_series: list[RunBucket] = Field(description=_SERIES)


class Latency(BaseModel):
    """Milliseconds a finished agent run took, its retries included."""

    p50: float | None
    p95: float | None
    p99: float | None


class AgentMetrics(Usage):
    """The runs of one agent with one model. Each try of its task is a run; skipped agents did not run."""

    agent: str
    type: str
    model: str | None
    runs: int
    finished: int
    success: int
    failed: int
    cancelled: int
    success_rate: Rate | None = Field(description="Share of the finished runs that succeeded.")
    latency_ms: Latency
    retries: int = Field(description="Model calls made again.")
    fallbacks: int = Field(description="Times another model took over.")


class AgentPerformance(Ranged):
    """Agent runs started in the range."""

    agents: list[AgentMetrics] = Field(description="Those with the most runs, at most 200.")


class ErrorGroup(BaseModel):
    """Errors that have one thing in common. An error outside any agent has no agent's name."""

    name: str | None
    count: int
    share: Rate
    recovered: int = Field(description="Errors that the run got over.")
    unrecovered: int
    latest: Moment


class ErrorBucket(BaseModel):
    """The errors from `start` until the next bucket."""

    start: Moment
    total: int = 0
    by_category: dict[str, int] = Field(default_factory=dict, description="Only categories that occurred.")


class ErrorDistribution(Ranged):
    """Errors that occurred in the range, each attempt's its own, largest groups first."""

    total: int
    recovered: int
    unrecovered: int
    latest: Moment | None
    by_category: list[ErrorGroup]
    by_agent: list[ErrorGroup] = Field(description="At most 200.")
    by_dag: list[ErrorGroup] = Field(description="At most 200.")
    bucket_seconds: int
    time_series: list[ErrorBucket] = Field(description=_SERIES)
