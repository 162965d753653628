"""A run that fails says why, whoever ended it: one reason and one error, from Airflow where nobody recorded any."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from backend.clients.airflow import AirflowClient, AirflowUnavailable
from backend.core.states import TaskState
from backend.db.engine import Database, make_async_engine
from backend.db.runs import errors, events, executions, observations
from backend.db.runs.executions import RunState
from backend.db.runs.traces import Place
from backend.services.recording import explainer as explainer_module
from backend.services.recording.explainer import CALLS_PER_RUN, Explainer
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, make_settings
from tests.kit.notifications import LENIENT, all_handled, rows, target, wants
from tests.kit.servers.webhooks import Receiver

DAG = "visual_ai_workflow"
OOM = {
    "event": "Process terminated by signal. Likely out of memory error.",
    "level": "critical",
    "signal_name": "SIGKILL",
}


@pytest.fixture(autouse=True)
def _explained_by_the_test(no_reconciler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explainer_module, "SETTLED_AFTER", timedelta(0))


@asynccontextmanager
async def made(url: str, airflow: FakeAirflow) -> AsyncIterator[tuple[Explainer, AirflowClient]]:
    """The explainer of a backend of its own, and its Airflow client."""
    database = Database(make_async_engine(url, application="test", pool_size=3))
    client = AirflowClient(make_settings(url, **PRODUCTION), airflow.transport)
    try:
        yield Explainer(client, database), client
    finally:
        await client.close()
        await database.close()


@pytest.fixture
async def explainer(app: Any, database_url: str, airflow: FakeAirflow) -> AsyncIterator[Explainer]:
    async with made(database_url, airflow) as (explainer, _):
        yield explainer


def ended(
    engine: Engine, airflow: FakeAirflow, run_id: str = "run", *, state: str = "failed", **tasks: str | None
) -> dict[str, Any]:
    """Let a run of ulla's end, as the listener reports it; returns the execution's row."""
    airflow.add_run(DAG, run_id, state, tasks, triggering_user_name="ulla")
    return recorded(engine, run_id, state, **tasks)


def recorded(engine: Engine, run_id: str = "run", state: str = "failed", **tasks: str | None) -> dict[str, Any]:
    now = datetime.now(UTC)
    run = RunState(DAG, run_id, state, user="ulla", started_at=now, finished_at=now)
    with engine.begin() as connection:
        observations.observe(connection, RunState(DAG, run_id, "running", user="ulla", started_at=now))
        observations.observe(connection, run, [TaskState(name, -1, 1, state) for name, state in tasks.items()])
        found = executions.get(connection, DAG, run_id)
    assert found is not None
    return dict(found)


def failed_with(engine: Engine, message: str, *, task_id: str = "work", **more: Any) -> None:
    """Record an error of an agent."""
    given = {"category": "auth", "exception_type": "openai.AuthenticationError", "action": "fail", **more}
    with engine.begin() as connection:
        execution_id = executions.ensure(connection, RunState(DAG, "run", None, user="ulla"))
        errors.add(connection, execution_id, Place(DAG, "run", task_id, -1, 1, agent="text"), message=message, **given)


async def now(http: httpx.AsyncClient, headers: Mapping[str, str], run_id: str = "run") -> dict[str, Any]:
    answer = await http.get(f"/workflow-status/{DAG}/{run_id}", headers=headers)
    assert answer.status_code == 200, answer.text
    snapshot: dict[str, Any] = answer.json()
    return snapshot


def end_of(engine: Engine, run_id: str = "run") -> list[dict[str, Any]]:
    """The data of the run's `end` events, the last of which must be its last event."""
    with engine.connect() as connection:
        row = executions.get(connection, DAG, run_id)
        assert row is not None
        log = events.read_after(connection, str(row["id"]), 0, limit=1000)
    assert log[-1].type == "end"
    return [event.payload for event in log if event.type == "end"]


# What ended it


def by_hand(airflow: FakeAirflow) -> None:
    airflow.add_event("patch_dag_run", DAG, "run", owner="anna", extra={"state": "failed"})


def many_by_hand(airflow: FakeAirflow) -> None:
    changed = [{"dag_run_id": "run", "dag_id": DAG, "state": "failed"}]
    airflow.add_event(
        "bulk_dag_runs", "~", owner="anna", extra={"actions": [{"action": "update", "entities": changed}]}
    )


def task_by_hand(airflow: FakeAirflow) -> None:
    airflow.add_event("patch_task_instance", DAG, "run", task_id="work", owner="anna", extra={"new_state": "failed"})


def timeout(airflow: FakeAirflow) -> None:
    airflow.dags[DAG]["dag_run_timeout"] = "PT30S"
    began = datetime.now(UTC) - timedelta(seconds=60)
    airflow.runs[DAG, "run"].shown["start_date"] = began.isoformat()


def killed(airflow: FakeAirflow) -> None:
    airflow.set_log(DAG, "run", "work", [OOM])


def lost(airflow: FakeAirflow) -> None:
    place = {"task_id": "work", "map_index": -1, "try_number": 1}
    airflow.add_event("heartbeat timeout", DAG, "run", extra="no heartbeat within 60 seconds", **place)


