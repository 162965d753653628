"""Lists, items and results of runs: filters, pages, access and limits."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, insert

from backend.core.states import TaskState
from backend.db.runs import batch_items, observations, results, threads
from backend.db.runs.executions import RunState
from backend.db.runs.results import TaskResult
from backend.db.runs.threads import ClaimRequest
from backend.db.runs.traces import Place
from backend.db.tables import agent_traces, workflow_errors
from tests.kit.airflow import FakeAirflow
from tests.kit.application import sign_in

DAG = "visual_ai_workflow"
RESULT = f"/workflow-status/{DAG}/run/result"
ITEMS = f"/workflow-status/{DAG}/run/items/classify"
Headers = Mapping[str, str]

pytestmark = pytest.mark.usefixtures("runs_of_the_test")


def run(
    engine: Engine,
    state: str,
    run_id: str = "run",
    *,
    dag_id: str = DAG,
    user: str = "ulla",
    result: Any = None,
    tasks: tuple[TaskState, ...] = (),
    **more: Any,
) -> str:
    """Record a run of `user`."""
    with engine.begin() as connection:
        seen = RunState(dag_id, run_id, "running", user=user, **more)
        execution_id = observations.observe(connection, seen, tasks)
        if result is not None:
            results.record(connection, [TaskResult(execution_id, result)])
        if state != "running":
            observations.observe(connection, RunState(dag_id, run_id, state))
        return execution_id


async def listed(http: httpx.AsyncClient, headers: Headers, **query: Any) -> list[str]:
    answer = await http.get("/workflow-status", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return [execution["dag_run_id"] for execution in answer.json()["executions"]]


async def test_numbers_are_answered_as_they_were_given(http: httpx.AsyncClient, engine: Engine) -> None:
    given = '{"n":[9007199254740993,-9223372036854775808,1.0,0.1,1e+22,1.7976931348623157e+308,5e-324]}'
    with engine.begin() as connection:
        seen = RunState(DAG, "run", "running", conf=json.loads(given))
        execution_id = observations.observe(connection, seen, ())
        results.record(connection, [TaskResult(execution_id, json.loads(given))])
    answer = await http.get(f"/workflow-status/{DAG}/run", headers=await sign_in(http, "otto"))
    for name in ("input_data", "result"):
        assert json.dumps(answer.json()[name], separators=(",", ":")) == given
        assert f'"{name}":{given.replace("e+", "e")}' in answer.text.replace("e+", "e")


async def test_each_filter_narrows_the_list(http: httpx.AsyncClient, engine: Engine) -> None:
    now = datetime.now(UTC)
    run(engine, "success", "a", queued_at=now - timedelta(hours=4))
    run(engine, "failed", "b", queued_at=now - timedelta(hours=3))
    run(engine, "cancelled", "c", user="uwe", queued_at=now - timedelta(hours=2))
    run(engine, "running", "d", dag_id="other", user="uwe", queued_at=now - timedelta(hours=1))
    otto = await sign_in(http, "otto")
    assert await listed(http, otto) == ["d", "c", "b", "a"]
    assert await listed(http, otto, dag_id=DAG) == ["c", "b", "a"]
    assert await listed(http, otto, state="failed") == ["b"]
    assert await listed(http, otto, state=["failed", "cancelled"]) == ["c", "b"]
    assert await listed(http, otto, user_id="uwe") == ["d", "c"]
    assert await listed(http, otto, since=(now - timedelta(minutes=150)).isoformat()) == ["d", "c"]
    assert await listed(http, otto, dag_id=DAG, user_id="uwe", state="cancelled", limit=1) == ["c"]
    assert await listed(http, otto, dag_id="none") == []
    ulla = await sign_in(http, "ulla")
    assert await listed(http, ulla) == ["b", "a"]
    assert await listed(http, ulla, user_id="uwe") == [], "a filter does not reveal other users' runs"


async def test_the_list_can_be_filtered_by_agent_and_by_error(http: httpx.AsyncClient, engine: Engine) -> None:
    now = datetime.now(UTC)
    ids = {
        name: run(engine, "success", name, user=user, queued_at=now - timedelta(hours=hours))
        for hours, name, user in ((3, "a", "ulla"), (2, "b", "uwe"), (1, "c", "ulla"))
    }
    with engine.begin() as connection:
        for name, agent, state in (("a", "seen", "success"), ("b", "seen", "failed"), ("c", "seen", "skipped")):
            row = {"execution_id": ids[name], "agent_name": agent, "state": state}
            connection.execute(insert(agent_traces).values(task_id="t", try_number=1, agent_type="vision", **row))
        for name, agent, category in (("a", "seen", "server"), ("a", "read", "timeout"), ("b", "seen", "timeout")):
            row = {"execution_id": ids[name], "dag_id": DAG, "dag_run_id": name, "agent_name": agent}
            told = {"category": category, "exception_type": "E", "message": "m", "action": "retry"}
            connection.execute(insert(workflow_errors).values(**row, **told))
    otto = await sign_in(http, "otto")
    assert await listed(http, otto, agent="seen") == ["b", "a"], "a skipped agent did not work"
    assert await listed(http, otto, error_category="timeout") == ["b", "a"]
    assert await listed(http, otto, error_agent="read") == ["a"]
    assert await listed(http, otto, error_category="timeout", error_agent="seen") == ["b"], (
        "one error has to match both filters"
    )
    assert await listed(http, await sign_in(http, "ulla"), error_category="timeout") == ["a"]
    refused = await http.get("/workflow-status", params={"error_category": "bad luck"}, headers=otto)
    assert refused.status_code == 422
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["?error_category"]


async def test_a_list_contains_no_inputs_and_outputs(http: httpx.AsyncClient, ulla: Headers, engine: Engine) -> None:
    run(engine, "success", result={"output": "x" * 1_000_000})
    answer = await http.get("/workflow-status", headers=ulla)
    assert len(answer.content) < 2_000
    assert answer.json()["executions"][0]["state"] == "success"
    assert answer.headers["cache-control"] == "no-store"


LEAVES = ["tasks", "agents", "errors", "result", "input"]
"""What a run's path may end in with a single segment more."""


