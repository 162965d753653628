"""The main job: a picture goes in, its run is followed live, and the result is everywhere it should be."""

import base64
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from backend.db.address import plain_url
from tests.kit import pictures
from tests.kit.processes.stack import RunningStack, finished_run, start_run, wait_until
from tests.kit.runs import Event, check_order, events, follow, latest, of_type, snapshot, trigger, upload

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PHOTO = Path(__file__).parent / "pictures" / "rocket.jpg"
TEXT = (
    "The harbour of Bergen was quiet that morning. Three fishing boats lay at the pier and waited for the tide. "
    "The harbour master counted the boats and wrote the number into his book."
)


class InvoiceRun:
    """A run of the sample workflow with its events and its snapshot."""

    def __init__(self, backend: httpx.Client) -> None:
        self.image_url = upload(backend, pictures.encode(pictures.invoice()), "invoice.png")
        self.given = {"query": "What is the total?", "image_url": self.image_url}
        self.accepted = trigger(backend, "visual_ai_workflow", self.given, model="local:vision", user_id="airflow")
        self.events = follow(backend, self.accepted)
        self.snapshot = snapshot(backend, self.accepted)
        self.dag_run_id = str(self.accepted["dag_run_id"])


@pytest.fixture(scope="module")
def invoice(backend: httpx.Client) -> InvoiceRun:
    return InvoiceRun(backend)


@pytest.fixture(scope="module")
def database(stack: RunningStack) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """The database with the rights of the backend's role."""
    url = plain_url(stack.specification("backend")["VISUAL_AI_DATABASE_URL"])
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def agent_nodes(found: list[Event]) -> set[tuple[str, str | None]]:
    return {(data["agent"], data["node"]) for data in of_type(found, "agent_update")}


def test_the_stream_has_all_events_in_order(invoice: InvoiceRun) -> None:
    check_order(invoice.events)
    runs = of_type(invoice.events, "workflow_update")
    states = list(dict.fromkeys(data["state"] for data in runs))
    assert states == ["queued", "running", "success"]
    assert runs[-1]["progress"] == 100
    assert runs[-1]["tasks_done"] == runs[-1]["tasks_total"] == 3
    tasks = of_type(invoice.events, "task_update")
    for task_id in ("validate_input", "analyse_image", "store_result"):
        seen = [data["state"] for data in tasks if data["task_id"] == task_id]
        assert "running" in seen
        assert seen[-1] == "success"
        assert len(seen) == len(set(seen)), "a state was reported twice"


def test_the_stream_shows_the_agent_at_work(invoice: InvoiceRun) -> None:
    assert agent_nodes(invoice.events) == {
        ("vision", None), ("vision", "load_image"), ("vision", "analyse"), ("vision", "report"),
    }  # fmt: skip
    for node in (None, "load_image", "analyse", "report"):
        seen = [data for data in of_type(invoice.events, "agent_update") if data["node"] == node]
        assert [data["state"] for data in seen] == ["running", "success"]
        assert seen[-1]["latency_ms"] > 0
    tokens = of_type(invoice.events, "token")
    assert {(data["task_id"], data["agent"], data["node"]) for data in tokens} == {
        ("analyse_image", "vision", "analyse")
    }
    assert "".join(data["text"] for data in tokens) == invoice.snapshot["result"]["output"]["answer"]


def test_the_snapshot_equals_the_stream(invoice: InvoiceRun) -> None:
    now, last = invoice.snapshot, of_type(invoice.events, "workflow_update")[-1]
    assert now["last_event_id"] == invoice.events[-1].seq
    assert {name: now[name] for name in last if name != "result"} == {k: v for k, v in last.items() if k != "result"}
    assert now["result"] == last["result"]
    tasks = latest(of_type(invoice.events, "task_update"), lambda task: task["task_id"])
    assert {task["task_id"]: task for task in now["tasks"]} == tasks
    agents = latest(of_type(invoice.events, "agent_update"), lambda agent: (agent["agent"], agent["node"]))
    assert {(agent["agent"], agent["node"]): agent for agent in now["agents"]} == agents
    assert now["errors"] == of_type(invoice.events, "error") == []
    assert now["input_data"] == invoice.given
    assert now["user_id"] == "airflow"


def test_a_late_client_receives_a_finished_run(backend: httpx.Client, invoice: InvoiceRun) -> None:
    late = list(events(backend, invoice.accepted["stream_url"]))
    assert late[0].type == "workflow_update"
    assert late[0].data["state"] == "success"
    assert late[-1] == invoice.events[-1]
    resumed = list(events(backend, invoice.accepted["stream_url"], after=5))
    assert resumed == invoice.events[5:]


def test_the_text_of_the_invoice_is_read(invoice: InvoiceRun) -> None:
    result = invoice.snapshot["result"]
    output = result["output"]
    read = " ".join(output["text"].split())
    for cells in pictures.INVOICE:
        for cell in cells:
            assert cell in read
    assert "79.50" in output["answer"]
    assert (output["image"]["width"], output["image"]["height"]) == (1000, 420)
    assert output["offline"] is True
    assert "Offline" in output["notice"]
    assert (result["agent"], result["model"], result["cost_usd"], result["attempts"]) == (
        "vision",
        "local:vision",
        0,
        1,
    )
    assert invoice.snapshot["cost_usd"] == 0


