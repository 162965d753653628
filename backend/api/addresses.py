"""URLs of runs."""

from urllib.parse import quote

from backend.services.application import Application


def run_urls(services: Application, dag_id: str, dag_run_id: str) -> dict[str, str]:
    """The run's snapshot and stream, relative to this service, and its page in Airflow."""
    run = f"{quote(dag_id, safe='')}/{quote(dag_run_id, safe='')}"
    return {
        "status_url": f"/workflow-status/{run}",
        "stream_url": f"/workflow-status/stream/{run}",
        "airflow_url": services.status.airflow_url(dag_id, dag_run_id),
    }
