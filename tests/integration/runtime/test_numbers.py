"""Numbers come back as they were given, from wherever they are read."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langgraph.graph import END, START, StateGraph
from sqlalchemy import Engine
from typing_extensions import TypedDict

from backend.core.settings import Settings
from backend.db.engine import Database
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in
from tests.kit.recorded_runs import RecordedRun

DAG, RUN = "dag", "run"
NUMBERS: list[Any] = [
    0, 0.0, 1.0, 1.1, 1.10, 0.1 + 0.2, -1.5, 1e15, 1e16, 1e22, 1e23, -1e23, 1e300, 1.7976931348623157e308, 5e-324, 1e-7,
    2**53 + 1, 2**63 - 1, -(2**63), 123456789012345680.0,
]  # fmt: skip
RETURNED = [2**63 + 1, 2**64 - 1]
"""What a trigger refuses as an input, because Airflow can't hold it, but a graph may return."""


class State(TypedDict, total=False):
    """Some numbers."""

    given: Any
    found: Any


def give(state: State) -> State:
    return {"found": {"numbers": [*NUMBERS, *RETURNED], "given": state["given"], "zero": -0.0}}


numbers = StateGraph(State)
numbers.add_node("give", give)
numbers.add_edge(START, "give")
numbers.add_edge("give", END)


@pytest.fixture
async def http(database: Database, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    airflow = FakeAirflow()
    airflow.add_run(DAG, RUN, "success")
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app) as http:
        http.headers.update(await sign_in(http, "ulla"))
        yield http


async def test_numbers_come_back_as_they_were(
    http: httpx.AsyncClient, task_settings: Settings, database: Database, engine: Engine
) -> None:
    conf = {"numbers": NUMBERS, "_visual_ai": {"user_id": "ulla"}}
    async with AgentRunner(task_settings, database, TaskContext(DAG, RUN, "task", -1, 1, conf)) as runner:
        spec = parse_agent(None, {"given": NUMBERS}, graph=f"{__name__}:numbers")
        result = await run_single(runner, spec)
    assert repr(result["output"]["found"]["numbers"]) == repr([*NUMBERS, *RETURNED])
    assert repr(result["output"]["found"]["zero"]) == "-0.0"  # in XCom
    run = RecordedRun(engine, DAG, RUN)
    run.task("task", "success")
    run.is_now("success")
    path = f"/workflow-status/{DAG}/{RUN}"
    snapshot = json.loads((await http.get(path)).content)
    for found in (json.loads((await http.get(f"{path}/result")).content), snapshot["result"]):
        assert repr(found["output"]["found"]["numbers"]) == repr([*NUMBERS, *RETURNED])
        assert repr(found["output"]["given"]) == repr(NUMBERS)
        assert repr(found["output"]["found"]["zero"]) == "0.0"  # PostgreSQL has no other
    for agent in (await http.get(f"{path}/agents")).json()["agents"]:
        for side in ("input", "output"):
            value = json.loads((await http.get(f"{path}/traces/{agent['id']}/{side}")).content)
            assert repr(value.get("given", value.get("found", {}).get("given"))) == repr(NUMBERS)
