"""The addresses of a run's resources."""

from urllib.parse import quote


def status_url(dag_id: str, dag_run_id: str) -> str:
    """The run's snapshot, relative to this service."""
    return f"/workflow-status/{quote(dag_id, safe='')}/{quote(dag_run_id, safe='')}"


def stream_url(dag_id: str, dag_run_id: str) -> str:
    """The run's stream, relative to this service."""
    return f"/workflow-status/stream/{quote(dag_id, safe='')}/{quote(dag_run_id, safe='')}"
