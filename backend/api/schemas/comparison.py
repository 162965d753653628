"""Bodies of comparisons of two runs."""

from datetime import datetime

from pydantic import BaseModel, Field

from backend.api.schemas.runs import ExecutionOut


class ComparedSide(BaseModel):
    """What an agent or node did in one of the runs; `latency_ms` is in milliseconds."""

    id: str = Field(description="Its id in `…/traces/{trace_id}`")
    state: str
    model: str | None
    started_at: datetime
    latency_ms: float | None
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    try_number: int
    output: str | None = Field(description="The beginning of the JSON text of what it returned")
    output_cut: bool


class ComparedNode(BaseModel):
    """A node in both runs, or in one of them."""

    node: str
    left: ComparedSide | None
    right: ComparedSide | None
    same_output: bool


class ComparedAgent(BaseModel):
    """An agent in both runs, or in one of them, with its nodes in order."""

    task_id: str
    map_index: int
    agent: str
    left: ComparedSide | None
    right: ComparedSide | None
    same_output: bool
    nodes: list[ComparedNode]


class ChangedValue(BaseModel):
    """A part that differs: its JSON text, or the beginning of it, in each run; null where there is none."""

    pointer: str
    left: str | None
    right: str | None


class Comparison(BaseModel):
    """Two runs side by side. `cut`: nodes after the first 1,000, or differences after the first 200, are left out."""

    left: ExecutionOut
    right: ExecutionOut
    agents: list[ComparedAgent]
    input_changes: list[ChangedValue]
    result_changes: list[ChangedValue]
    cut: bool
