"""A rate limit longer than a worker waits: its slot is free meanwhile, and the run resumes at the same node."""

from typing import Any

import httpx
import pytest

from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import wait_for_dag, wait_until
from tests.kit.runs import follow, of_type, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WAIT = 8.0
"""The server's `Retry-After` in seconds; tasks wait at most 3 in their worker."""


@pytest.mark.parametrize(
    ("kind", "state", "tries"),
    [("retries", "up_for_retry", 2), ("no_retries", "up_for_reschedule", 1), ("deferrable", "up_for_retry", 2)],
)
def test_the_worker_is_free_while_the_task_waits(
    airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer, kind: str, state: str, tries: int
) -> None:
    dag_id = f"rate_limited_{kind}"
    wait_for_dag(airflow, dag_id)
    openai_server.script("rate_limit", retry_after=WAIT)
    openai_server.script(content="Ships.")
    accepted = trigger(backend, dag_id, {})

    def task() -> dict[str, Any]:
        url = f"/api/v2/dags/{dag_id}/dagRuns/{accepted['dag_run_id']}/taskInstances/agent"
        found: dict[str, Any] = airflow.get(url).raise_for_status().json()
        return found

    waiting = wait_until(lambda: found if (found := task())["state"] == state else None, timeout=60, what=state)
    assert waiting["try_number"] == 1
    pool = airflow.get("/api/v2/pools/default_pool").raise_for_status().json()
    assert (pool["occupied_slots"], pool["running_slots"], pool["deferred_slots"]) == (0, 0, 0)

    found = follow(backend, accepted)
    ended = task()
    assert (ended["state"], ended["try_number"]) == ("success", tries)
    first, second = openai_server.requests
    assert second.time - first.time >= WAIT
    now = snapshot(backend, accepted)
    nodes = [(agent["node"], agent["try_number"], agent["state"]) for agent in now["agents"] if agent["node"]]
    assert nodes == [
        ("prepare", 1, "success"),
        ("analyse", 1, "failed"),
        ("analyse", tries, "success"),
        ("report", tries, "success"),
    ]
    [error] = now["errors"]
    assert (error["category"], error["action"], error["retry_in"]) == ("rate_limit", "reschedule", WAIT)
    assert error["recovered"]
    assert [(event["action"], event["retry_in"]) for event in of_type(found, "error")] == [("reschedule", WAIT)]
    assert now["result"]["output"]["answer"] == "Ships."
