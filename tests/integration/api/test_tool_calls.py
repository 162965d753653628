"""The ledger of tool calls through the API."""

import uuid
from collections.abc import Mapping

import httpx
from sqlalchemy import Engine

from backend.db import tool_calls
from backend.db.runs import threads
from backend.db.runs.threads import ClaimRequest
from backend.db.runs.traces import Place
from backend.db.tool_calls import CallKey
from tests.kit.recorded_runs import RecordedRun

DAG = "visual_ai_workflow"
PATH = f"/workflow-status/{DAG}/run/tool-calls"


async def test_calls_are_listed_and_those_without_an_outcome_found(
    http: httpx.AsyncClient, ulla: Mapping[str, str], engine: Engine, worker: Engine
) -> None:
    run = RecordedRun(engine, DAG)
    place = Place(DAG, "run", "ask", -1, 1, "text", "text")
    with worker.begin() as connection:
        claim = threads.begin_one(connection, ClaimRequest(run.id, "thread", 1, ["thread"], "hash"))
        for number in range(5):
            key = CallKey("thread", f"tool:{number}", 1)
            about = {"call_id": f"call_{number}", "agent": "text", "tool": "pay", "arguments": {"amount": number}}
            tool_calls.claim(connection, run.id, place, claim, key, str(uuid.uuid4()), about)
            if number != 3:
                tool_calls.finish(connection, key, failed=number == 1, result="paid")
    pages, query = [], {"limit": "2"}
    while True:
        page = (await http.get(PATH, params=query, headers=ulla)).json()
        pages.append([(one["call_id"], one["state"]) for one in page["tool_calls"]])
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    states = ["success", "failed", "success", "begun", "success"]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [one for page in pages for one in page] == [(f"call_{n}", state) for n, state in enumerate(states)]
    (unknown,) = (await http.get(PATH, params={"state": "begun"}, headers=ulla)).json()["tool_calls"]
    assert (unknown["tool"], unknown["arguments"], unknown["finished_at"]) == ("pay", {"amount": 3}, None)
    assert (await http.get(PATH, params={"cursor": "x"}, headers=ulla)).status_code == 422