def broken(airflow: FakeAirflow) -> None:
    airflow.set_log(DAG, "run", "work", [{"event": "Dag not found during start up", "level": "error"}])
    airflow.import_errors[f"{DAG}.py"] = "Traceback …\nSyntaxError: invalid syntax"


def unlogged(airflow: FakeAirflow) -> None:
    airflow.fail("eventLogs", 403)
    killed(airflow)


@pytest.mark.parametrize(
    ("evidence", "tasks", "kind", "words"),
    [
        (by_hand, {"work": "failed"}, "MarkedFailed", "The run was marked as failed in Airflow by anna."),
        (many_by_hand, {"work": "failed"}, "MarkedFailed", "The run was marked as failed in Airflow by anna."),
        (task_by_hand, {"work": "failed", "after": "upstream_failed"}, "MarkedFailed", "'work' was marked as failed"),
        (timeout, {"work": "skipped", "after": "skipped"}, "DagRunTimeout", "dagrun_timeout of 30 s"),
        (killed, {"work": "failed"}, "ProcessLostError", "ran out of memory"),
        (lost, {"work": "failed"}, "WorkerLost", "its worker on worker-1 stopped reporting"),
        (broken, {"work": "failed"}, "DagNotFound", "SyntaxError: invalid syntax"),
        (unlogged, {"work": "failed"}, "ProcessLostError", "ran out of memory"),
        (lambda _: None, {"work": "failed"}, "TaskFailed", "Task 'work' failed without saying why"),
        (lambda _: None, {"work": None}, "NoTaskFailed", "none of its tasks had failed"),
        (lambda airflow: airflow.delete_run(DAG, "run"), {"work": "failed"}, "RunDeleted", "deleted in Airflow"),
    ],
)  # fmt: skip
async def test_a_failed_run_without_an_error_gets_one_with_a_reason(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer,
    evidence: Any, tasks: dict[str, str | None], kind: str, words: str,
) -> None:  # fmt: skip
    ended(engine, airflow, "run", state="failed", **tasks)
    evidence(airflow)
    before = await now(http, ulla)
    assert (before["reason"], before["errors"]) == (None, [])
    calls = len(airflow.log)
    assert await explainer.explain() == 0
    assert len(airflow.log) - calls <= CALLS_PER_RUN + 1  # and signing in
    found = await now(http, ulla)
    assert words in found["reason"]
    (error,) = found["errors"]
    assert (error["exception_type"], error["message"], error["action"]) == (kind, found["reason"], "fail")
    assert end_of(engine) == [{"state": "failed"}], "nothing follows the end"
    calls = len(airflow.log)
    assert await explainer.explain() == 0
    assert (len(airflow.log), len((await now(http, ulla))["errors"])) == (calls, 1)


async def test_an_error_that_decided_is_the_reason_and_costs_airflow_nothing(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer
) -> None:
    failed_with(engine, "a passing one", action="retry")
    failed_with(engine, "a tolerated one", task_id="other")
    failed_with(engine, "Incorrect API key provided: sk-proj-0123456789abcdef")
    ended(engine, airflow, other="success", work="failed", after="upstream_failed")
    calls = len(airflow.log)
    await explainer.explain()
    assert len(airflow.log) == calls
    found = await now(http, ulla)
    words = "Task 'work' failed: agent 'text': AuthenticationError: Incorrect API key provided: [redacted]"
    assert (found["reason"], len(found["errors"])) == (words, 3)
    assert end_of(engine) == [{"state": "failed"}]
    listed = (await http.get("/workflow-status", headers=ulla)).json()["executions"]
    assert [run["reason"] for run in listed] == [words]
    result = await http.get(f"/workflow-status/{DAG}/run/result", headers=ulla)
    assert result.json()["detail"] == f"The run failed, so it has no result: {words}"


async def test_an_error_that_is_recorded_late_is_still_the_reason(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer
) -> None:
    ended(engine, airflow, work="failed")
    failed_with(engine, "no such key")
    await explainer.explain()
    found = await now(http, ulla)
    assert (found["reason"], len(found["errors"])) == (
        "Task 'work' failed: agent 'text': AuthenticationError: no such key", 1
    )  # fmt: skip


@pytest.mark.parametrize("action", ["retry", "fail"])
async def test_an_error_that_did_not_decide_is_no_reason(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer,
    action: str,
) -> None:  # fmt: skip
    """The agent was between two attempts when somebody stopped its task, or it was stopped with it."""
    failed_with(engine, "stopped", action=action, category="cancelled" if action == "fail" else "rate_limit")
    ended(engine, airflow, work="failed")
    task_by_hand(airflow)
    await explainer.explain()
    assert (await now(http, ulla))["reason"] == "Task 'work' was marked as failed in Airflow by anna."


