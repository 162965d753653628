"""What users bring while the stack runs: DAG files as the integration guide has them, graphs, and whole projects."""

import httpx
import pytest

from tests.kit.fixtures.projects import PINNED
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import RunningStack, wait_for_dag, wait_until
from tests.kit.runs import check_order, follow, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

GRAPH = "five_steps.five_steps"

# The guide's "Creating New DAGs" (with Airflow 3's name of the schedule) and, as its tasks, "Custom Airflow Operators".
GUIDE = """
from airflow import DAG
from datetime import datetime, timedelta
from visual_ai_operators import LangGraphOperator, MultiAgentOperator

default_args = {
    'owner': 'visual-ai-team',
    'retries': 2,
    'retry_delay': timedelta(minutes=5)
}

dag = DAG(
    'my_custom_workflow',
    default_args=default_args,
    description='Custom Visual AI workflow',
    schedule=None,
    start_date=datetime(2024, 1, 1),
    tags=['visual-ai', 'custom']
)

# Add your tasks here
with dag:
    # Single agent execution
    single_agent = LangGraphOperator(
        task_id='analyze_image',
        agent_config={'type': 'vision'},
        input_data={'image_url': '{{ dag_run.conf.image_url }}'},
        model='gpt-4-vision-preview'
    )

    # Multi-agent orchestration
    multi_agent = MultiAgentOperator(
        task_id='multi_agent_analysis',
        agents=[
            {'name': 'vision', 'type': 'vision', 'input_data': {...}},
            {'name': 'text', 'type': 'text', 'input_data': {...}}
        ],
        orchestration_mode='parallel'
    )

    single_agent >> multi_agent
"""

WRONG = """
from airflow.sdk import DAG
from visual_ai_operators import LangGraphOperator, MultiAgentOperator

with DAG('{dag_id}', schedule=None):
    {operator}
"""


def test_the_guides_dag_runs(
    stack: RunningStack, backend: httpx.Client, airflow: httpx.Client, openai_server: OpenAIServer
) -> None:
    (stack.dags / "my_custom_workflow.py").write_text(GUIDE)
    wait_for_dag(airflow, "my_custom_workflow")
    dag = airflow.get("/api/v2/dags/my_custom_workflow").json()
    assert dag["description"] == "Custom Visual AI workflow"
    assert dag["is_paused"] is False
    wait_until(
        lambda: backend.get("/workflows/my_custom_workflow").status_code == httpx.codes.OK,
        timeout=10, what="the DAG in the backend's list",
    )  # fmt: skip
    given = {"image_url": "sample://invoice", "text": "Three boats lay at the pier.", "query": "What is this?"}
    accepted = trigger(backend, "my_custom_workflow", given)
    check_order(follow(backend, accepted))
    now = snapshot(backend, accepted)
    assert now["state"] == "success", now["errors"]
    assert {(task["task_id"], task["state"], task["try_number"]) for task in now["tasks"]} == {
        ("analyze_image", "success", 1), ("multi_agent_analysis", "success", 1),
    }  # fmt: skip
    assert set(now["result"]["results"]) == {"vision", "text"}
    # A server in OPENAI_BASE_URL receives the model's name as the DAG has it.
    assert "gpt-4-vision-preview" in {request.model for request in openai_server.requests}
    assert any("Three boats" in request.prompt for request in openai_server.requests)


