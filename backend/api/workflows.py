"""`/workflows`: the DAGs that can be triggered."""

from dataclasses import asdict

from fastapi import APIRouter

from backend.api.deps import Reader, Services
from backend.api.schemas.workflows import WorkflowDetail, WorkflowList, WorkflowOut, WorkflowTaskOut
from backend.services.triggering.catalog import Workflow

router = APIRouter(prefix="/workflows", tags=["workflows"])


@router.get("")
async def list_workflows(who: Reader, services: Services) -> WorkflowList:
    """The DAGs that you may see and trigger, with the JSON Schema of their input.

    A DAG whose file no longer loads is listed with its `import_error` and can't be triggered until it is repaired.
    """
    return WorkflowList(workflows=[_out(workflow) for workflow in await services.catalog.list_all(who)])


@router.get("/{dag_id}")
async def get_workflow(dag_id: str, who: Reader, services: Services) -> WorkflowDetail:
    """One DAG, with its tasks and the dependencies between them."""
    workflow = await services.catalog.get(dag_id, who)
    tasks = await services.catalog.tasks(workflow, who)
    return WorkflowDetail(
        **_out(workflow).model_dump(),
        tasks=None if tasks is None else [WorkflowTaskOut(**asdict(task)) for task in tasks],
    )


def _out(workflow: Workflow) -> WorkflowOut:
    return WorkflowOut(
        dag_id=workflow.dag_id,
        display_name=workflow.display_name,
        description=workflow.description,
        tags=workflow.tags,
        paused=workflow.paused,
        input_schema=workflow.schema,
        import_error=workflow.import_error,
    )
