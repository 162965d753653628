"""Bodies of checkpoints and forks."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from backend.api.schemas.runs import Truncated
from backend.api.schemas.workflows import InputData, storable_json

_NO_NUL = r"^[^\x00]*$"


class CheckpointOut(BaseModel):
    """The state of an agent's graph between two of its steps."""

    checkpoint_id: str
    parent_checkpoint_id: str | None
    agent: str | None
    item: int | None = Field(description="The item of a batch")
    call: int = Field(description="Which of the agent's calls, in a team where it may work several times")
    namespace: str = Field(description="Empty, or that of the subgraph whose state it is")
    step: int | None
    source: str | None = Field(description="input, loop, update (changed by a fork's `values`) or fork")
    created_at: datetime
    nodes: list[str] = Field(description="The nodes that wrote the state")
    next: list[str] = Field(description="The nodes that come next, or came; empty at the end")
    asks: bool = Field(description="Whether one of these stopped to ask a person")
    bytes: int = Field(description="The size of the state as it is stored")
    url: str


class CheckpointList(BaseModel):
    """A page of checkpoints, newest first. `note` says why there are none, or not all."""

    checkpoints: list[CheckpointOut]
    next_cursor: str | None
    note: str | None


class CheckpointState(CheckpointOut):
    """A checkpoint with the state. A value that isn't read has `[not shown: …]` in its place."""

    values: Truncated | dict[str, Any]


class ForkBody(BaseModel):
    """What a run is forked from, and what is different in it.

    The agent goes on from `checkpoint_id`, or from the last state before `node` ran; without either it begins anew.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"node": "analyse", "model": "gpt-4.1"}})

    checkpoint_id: str | None = Field(None, min_length=1, max_length=100, pattern=_NO_NUL)
    node: str | None = Field(
        None, min_length=1, max_length=1_000, pattern=_NO_NUL, description="Run again from the last time this node ran"
    )
    agent: str | None = Field(
        None, min_length=1, max_length=250, pattern=_NO_NUL, description="The agent of a team; the checkpoint names it"
    )
    map_index: int = Field(-1, ge=-1, le=2**31 - 1, strict=True, description="For a mapped task")
    item: int | None = Field(None, ge=0, le=2**31 - 1, strict=True, description="The item of a batch")
    input_data: InputData | None = Field(None, description="The new run's input; default: that of the run")
    values: Annotated[dict[str, Any] | None, BeforeValidator(storable_json)] = Field(
        None, description="Values to write to the state first, as the graph's own `update_state` does"
    )
    as_node: str | None = Field(
        None, min_length=1, max_length=1_000, pattern=_NO_NUL, description="The node that the values are written as"
    )
    model: str | None = Field(None, min_length=1, max_length=256, pattern=_NO_NUL, description="The agent's model")
    system_prompt: str | None = Field(
        None, min_length=1, max_length=200_000, pattern=_NO_NUL, description="The agent's system prompt"
    )


class TaskForkBody(ForkBody):
    """The same, with the task."""

    task_id: str = Field(min_length=1, max_length=250, pattern=_NO_NUL)
