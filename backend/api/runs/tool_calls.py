"""`…/tool-calls`: what a run's agents have called, with what, and what came of it."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from backend.api.deps import Reader, Services

router = APIRouter(prefix="/workflow-status/{dag_id}/{dag_run_id}/tool-calls", tags=["status"])

State = Literal["begun", "success", "failed"]


class ToolCallOut(BaseModel):
    """An attempt at a tool call."""

    task_id: str
    map_index: int
    try_number: int
    agent: str
    tool: str
    call_id: str = Field(description="The model's id of the call")
    attempt: int = Field(description="Counts the times that the call was begun")
    arguments: Any = Field(description="Without secrets")
    state: State = Field(description="begun: under way, or cut off, so that its outcome is not known")
    claimed_at: datetime
    finished_at: datetime | None


class ToolCallList(BaseModel):
    """A page of tool calls, oldest first."""

    tool_calls: list[ToolCallOut]
    next_cursor: str | None


@router.get("")
async def list_tool_calls(
    dag_id: str,
    dag_run_id: str,
    who: Reader,
    services: Services,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> ToolCallList:
    """The tool calls of the run's agents, oldest first. `state=begun` lists those whose outcome is not known."""
    page = await services.tool_calls.list_page(who, dag_id, dag_run_id, state=state, cursor=cursor, limit=limit)
    calls = [ToolCallOut(**{name: row[name] for name in ToolCallOut.model_fields}) for row in page.rows]
    return ToolCallList(tool_calls=calls, next_cursor=page.next_cursor)
