"""The backend is killed while a client follows a run, or the scheduler commits late: streams lose and add nothing."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psycopg
import pytest

from backend.db.address import plain_url
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import RunningStack, wait_until
from tests.kit.processes.stack_processes import pid_of
from tests.kit.runs import Event, check_order, events, of_type, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WORDS = " ".join(f"word{number}" for number in range(80))
TEXT = {"text": "Three boats lay at the pier."}


def test_a_client_resumes_after_the_backend_was_killed(
    stack: RunningStack, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    openai_server.script(content=WORDS, token_delay=0.1, model="gpt-4.1-mini")
    victim = pid_of(stack, "backend")
    accepted = trigger(backend, "multi_agent_workflow", TEXT, model="gpt-4.1-mini")
    found: list[Event] = []
    broken = 0
    deadline = time.monotonic() + 90
    while not found or found[-1].type != "end":
        assert time.monotonic() < deadline
        try:
            for event in events(backend, accepted["stream_url"], after=(found[-1].seq if found else 0)):
                found.append(event)
                if not broken and len(of_type(found, "token")) == 5:
                    os.kill(victim, signal.SIGKILL)
        except httpx.TransportError:
            broken += 1
            time.sleep(0.3)
    assert broken > 0
    check_order(found)
    tokens = [data["text"] for data in of_type(found, "token") if data["agent"] == "text"]
    assert "".join(tokens) == WORDS
    now = snapshot(backend, accepted)
    assert now["state"] == "success"
    url = plain_url(stack.specification("backend")["VISUAL_AI_DATABASE_URL"])
    with psycopg.connect(url) as connection:
        stored = connection.execute(
            "SELECT seq, event_type FROM visual_ai.workflow_events WHERE execution_id = %s ORDER BY seq",
            [now["execution_id"]],
        ).fetchall()
    assert stored == [(event.seq, event.type) for event in found]


SLOW_LISTENER = '''
"""A listener that keeps the scheduler from committing the end of a run, after ours has reported it."""

import time

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


class Slow:
    @hookimpl(trylast=True)
    def on_dag_run_success(self, dag_run, msg):
        time.sleep(6)


class SlowPlugin(AirflowPlugin):
    name = "slow"
    listeners = [Slow()]
'''


@pytest.fixture
def slow_scheduler(stack: RunningStack, tmp_path: Path) -> Iterator[None]:
    """A scheduler that commits the end of a successful run 6 s after our listener was told of it."""
    name = "AIRFLOW__CORE__PLUGINS_FOLDER"
    own = stack.specification("scheduler")[name]
    for file in Path(own).iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "slow_plugin.py").write_text(SLOW_LISTENER)
    restart_scheduler(stack, {name: str(tmp_path)})
    yield
    restart_scheduler(stack, {name: own})


def restart_scheduler(stack: RunningStack, environment: Mapping[str, str]) -> None:
    """Restart it with further variables, and wait until Airflow knows it."""
    stack.restart("scheduler", environment)
    url = f"{stack.airflow_url}/api/v2/monitor/health"
    wait_until(
        lambda: httpx.get(url).json()["scheduler"]["status"] == "healthy", timeout=60, what="a healthy scheduler"
    )


def test_nothing_follows_the_end_of_a_run_that_airflow_still_calls_running(
    stack: RunningStack, backend: httpx.Client, airflow: httpx.Client, slow_scheduler: None
) -> None:
    accepted = trigger(backend, "multi_agent_workflow", TEXT, model="local:text")
    run = f"{accepted['dag_id']}/runs/{accepted['dag_run_id']}"
    found = list(events(backend, accepted["stream_url"], after=0))
    assert found[-1].data == {"state": "success"}
    in_airflow = f"/api/v2/dags/{accepted['dag_id']}/dagRuns/{accepted['dag_run_id']}"
    assert airflow.get(in_airflow).json()["state"] == "running", "the scheduler has not committed yet"
    late = backend.post(f"/workflows/{run}/cancel")
    assert late.status_code == httpx.codes.CONFLICT
    wait_until(lambda: airflow.get(in_airflow).json()["state"] == "success", timeout=30, what="the commit")
    time.sleep(5)  # two more passes of the reconciler
    url = plain_url(stack.specification("backend")["VISUAL_AI_DATABASE_URL"])
    with psycopg.connect(url) as connection:
        stored = connection.execute(
            "SELECT seq, event_type FROM visual_ai.workflow_events WHERE execution_id = %s ORDER BY seq",
            [accepted["execution_id"]],
        ).fetchall()
    assert stored == [(event.seq, event.type) for event in found]
    now = snapshot(backend, accepted)
    assert (now["state"], now["attempt"], now["reason"]) == ("success", 1, None)
