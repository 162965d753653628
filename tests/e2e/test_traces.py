"""Traces of the real stack: from the processes of tasks, even stopped ones, and from the triggerer."""

from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from langfuse import Langfuse

from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import finished_run, start_run, wait_until
from tests.kit.runs import follow, snapshot, trigger
from tests.kit.servers.langfuse import LangfuseServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MODEL = "openai:gpt-4.1-mini"


def task_url(dag_id: str, run_id: str, task_id: str) -> str:
    return f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"


def link_of(airflow: httpx.Client, dag_id: str, run_id: str, task_id: str) -> str | None:
    links: dict[str, Any] = airflow.get(f"{task_url(dag_id, run_id, task_id)}/links").json()["extra_links"]
    found: str | None = links["Agent trace"]
    return found


def seeded(dag_id: str, run_id: str, task_id: str) -> str:
    return str(Langfuse.create_trace_id(seed=f"development/{dag_id}/{run_id}/{task_id}/-1"))


@pytest.mark.parametrize("dag_id", ["agent_in_worker", "agent_deferrable"])
def test_result_link_run_and_langfuse_refer_to_the_same_trace(
    airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer, traces: LangfuseServer, dag_id: str
) -> None:
    openai_server.script("server_error", times=1)
    openai_server.script(content="Ships.")
    accepted = trigger(backend, dag_id, {"text": "Ships lay there."})
    run_id = accepted["dag_run_id"]
    follow(backend, accepted)
    result = airflow.get(f"{task_url(dag_id, run_id, 'agent')}/xcomEntries/return_value").json()["value"]
    assert result["trace_id"] == seeded(dag_id, run_id, "agent")
    assert result["trace_url"] == f"{traces.url}/trace/{result['trace_id']}"
    assert link_of(airflow, dag_id, run_id, "agent") == result["trace_url"]
    now = snapshot(backend, accepted)
    assert now["trace_url"] == result["trace_url"]
    assert {agent["trace_url"] for agent in now["agents"] if agent["node"] is None} == {result["trace_url"]}

    def both() -> bool:
        return len([span for span in traces.trace(result["trace_id"]) if span.name == "agent"]) == 2

    wait_until(both, timeout=20, what="the spans of both tries")
    tries = [span for span in traces.trace(result["trace_id"]) if span.name == "agent"]
    assert [(span.metadata["try_number"], span.level) for span in tries] == [(1, "ERROR"), (2, "DEFAULT")]
    assert {span.metadata["execution_id"] for span in tries} == {accepted["execution_id"]}
    assert {unquote(span.metadata["run_url"]).partition("/runs/")[2] for span in tries} == {f"{dag_id}/{run_id}"}
    assert {urlsplit(span.metadata["airflow_url"]).port for span in tries} == {airflow.base_url.port}
    assert {span.attributes["user.id"] for span in tries} == {"airflow"}
    assert {span.attributes["session.id"] for span in tries} == {f"{dag_id}/{run_id}"}


def test_a_stopped_task_sends_its_spans(
    airflow: httpx.Client, openai_server: OpenAIServer, traces: LangfuseServer
) -> None:
    openai_server.script(hang=True)
    run_id = start_run(airflow, "agent_in_worker", {"text": "Ships lay there."})
    openai_server.wait_for(lambda stats: stats.in_flight == 1, timeout=60)
    trace_id = seeded("agent_in_worker", run_id, "agent")
    assert link_of(airflow, "agent_in_worker", run_id, "agent") == f"{traces.url}/trace/{trace_id}"
    stopped = airflow.patch(task_url("agent_in_worker", run_id, "agent"), json={"new_state": "failed"})
    assert stopped.is_success, stopped.text
    finished_run(airflow, "agent_in_worker", run_id)
    spans = traces.wait_for_trace(trace_id, ["agent", MODEL])
    assert {span.level for span in spans if span.name == "agent"} == {"WARNING"}
    assert link_of(airflow, "agent_in_worker", run_id, "agent") == f"{traces.url}/trace/{trace_id}"


def test_system_health_includes_langfuse(backend: httpx.Client) -> None:
    assert backend.get("/monitoring/system-health").json()["components"]["langfuse"]["status"] == "healthy"
