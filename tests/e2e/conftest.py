"""The whole stack, started once for all end-to-end tests and stopped before any others, next to an OpenAI-compatible
server and a stand-in for Langfuse.

Agents use that server unless a run names an offline model (`model="local:vision"`): one stack serves both.
"""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import RunningStack, running_stack, wait_until
from tests.kit.servers.langfuse import LangfuseServer

PROJECT = Path(__file__).parents[1] / "projects" / "five_steps" / "langgraph.json"
OPENAI_KEY = "sk-proj-e2eSecretThatMayStandNowhere0123456789"


@pytest.fixture(scope="package")
def traces() -> Iterator[LangfuseServer]:
    """The Langfuse to which the stack sends its traces."""
    with LangfuseServer() as server:
        yield server


@pytest.fixture(scope="package")
def stack(running_openai_server: OpenAIServer, traces: LangfuseServer) -> Iterator[RunningStack]:
    """The running stack, which is stopped and deleted after the tests. Fails with its output if it doesn't come up."""
    environment = {
        "OPENAI_BASE_URL": running_openai_server.base_url,
        "OPENAI_API_KEY": OPENAI_KEY,
        "VISUAL_AI_LANGGRAPH_JSON": str(PROJECT),
        # Receivers of notifications run on this machine.
        "VISUAL_AI_ALLOW_PRIVATE_WEBHOOKS": "true",
        "VISUAL_AI_ALLOW_HTTP_WEBHOOKS": "true",
        "VISUAL_AI_WEBHOOK_FIRST_WAIT": "0.1",
        **traces.environment,
        "LANGFUSE_FLUSH_INTERVAL": "1",
    }
    with running_stack(environment) as running:
        shutil.copytree(Path(__file__).with_name("dags"), running.dags, dirs_exist_ok=True)
        with running.airflow() as airflow:
            wait_until(
                    lambda: _scheduled_work_is_done(airflow),
                    timeout=180, poll=0.5, what="the scheduled runs",
                )  # fmt: skip
        yield running


def _scheduled_work_is_done(airflow: httpx.Client) -> bool:
    """Whether the first run of the daily maintenance, which starts by itself, has finished: some tests count rows."""
    dag = airflow.get("/api/v2/dags/visual_ai_maintenance").json()
    due = dag.get("next_dagrun_run_after")
    if due is None or datetime.fromisoformat(due) <= datetime.now(UTC):
        return False
    active = {"state": ["queued", "running"]}
    left = airflow.get("/api/v2/dags/visual_ai_maintenance/dagRuns", params=active).json()
    return bool(left["total_entries"] == 0)


@pytest.fixture(scope="package")
def backend(stack: RunningStack) -> Iterator[httpx.Client]:
    """The backend, as the administrator."""
    client = stack.backend()
    yield client
    client.close()


@pytest.fixture(scope="package")
def airflow(stack: RunningStack) -> Iterator[httpx.Client]:
    """Airflow's REST API, as the administrator."""
    client = stack.airflow()
    yield client
    client.close()