@pytest.mark.parametrize("leaf", LEAVES)
async def test_a_dag_may_be_called_stream(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, engine: Engine, leaf: str
) -> None:
    more: dict[str, Any] = {"result": {"output": 1}, "tasks": (TaskState("a", -1, 1, "success"),) * 2}
    run(engine, "success", dag_id="stream", **more)
    run(engine, "success", **more)
    path = f"stream/run/{leaf}"
    for query in ("", "?task_id=a&limit=1", "?task_id=b", "?limit=0"):
        answer = await http.get(f"/workflow-status/{path}{query}", headers=ulla)
        other = await http.get(f"/workflow-status/{DAG}/run/{leaf}{query}", headers=ulla)
        assert (answer.status_code, answer.json()) == (other.status_code, other.json()), query
    assert (await http.head(f"/workflow-status/{path}", headers=ulla)).content == b""
    assert (await http.get(f"/workflow-status/{path}", headers=await sign_in(http, "uwe"))).status_code == 404
    assert (await http.get(f"/workflow-status/stream/none/{leaf}", headers=ulla)).status_code == 404
    airflow.fail("")
    assert (await http.get(f"/workflow-status/{path}", headers=ulla)).status_code == 200, "Airflow need not be there"


async def test_the_stream_of_a_run_precedes_runs_of_a_dag_called_stream(
    http: httpx.AsyncClient, ulla: Headers, engine: Engine
) -> None:
    run(engine, "success", dag_id="stream", result={"output": 1}, tasks=(TaskState("a", -1, 1, "success"),))
    for leaf in LEAVES:
        run(engine, "success", leaf)
        run(engine, "success", DAG, dag_id="stream")
    for path in ("stream/stream/run", *(f"stream/{DAG}/{leaf}" for leaf in LEAVES)):
        answer = await http.get(f"/workflow-status/{path}", headers=ulla)
        assert answer.headers["content-type"].startswith("text/event-stream"), path
    assert (await http.get("/workflow-status/stream/run", headers=ulla)).json()["dag_id"] == "stream"
    assert (await http.get("/workflow-status/stream/run/items/a", headers=ulla)).json()["items"] == []
    several = await http.get("/workflow-status/streams?run=stream/run", headers=ulla)
    assert "event: end" in several.text


async def test_a_result_is_returned_alone_and_complete(http: httpx.AsyncClient, ulla: Headers, engine: Engine) -> None:
    large = {"output": {"texts": ["ü" * 1_000] * 10_000}, "agent": "text", "cost_usd": 0.1}
    run(engine, "success", result=large)
    answer = await http.get(RESULT, headers=ulla)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert len(answer.content) > 20_000_000
    assert answer.json() == large


