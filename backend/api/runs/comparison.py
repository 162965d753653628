"""`/workflow-status/compare`: two runs side by side."""

from typing import Annotated

from fastapi import APIRouter, Query

from backend.api.deps import Reader, Services
from backend.api.schemas.comparison import Comparison
from backend.api.schemas.runs import ExecutionOut
from backend.api.workflow_status import execution_fields
from backend.api.workflow_streams import split_run

router = APIRouter(prefix="/workflow-status", tags=["status"])

Run = Annotated[str, Query(min_length=3, max_length=600, description="`<dag_id>/<dag_run_id>`")]


@router.get("/compare")
async def compare_runs(who: Reader, services: Services, left: Run, right: Run) -> Comparison:
    """Compare two runs, such as a fork with the run that it was forked from.

    Agents stand beside each other by task and name, and their nodes in order; what ran in one of the runs only has null
    on the other side. Of an output there are the first 2,000 characters; `…/traces/{trace_id}` has all of it.
    """
    places = (split_run("left", left, "?left"), split_run("right", right, "?right"))
    found = await services.comparisons.compare(who, *places)
    return Comparison.model_validate(
        {
            "left": ExecutionOut(**execution_fields(found.left, services)),
            "right": ExecutionOut(**execution_fields(found.right, services)),
            "agents": found.agents,
            "input_changes": found.input,
            "result_changes": found.result,
            "cut": found.cut,
        }
    )
