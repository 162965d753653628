"""`/monitoring`: metrics of runs, agents and errors, and the health of the system."""

from typing import Annotated

from fastapi import APIRouter, Query, Response, status

from backend.api.deps import Name, Reader, Services
from backend.services.monitoring.health import SystemHealth
from backend.services.monitoring.schemas import AgentPerformance, ErrorDistribution, WorkflowMetrics

router = APIRouter(prefix="/monitoring", tags=["monitoring"])

TimeRange = Annotated[
    str,
    Query(
        description="How far back: a whole number of minutes, hours or days, up to 366d.",
        examples=["15m", "1h", "6h", "24h", "7d", "30d", "90d"],
    ),
]


@router.get("/workflow-metrics")
async def workflow_metrics(
    services: Services,
    principal: Reader,
    time_range: TimeRange = "24h",
    dag_id: Name = None,
    user_id: Name = None,
) -> WorkflowMetrics:
    """Totals, success rate, durations, throughput, tokens and cost of runs, by DAG and over time.

    The role User sees only its own runs.
    """
    return await services.monitoring.workflow_metrics(principal, time_range, dag_id=dag_id, user_id=user_id)


@router.get("/agent-performance")
async def agent_performance(
    services: Services,
    principal: Reader,
    time_range: TimeRange = "24h",
    dag_id: Name = None,
    user_id: Name = None,
) -> AgentPerformance:
    """Per agent, type and model: runs, success rate, latency, tokens, cost, retries and fallbacks."""
    return await services.monitoring.agent_performance(principal, time_range, dag_id=dag_id, user_id=user_id)


@router.get("/error-distribution")
async def error_distribution(
    services: Services,
    principal: Reader,
    time_range: TimeRange = "24h",
    dag_id: Name = None,
    user_id: Name = None,
) -> ErrorDistribution:
    """Errors by category, agent and DAG, whether runs recovered from them, and when they occurred."""
    return await services.monitoring.error_distribution(principal, time_range, dag_id=dag_id, user_id=user_id)


@router.get(
    "/system-health",
    responses={503: {"model": SystemHealth, "description": "A required component is unhealthy."}},
)
async def system_health(services: Services, _: Reader, response: Response) -> SystemHealth:
    """The state of the database, each part of Airflow, the event feed, the notifications, Langfuse and the
    model provider."""
    health = await services.health.system()
    if health.status == "unhealthy":
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return health