def test_wrong_arguments_are_import_errors_that_name_them(stack: RunningStack, airflow: httpx.Client) -> None:
    wrong = {
        "wrong_type": ("LangGraphOperator(task_id='t', agent_config={'type': 'oracle'})", "agent_config.type"),
        "wrong_key": ("LangGraphOperator(task_id='t', agent_config={'type': 'text', 'temper': 1})", "temper"),
        "wrong_input": ("LangGraphOperator(task_id='t', agent_config={'type': 'vision'}, input_data={})", "input_data"),
        "wrong_mode": (
            "MultiAgentOperator(task_id='t', agents=[{'name': 'a', 'type': 'text'}], orchestration_mode='crossed')",
            "orchestration_mode",
        ),
        "same_name": ("MultiAgentOperator(task_id='t', agents=2 * [{'name': 'a', 'type': 'text'}])", "agents[1].name"),
    }
    for dag_id, (operator, _) in wrong.items():
        (stack.dags / f"{dag_id}.py").write_text(WRONG.format(dag_id=dag_id, operator=operator))

    def errors() -> dict[str, str] | None:
        found = airflow.get("/api/v2/importErrors", params={"limit": 100}).json()["import_errors"]
        by_file = {entry["filename"].rpartition("/")[2].removesuffix(".py"): entry["stack_trace"] for entry in found}
        return by_file if wrong.keys() <= by_file.keys() else None

    try:
        found = wait_until(errors, timeout=60, poll=0.5, what="the import errors")
        for dag_id, (_, argument) in wrong.items():
            last = found[dag_id].strip().splitlines()[-1]
            assert argument in last, last
            assert airflow.get(f"/api/v2/dags/{dag_id}").status_code == httpx.codes.NOT_FOUND
    finally:
        for dag_id in wrong:
            (stack.dags / f"{dag_id}.py").unlink()


def test_a_dag_that_is_tested_beside_a_scheduler_runs_once(
    stack: RunningStack, airflow: httpx.Client, openai_server: OpenAIServer
) -> None:
    """One of its tasks is ready all the while that the other one runs."""
    wait_for_dag(airflow, "two_agents_at_once")
    openai_server.script(delay=4.0, times=4)
    tested = stack.command("airflow", "dags", "test", "two_agents_at_once")
    newest = airflow.get("/api/v2/dags/two_agents_at_once/dagRuns", params={"order_by": "-id", "limit": 1})
    (run,) = newest.raise_for_status().json()["dag_runs"]
    assert run["state"] == "success", tested.stdout + tested.stderr
    tasks = airflow.get(f"/api/v2/dags/two_agents_at_once/dagRuns/{run['dag_run_id']}/taskInstances").json()
    assert [task["queued_when"] for task in tasks["task_instances"]] == [None, None], "the scheduler has taken neither"
    assert len(openai_server.requests) == 2


def test_a_graph_runs_without_a_dag_file(backend: httpx.Client, openai_server: OpenAIServer) -> None:
    workflow = backend.get(f"/workflows/{GRAPH}").json()
    assert set(workflow["input_schema"]["properties"]) == {"topic", "answers"}
    refused = backend.post("/workflows/trigger", json={"dag_id": GRAPH, "input_data": {"topic": 7}})
    assert refused.status_code == 422
    assert "/input_data/topic" in refused.text
    accepted = trigger(backend, GRAPH, {"topic": "tides"})
    check_order(follow(backend, accepted))
    now = snapshot(backend, accepted)
    assert len(now["result"]["output"]["answers"]) == 5
    assert now["result"]["output"]["topic"] == "tides"
    assert [request for request in openai_server.requests if "tides" in request.prompt]
    assert {agent["node"] for agent in now["agents"]} >= {None, "step_1", "step_5"}


def test_an_added_project_runs_in_its_environment_without_a_restart(
    stack: RunningStack, airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    added = stack.command("projects", "add", str(PINNED), "--name", "foreign")
    assert added.returncode == 1, added.stderr  # one of its graphs is broken
    wait_for_dag(airflow, "foreign.steps", timeout=90)
    openai_server.script(contains="Step 1 of harbours", content="One harbour.")
    openai_server.script(contains="Step 2 of harbours", content="Two harbours.")
    accepted = trigger(backend, "foreign.steps", {"topic": "harbours"})
    check_order(follow(backend, accepted))
    now = snapshot(backend, accepted)
    assert now["result"]["output"]["answers"] == ["One harbour.", "Two harbours."]
    assert now["result"]["usage"]["output_tokens"] > 0
    assert {agent["node"] for agent in now["agents"]} >= {None, "first", "second"}
    assert stack.command("projects", "remove", "foreign").returncode == 0
