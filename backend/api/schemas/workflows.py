"""Workflows, triggers and the state of runs."""

import json
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from backend.core.jsonable import dumps

_NO_NUL = r"^[^\x00]*$"


class TriggerBody(BaseModel):
    """A run to start. `input_data` becomes `dag_run.conf` and must fit the DAG's parameter schema."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "dag_id": "visual_ai_workflow",
                "input_data": {
                    "query": "Analyze this image and extract insights",
                    "image_url": "https://example.com/image.jpg",
                },
                "user_id": "user123",
            }
        },
    )

    dag_id: str = Field(min_length=1, max_length=250)
    input_data: dict[str, Any]
    user_id: str | None = Field(
        None, min_length=1, max_length=256, pattern=_NO_NUL, description="On whose behalf; default: you"
    )
    model: str | None = Field(
        None, min_length=1, max_length=256, pattern=_NO_NUL, description="The model of all agents whose task names none"
    )
    run_after: AwareDatetime | None = Field(None, description="Not before this time")

    @field_validator("input_data")
    @classmethod
    def _can_be_passed_on(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Python reads more than JSON allows, and JSON holds more than Postgres does."""
        try:
            kept = dumps(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        except ValueError:
            kept = False
        if not kept:
            raise ValueError("holds NaN, an infinity, a NUL character or half of a surrogate pair")
        return value


class Accepted(BaseModel):
    """A run that Airflow has accepted. The first two addresses are relative to this service."""

    execution_id: str
    dag_id: str
    dag_run_id: str
    state: str
    status_url: str
    stream_url: str
    airflow_url: str


class WorkflowOut(BaseModel):
    """A DAG that can be triggered; `input_schema` is the JSON Schema (2020-12) of its `input_data`."""

    dag_id: str
    display_name: str
    description: str | None
    tags: list[str]
    paused: bool
    input_schema: dict[str, Any]


class WorkflowList(BaseModel):
    """All workflows you may see."""

    workflows: list[WorkflowOut]


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
    notice: str | None


class ErrorOut(BaseModel):
    """An error and what was done about it; `retry_in` is in seconds."""

    task_id: str | None
    map_index: int
    try_number: int | None
    agent: str | None
    node: str | None
    model: str | None
    category: str
    exception_type: str
    message: str
    action: str
    retry_in: float | None
    recovered: bool
    occurred_at: datetime


class Usage(BaseModel):
    """Tokens used by all agents of the run."""

    input_tokens: int
    output_tokens: int


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
    usage: Usage
    cost_usd: float | None
    status_url: str
    stream_url: str
    airflow_url: str
    trace_url: str | None


class SnapshotOut(ExecutionOut):
    """A run as it stands; a stream resumed after `last_event_id` continues from here."""

    input_data: dict[str, Any]
    tasks: list[TaskOut]
    agents: list[AgentOut]
    errors: list[ErrorOut]
    result: Any
    last_event_id: int


class ExecutionList(BaseModel):
    """A page of runs, newest first; `next_cursor` is null on the last."""

    executions: list[ExecutionOut]
    next_cursor: str | None


class ImageOut(BaseModel):
    """An uploaded picture; use `image_url` in `input_data`."""

    image_id: str
    image_url: str
