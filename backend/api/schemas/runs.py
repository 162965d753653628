"""Bodies of responses about runs: what they are doing, what they did, and what it cost."""

from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
)

_FURTHEST_START = timedelta(days=3653)

_NO_NUL = r"^[^\x00]*$"


class ItemOut(BaseModel):
    """A finished item of a batch task; `latency_ms` is in milliseconds."""

    index: int
    state: Literal["success", "failed"]
    output: Any
    error: str | None
    category: str | None
    model: str | None
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    latency_ms: float | None
    try_number: int
    trace_id: str | None
    trace_url: str | None


class ItemList(BaseModel):
    """A page of a batch's items by position; `next_after` is null on the last page."""

    items: list[ItemOut]
    next_after: int | None


class TaskOut(BaseModel):
    """A task instance; `duration` is in seconds."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    started_at: datetime | None
    finished_at: datetime | None
    duration: float | None


class AgentOut(BaseModel):
    """An agent's run (`node` is null) or one node of its graph; `latency_ms` is in milliseconds."""

    id: str = Field(description="Its id in `…/traces/{trace_id}`.")
    task_id: str
    map_index: int
    try_number: int
    agent: str
    type: str
    node: str | None
    state: str
    model: str | None
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    latency_ms: float | None
    attempt: int = Field(description="The node's attempt: 1 unless the node, or a call in it, has failed before.")
    retries: int = Field(description="Model calls and nodes that were repeated.")
    fallbacks: int = Field(description="Times that another model took over.")
    notice: str | None
    trace_url: str | None = Field(None, description="The agent's trace in Langfuse; null for nodes.")


class TraceOut(AgentOut):
    """An agent or node with its input and output, which may be `truncated`."""

    started_at: datetime
    finished_at: datetime | None
    input: Any
    output: Any


class ErrorOut(BaseModel):
    """An error of one attempt and the action taken; `retry_in` is in seconds.

    `recovered` means that a later attempt succeeded. `context` contains details that help to understand the error, such
    as request id, status, limits, sizes and the beginning of the prompt, without secrets and pictures.
    """

    task_id: str | None
    map_index: int
    try_number: int | None
    agent: str | None
    node: str | None
    model: str | None
    attempt: int
    category: str
    exception_type: str
    message: str
    action: str
    retry_in: float | None
    recovered: bool
    context: dict[str, Any]
    occurred_at: datetime


class Usage(BaseModel):
    """Tokens used by all agents of the run."""

    input_tokens: int
    output_tokens: int


class ForkedFrom(BaseModel):
    """The state of another run's agent from which a run was started; `checkpoint_id` is null if it began anew."""

    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int
    agent: str | None
    checkpoint_id: str | None
    node: str | None


class ExecutionOut(BaseModel):
    """A run in a list. `cost_usd` is null when no price is known."""

    execution_id: str
    dag_id: str
    dag_run_id: str
    run_type: str | None
    user_id: str | None
    state: str
    progress: int = Field(ge=0, le=100)
    tasks_total: int
    tasks_done: int
    attempt: int
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    reason: str | None = Field(
        description="Why the run failed or was cancelled, or what an active run waits for that doesn't go on; null "
        "otherwise, and until it is known"
    )
    usage: Usage
    cost_usd: float | None
    template_name: str | None = Field(description="The template that the run was created from, if any …")
    template_version: int | None = Field(description="… and its version")
    forked_from: ForkedFrom | None
    status_url: str
    stream_url: str
    airflow_url: str
    trace_url: str | None


class Truncated(BaseModel):
    """What stands for an input or result of more than 32 KB of JSON: its beginning, and the address of the whole."""

    truncated: Literal[True]
    bytes: int
    media_type: str
    sha256: str
    excerpt: str
    url: str


class OpenQuestion(BaseModel):
    """A question that waits for an answer; `GET /questions/{question_id}` has its content and schema."""

    question_id: str
    task_id: str
    map_index: int
    agent: str
    node: str | None
    kind: str
    subject: str
    expires_at: datetime | None = None


class SnapshotOut(ExecutionOut):
    """A run's current state, 256 KB at most. A stream that resumes after `last_event_id` continues from it.

    Of a run with hundreds of tasks, agents or errors it has the first page: `…_next` is the cursor with which
    `…/tasks`, `…/agents` and `…/errors` continue, and null if there are no more.
    """

    input_data: Truncated | dict[str, Any]
    tasks: list[TaskOut] = Field(description="Failed and active ones before the rest, if there are more of them")
    tasks_next: str | None
    agents: list[AgentOut] = Field(description="Agents before nodes, and the newest, if there are more of them")
    agents_total: int
    agents_next: str | None
    errors: list[ErrorOut]
    errors_total: int
    errors_next: str | None
    questions: list[OpenQuestion] = Field(
        description="The first 20 of the questions that wait for an answer; `GET /questions` has all"
    )
    mapped_tasks: dict[str, dict[str, int]] = Field(
        description="By mapped task, how many of its instances are in which state (`none` before the first)"
    )
    result: Truncated | Any
    last_event_id: int


class TaskList(BaseModel):
    """A page of a run's tasks. `total` counts all that match; `next_cursor` is null on the last page."""

    tasks: list[TaskOut]
    total: int
    next_cursor: str | None


class AgentList(BaseModel):
    """The same of its agents and their nodes."""

    agents: list[AgentOut]
    total: int
    next_cursor: str | None


class ErrorList(BaseModel):
    """The same of its errors."""

    errors: list[ErrorOut]
    total: int
    next_cursor: str | None


class ExecutionList(BaseModel):
    """A page of runs, newest first; `next_cursor` is null on the last page."""

    executions: list[ExecutionOut]
    next_cursor: str | None