@pytest.mark.parametrize("state", ["running", "queued", "awaiting_input"])
async def test_an_unfinished_run_has_no_result_yet(
    http: httpx.AsyncClient, ulla: Headers, engine: Engine, state: str
) -> None:
    run(engine, "running", result={"output": "of the first of two agents"})
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE visual_ai.workflow_executions SET state = %s", (state,))
    for query in ("", "?partial=true"):
        answer = await http.get(RESULT + query, headers=ulla)
        assert answer.status_code == 409
        assert state in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("state", "said"), [("failed", "The run failed"), ("cancelled", "The run was cancelled")])
async def test_a_failed_runs_partial_result_is_returned_on_request_only(
    http: httpx.AsyncClient, ulla: Headers, engine: Engine, state: str, said: str
) -> None:
    run(engine, state, result={"output": "of the first of two agents"})
    answer = await http.get(RESULT, headers=ulla)
    assert answer.status_code == 409
    assert said in answer.json()["detail"]
    assert "partial=true" in answer.json()["detail"]
    assert "retry-after" not in answer.headers
    partial = await http.get(RESULT, params={"partial": True}, headers=ulla)
    assert (partial.status_code, partial.json()) == (200, {"output": "of the first of two agents"})


async def test_runs_without_a_result(http: httpx.AsyncClient, ulla: Headers, engine: Engine) -> None:
    run(engine, "success")
    assert (await http.get(RESULT, headers=ulla)).json() is None
    run(engine, "failed", "broken")
    answer = await http.get(RESULT.replace("/run/", "/broken/"), params={"partial": True}, headers=ulla)
    assert answer.status_code == 409
    assert "partial" not in answer.json()["detail"]


@pytest.mark.parametrize(
    ("username", "status"), [("ulla", 200), ("uwe", 404), ("victor", 200), ("otto", 200), ("anna", 200)]
)
@pytest.mark.parametrize("path", [RESULT, ITEMS])
async def test_another_users_results_and_items_are_not_found(
    http: httpx.AsyncClient, engine: Engine, path: str, username: str, status: int
) -> None:
    run(engine, "success", result=json.loads('{"output": 1}'), tasks=(TaskState("classify", -1, 1, "success"),))
    headers = await sign_in(http, username)
    answer = await http.get(path, headers=headers)
    assert answer.status_code == status
    if status == 404:
        unknown = await http.get(path.replace("/run/", "/none/"), headers=headers)
        assert unknown.json() == answer.json(), "the response is that for an unknown run"


async def test_items_are_paged(http: httpx.AsyncClient, ulla: Headers, engine: Engine) -> None:
    execution_id = run(engine, "success", tasks=(TaskState("classify", -1, 1, "success"),))
    place = Place(DAG, "run", "classify", -1, 1)
    kept = {
        "state": "success", "error": None, "category": None, "model": "m", "input_tokens": 1, "output_tokens": 1,
        "cost_usd": None, "latency_ms": 1.0, "trace_id": None,
    }  # fmt: skip
    with engine.begin() as connection:
        rows = [{"item_index": index, "output": {"n": index}, **kept} for index in range(5)]
        claim = threads.begin_one(connection, ClaimRequest(execution_id, "thread", 1, [], ""))
        batch_items.write(connection, execution_id, place, claim, rows)
    seen: list[int] = []
    after = -1
    while after is not None:
        page = (await http.get(ITEMS, params={"after": after, "limit": 2}, headers=ulla)).json()
        seen += [item["output"]["n"] for item in page["items"]]
        after = page["next_after"]
    assert seen == list(range(5))


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (ITEMS.replace("classify", "clasify"), "no task 'clasify'; it has classify"),
        (f"{ITEMS}?map_index=3", "'classify' is not mapped"),
        (f"{ITEMS}%00", "no task 'classify\\x00'"),
    ],
)
async def test_items_of_an_unknown_task_are_not_found(
    http: httpx.AsyncClient, ulla: Headers, engine: Engine, path: str, named: str
) -> None:
    run(engine, "success", tasks=(TaskState("classify", -1, 1, "success"),))
    answer = await http.get(path, headers=ulla)
    assert answer.status_code == 404
    assert named in answer.json()["detail"]


@pytest.mark.parametrize(
    "query", ["?map_index=-2", "?map_index=2147483648", "?after=2147483648", "?limit=0", "?limit=1001"]
)
async def test_invalid_item_queries_are_refused(http: httpx.AsyncClient, ulla: Headers, query: str) -> None:
    answer = await http.get(ITEMS + query, headers=ulla)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, query.partition("=")[0])