def test_the_tables_hold_the_run(invoice: InvoiceRun, database: psycopg.Connection[dict[str, Any]]) -> None:
    def rows(table: str, column: str = "execution_id") -> list[dict[str, Any]]:
        query = f"SELECT * FROM visual_ai.{table} WHERE {column} = %s"
        return database.execute(query, [invoice.accepted["execution_id"]]).fetchall()

    (execution,) = rows("workflow_executions", "id")
    assert (execution["dag_id"], execution["dag_run_id"]) == ("visual_ai_workflow", invoice.dag_run_id)
    assert (execution["state"], execution["progress"]) == ("success", 100)
    assert execution["input_data"] == invoice.given
    assert execution["output_data"] == invoice.snapshot["result"]
    assert execution["queued_at"] <= execution["started_at"] <= execution["finished_at"]
    stored = sorted(rows("workflow_events"), key=lambda row: row["seq"])
    assert [(row["seq"], row["event_type"]) for row in stored] == [(e.seq, e.type) for e in invoice.events]
    traces = rows("agent_traces")
    assert {row["node"] for row in traces} == {None, "load_image", "analyse", "report"}
    assert {row["state"] for row in traces} == {"success"}
    assert len({row["trace_id"] for row in traces}) == 1
    assert "base64" not in json.dumps([(row["input"], row["output"]) for row in traces])
    assert len(rows("workflow_tasks")) == 3
    assert rows("workflow_errors") == []


