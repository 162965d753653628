"""Runs that go on from a state of another run, in a real Airflow: what comes before is neither run nor paid for."""

import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.kit.openai.server import OpenAIServer
from tests.kit.runs import check_order, follow, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

GRAPH = "five_steps.five_steps"


def done(backend: httpx.Client, accepted: Mapping[str, Any]) -> dict[str, Any]:
    check_order(follow(backend, accepted))
    return snapshot(backend, accepted)


def calls(server: OpenAIServer, topic: str) -> int:
    """The calls about a topic, which each prompt begins with; earlier answers follow."""
    found = [re.search(r"Step \d of (\w+)", request.prompt) for request in server.requests]
    return sum(one is not None and one[1] == topic for one in found)


def test_a_run_goes_on_from_a_changed_state(backend: httpx.Client, openai_server: OpenAIServer) -> None:
    first = trigger(backend, GRAPH, {"topic": "knots"})
    assert len(done(backend, first)["result"]["output"]["answers"]) == 5
    place = f"/workflows/{GRAPH}/runs/{first['dag_run_id']}/tasks/graph"
    states = backend.get(f"{place}/checkpoints").json()["checkpoints"]
    before = next(state for state in states if state["next"] == ["step_4"])
    forked = backend.post(
        f"{place}/fork", json={"checkpoint_id": before["checkpoint_id"], "values": {"topic": "hitches"}}
    )
    assert forked.status_code == 202, forked.text
    now = done(backend, forked.json())
    assert now["forked_from"]["dag_run_id"] == first["dag_run_id"]
    assert now["result"]["output"]["topic"] == "hitches"
    assert len(now["result"]["output"]["answers"]) == 5
    assert (calls(openai_server, "knots"), calls(openai_server, "hitches")) == (5, 2)
    sides = {"left": f"{GRAPH}/{first['dag_run_id']}", "right": f"{GRAPH}/{forked.json()['dag_run_id']}"}
    compared = backend.get("/workflow-status/compare", params=sides).json()
    assert [change["pointer"] for change in compared["result_changes"]]


def test_an_instance_of_a_mapped_task_is_forked_and_the_others_keep_their_results(
    backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    first = trigger(backend, "forked_mapped", {})
    done(backend, first)
    place = f"/workflows/forked_mapped/runs/{first['dag_run_id']}/tasks/work"
    forked = backend.post(f"{place}/fork", json={"node": "step_5", "map_index": 1})
    assert forked.status_code == 202, forked.text
    now = done(backend, forked.json())
    assert now["state"] == "success"
    assert (calls(openai_server, "ebb"), calls(openai_server, "flood")) == (5, 6)
    results = backend.get(f"/workflow-status/forked_mapped/{forked.json()['dag_run_id']}/result").json()
    assert [one["output"]["topic"] for one in results] == ["ebb", "flood"]