async def test_several_backends_write_one_reason(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, database_url: str
) -> None:
    for number in range(6):
        ended(engine, airflow, f"run-{number}", work="failed")
    async with AsyncExitStack() as stack:
        backends = [await stack.enter_async_context(made(database_url, airflow)) for _ in range(4)]
        await asyncio.gather(*(explainer.explain() for explainer, _ in backends))
    for number in range(6):
        found = await now(http, ulla, f"run-{number}")
        assert found["reason"] is not None
        assert len(found["errors"]) == 1


async def test_a_reason_that_can_not_be_learnt_now_is_filled_in_later(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(explainer_module, "POSTPONED_SECONDS", 0.0)
    ended(engine, airflow, work="failed")
    killed(airflow)
    airflow.fail("/api/v2/")
    with pytest.raises(AirflowUnavailable):
        await explainer.explain()
    assert (await now(http, ulla))["errors"] == []
    airflow.heal()
    await explainer.explain()
    assert "ran out of memory" in (await now(http, ulla))["reason"]


async def test_a_run_that_airflow_fails_at_does_not_hold_up_others(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer
) -> None:
    ended(engine, airflow, "fine", work="failed")
    ended(engine, airflow, "faulty", work="failed")
    airflow.fail("dagRuns/faulty", 500)
    with pytest.raises(AirflowUnavailable):
        await explainer.explain()
    assert await explainer.explain() == 1
    assert (await now(http, ulla, "fine"))["reason"] is not None
    assert (await now(http, ulla, "faulty"))["reason"] is None


async def test_a_log_that_is_lost_for_good_is_given_up(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(explainer_module, "POSTPONED_SECONDS", 0.0)
    ended(engine, airflow, work="failed")
    airflow.fail("/logs/", 500)
    for _ in range(2):
        with pytest.raises(AirflowUnavailable):
            await explainer.explain()
    await explainer.explain()
    assert "has left no log" in (await now(http, ulla))["reason"]


async def test_each_attempt_has_its_own_reason(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer
) -> None:
    ended(engine, airflow, work="failed")
    by_hand(airflow)
    await explainer.explain()
    airflow.add_run(DAG, "run", "running", {"work": "running"}, triggering_user_name="ulla")
    with engine.begin() as connection:
        observations.observe(
            connection,
            RunState(DAG, "run", "running", started_at=datetime.now(UTC)),
            [TaskState("work", -1, 2, "running")],
        )
    assert (await now(http, ulla))["reason"] is None
    airflow.add_run(DAG, "run", "failed", triggering_user_name="ulla")
    airflow.set_task(DAG, "run", "work", "failed", try_number=2)
    airflow.set_log(DAG, "run", "work", [OOM], try_number=2)
    with engine.begin() as connection:
        state = RunState(DAG, "run", "failed", finished_at=datetime.now(UTC))
        observations.observe(connection, state, [TaskState("work", -1, 2, "failed")])
    await explainer.explain()
    found = await now(http, ulla)
    assert "ran out of memory" in found["reason"]
    assert [error["exception_type"] for error in found["errors"]] == ["ProcessLostError", "MarkedFailed"]


async def test_a_run_that_did_not_fail_has_no_reason(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer
) -> None:
    failed_with(engine, "an agent that may fail", task_id="work")
    ended(engine, airflow, state="success", work="success")
    ended(engine, airflow, "set", work="failed")
    airflow.set_run(DAG, "set", "success")  # by hand, unnoticed
    await explainer.explain()
    for run_id in ("run", "set"):
        found = await now(http, ulla, run_id)
        assert (found["state"], found["reason"]) == ("success", None)


async def test_a_cancelled_run_says_by_whom(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer
) -> None:
    body = {"dag_id": DAG, "input_data": {"query": "q", "image_url": "https://example.com/i.png"}}
    run_id = (await http.post("/workflows/trigger", json=body, headers=ulla)).json()["dag_run_id"]
    assert (await http.post(f"/workflows/{DAG}/runs/{run_id}/cancel", headers=ulla)).status_code == 202
    recorded(engine, "deleted", "cancelled", work="running")
    airflow.add_event("delete_dag_run", DAG, "deleted", owner="anna")
    await explainer.explain()
    found = await now(http, ulla, run_id)
    assert (found["state"], found["reason"], found["errors"]) == ("cancelled", "Cancelled by ulla.", [])
    found = await now(http, ulla, "deleted")
    assert (found["state"], found["reason"]) == ("cancelled", "The run was deleted in Airflow by anna.")
    assert found["errors"] == []


@pytest.mark.parametrize("app", [LENIENT], indirect=True)
async def test_a_webhook_waits_for_the_reason(
    http: httpx.AsyncClient, ulla: Mapping[str, str], airflow: FakeAirflow, engine: Engine, explainer: Explainer,
    receiver: Receiver, database_url: str,
) -> None:  # fmt: skip
    await wants(http, ulla, target(receiver))
    ended(engine, airflow, work="failed")
    by_hand(airflow)
    await asyncio.sleep(0.3)
    assert (receiver.received, len(rows(database_url, "notification_causes"))) == ([], 1)
    await explainer.explain()
    await all_handled(database_url)
    (got,) = receiver.received
    assert got.json["reason"] == got.json["error"]["message"] == "The run was marked as failed in Airflow by anna."