def test_tasks_may_write_records_and_nothing_else(stack: RunningStack) -> None:
    url = plain_url(stack.specification("scheduler")["VISUAL_AI_DATABASE_URL"])
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM visual_ai.workflow_executions").fetchone() is not None
        for statement in (
            "DELETE FROM visual_ai.workflow_executions",
            "SELECT * FROM visual_ai.idempotency_keys",
            "SELECT * FROM public.dag_run",
            "CREATE TABLE visual_ai.mine (id int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_airflow_shows_the_same(airflow: httpx.Client, invoice: InvoiceRun) -> None:
    path = f"/api/v2/dags/visual_ai_workflow/dagRuns/{invoice.dag_run_id}"
    run = airflow.get(path).json()
    assert run["state"] == "success"
    assert {key: value for key, value in run["conf"].items() if key != "_visual_ai"} == invoice.given
    tasks = airflow.get(f"{path}/taskInstances").json()["task_instances"]
    assert {task["task_id"]: (task["state"], task["try_number"]) for task in tasks} == dict.fromkeys(
        ("validate_input", "analyse_image", "store_result"), ("success", 1)
    )
    returned = airflow.get(f"{path}/taskInstances/analyse_image/xcomEntries/return_value").json()["value"]
    returned = json.loads(returned) if isinstance(returned, str) else returned
    assert returned == invoice.snapshot["result"]


def test_a_photograph_is_measured_and_no_text_is_invented(backend: httpx.Client) -> None:
    image_url = upload(backend, PHOTO.read_bytes(), PHOTO.name)
    accepted = trigger(backend, "visual_ai_workflow", {"image_url": image_url}, model="local:vision")
    check_order(follow(backend, accepted))
    output = snapshot(backend, accepted)["result"]["output"]
    assert (output["image"]["format"], output["image"]["width"], output["image"]["height"]) == ("JPEG", 480, 320)
    assert output["text"] == ""
    assert output["text_regions"] == []
    assert 0 < output["brightness"] < 0.5  # dusk
    assert output["palette"][0]["share"] >= output["palette"][-1]["share"]


def test_a_data_url_is_accepted_and_not_stored(
    backend: httpx.Client, database: psycopg.Connection[dict[str, Any]]
) -> None:
    encoded = base64.b64encode(pictures.encode(pictures.invoice())).decode()
    given = {"query": "What is the date?", "image_url": f"data:image/png;base64,{encoded}"}
    accepted = trigger(backend, "visual_ai_workflow", given, model="local:vision")
    check_order(follow(backend, accepted))
    now = snapshot(backend, accepted)
    assert now["state"] == "success"
    assert "14 November 2026" in now["result"]["output"]["text"]
    for table in ("workflow_executions", "agent_traces", "workflow_events", "workflow_errors"):
        found = database.execute(
            f"SELECT count(*) AS n FROM visual_ai.{table} t WHERE position(%s IN t::text) > 0", [encoded[100:160]]
        ).fetchone()
        assert found == {"n": 0}, table


def test_several_agents_run_in_parallel(backend: httpx.Client) -> None:
    image_url = upload(backend, pictures.encode(pictures.invoice()), "invoice.png")
    given = {"query": "What is this about?", "image_url": image_url, "text": TEXT}
    accepted = trigger(backend, "multi_agent_workflow", given, model="local:vision")
    found = follow(backend, accepted)
    check_order(found)
    assert {agent for agent, _ in agent_nodes(found)} == {"vision", "text", "synthesis"}
    result = snapshot(backend, accepted)["result"]
    assert set(result["results"]) == {"vision", "text"}
    assert "INVOICE" in result["results"]["vision"]["text"]
    assert "harbour" in result["results"]["text"]["summary"]
    assert result["summary"]
    assert {entry["state"] for entry in result["agents"].values()} == {"success"}
    # local:vision was requested; agents that read text use the offline model that can, and their notice says so.
    assert result["agents"]["text"]["model"] == "local:text"
    assert "local:text" in result["agents"]["text"]["notice"]


def test_a_text_alone_needs_no_picture(backend: httpx.Client) -> None:
    accepted = trigger(backend, "multi_agent_workflow", {"text": TEXT}, model="local:text")
    found = follow(backend, accepted)
    check_order(found)
    result = snapshot(backend, accepted)["result"]
    assert set(result["results"]) == {"text"}
    assert result["results"]["text"]["language"] == "en"


def test_a_run_brings_its_own_agents_and_order(backend: httpx.Client) -> None:
    image_url = upload(backend, pictures.encode(pictures.invoice()), "invoice.png")
    given = {
        "query": "What is the total?",
        "image_url": image_url,
        "orchestration_mode": "sequential",
        "agents": [
            {"name": "reader", "type": "vision", "model": "local:vision"},
            {"name": "clerk", "type": "text", "model": "local:text"},
        ],
    }
    accepted = trigger(backend, "multi_agent_workflow", given, model="local:text")
    found = follow(backend, accepted)
    check_order(found)
    moments = [(data["agent"], data["state"]) for data in of_type(found, "agent_update") if data["node"] is None]
    assert moments == [
        ("reader", "running"), ("reader", "success"), ("clerk", "running"), ("clerk", "success"),
        ("synthesis", "running"), ("synthesis", "success"),
    ]  # fmt: skip
    result = snapshot(backend, accepted)["result"]
    assert "79.50" in json.dumps(result["results"]["clerk"])  # it read the result of the previous agent


def as_recorded(now: dict[str, Any]) -> dict[str, Any]:
    """What must be equal no matter which client started the run."""
    return {
        "state": now["state"],
        "progress": now["progress"],
        "run_type": now["run_type"],
        "input_data": now["input_data"],
        "user_id": now["user_id"],
        "tasks": {(task["task_id"], task["state"], task["try_number"]) for task in now["tasks"]},
        "agents": {(agent["agent"], agent["node"], agent["state"], agent["type"]) for agent in now["agents"]},
        "totals": (now["tasks_total"], now["tasks_done"]),
        "answered": now["result"] is not None,
    }


def test_runs_of_airflows_other_clients_are_recorded_like_triggered_ones(
    stack: RunningStack, backend: httpx.Client, airflow: httpx.Client
) -> None:
    dag_id, given = "multi_agent_workflow", {"query": "What lay there?", "text": TEXT}
    by_rest = start_run(airflow, dag_id, given)
    by_cli = f"by_hand_{secrets.token_hex(4)}"
    done = stack.command("airflow", "dags", "trigger", dag_id, "--run-id", by_cli, "--conf", json.dumps(given))
    assert done.returncode == 0, done.stderr
    triggered = trigger(backend, dag_id, given)
    runs = [triggered["dag_run_id"], by_rest, by_cli]
    recorded = []
    for run_id in runs:
        finished_run(airflow, dag_id, run_id)
        run = {"dag_id": dag_id, "dag_run_id": run_id}
        wait_until(lambda: snapshot(backend, run)["state"] == "success", timeout=10, what="the record of the end")  # noqa: B023
        check_order(follow(backend, {"stream_url": f"/workflow-status/stream/{dag_id}/{run_id}"}))
        recorded.append(as_recorded(snapshot(backend, run)))
    assert recorded[0] == recorded[1]
    # Airflow's command line runs as the user of the operating system.
    assert {**recorded[2], "user_id": "airflow"} == recorded[0]
    assert recorded[2]["user_id"]
    listed = backend.get("/workflow-status", params={"dag_id": dag_id}).json()["executions"]
    assert set(runs) <= {entry["dag_run_id"] for entry in listed}


def test_monitoring_shows_the_runs(backend: httpx.Client, invoice: InvoiceRun) -> None:
    metrics = backend.get("/monitoring/workflow-metrics", params={"time_range": "1h"}).json()
    by_dag = {entry["dag_id"]: entry for entry in metrics["by_dag"]}
    assert by_dag["visual_ai_workflow"]["success"] >= 1
    assert metrics["duration_seconds"]["p50"] > 0
    assert metrics["total"] == sum(bucket["total"] for bucket in metrics["time_series"])
    agents = backend.get("/monitoring/agent-performance").json()["agents"]
    vision = next(entry for entry in agents if (entry["agent"], entry["model"]) == ("vision", "local:vision"))
    assert vision["success"] >= 1
    assert vision["latency_ms"]["p50"] > 0
    assert backend.get("/monitoring/error-distribution").status_code == httpx.codes.OK
    health = backend.get("/monitoring/system-health")
    assert health.status_code == httpx.codes.OK
    assert health.json()["status"] in ("healthy", "degraded")
