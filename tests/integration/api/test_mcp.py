"""Workflows as tools over MCP, with the SDK's own client over HTTP, with the caller's rights."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from fastapi import FastAPI
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent
from sqlalchemy import Engine

from backend.api.mcp import tools as mcp_tools
from tests.kit.airflow import FakeAirflow
from tests.kit.application import served, sign_in
from tests.kit.recorded_runs import RecordedRun
from tests.kit.waiting import eventually

DAG = "visual_ai_workflow"
INPUT = {"query": "What is this?", "image_url": "https://example.com/image.jpg"}


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    airflow.add_dag("sales.report", params={})
    airflow.add_dag("sales_report", params={})
    airflow.add_dag("get_run", params={})
    return airflow


@asynccontextmanager
async def connected(app: FastAPI, headers: Mapping[str, str], mode: str = "auto") -> AsyncIterator[Client]:
    async with (
        served(app) as address,
        httpx2.AsyncClient(headers=dict(headers), timeout=60) as http,
        Client(streamable_http_client(f"{address}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def content(result: CallToolResult) -> Any:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return json.loads(block.text)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_each_workflow_is_a_tool_with_its_schema(app: FastAPI, ulla: Mapping[str, str], mode: str) -> None:
    async with connected(app, ulla, mode) as client:
        found = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(found) == {"get_run", "get_run_2", DAG, "sales_report", "sales_report_2"}
    assert set(found[DAG].input_schema["properties"]) >= {"query", "image_url"}
    assert found[DAG].input_schema["type"] == "object"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_call_starts_a_run_and_returns_its_result(
    app: FastAPI,
    ulla: Mapping[str, str],
    airflow: FakeAirflow,
    engine: Engine,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp_tools, "REPORT_EVERY", 0.2)
    reported: list[tuple[float, str | None]] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        assert total == 100
        reported.append((progress, message))

    async def work() -> None:
        await eventually(lambda: airflow.runs)
        (run,) = airflow.runs.values()
        assert run.shown["conf"]["query"] == INPUT["query"]
        recorded = RecordedRun(engine, DAG, run.shown["dag_run_id"])
        recorded.is_now("running")
        await eventually(lambda: (0, "running") in reported)
        recorded.returns({"answer": "A boat."})
        recorded.is_now("success")

    async with connected(app, ulla, mode) as client:
        worker = asyncio.create_task(work())
        result = await client.call_tool(DAG, INPUT, progress_callback=report)
        await worker
    assert result.is_error is False
    assert content(result)["result"] == {"answer": "A boat."}
    assert result.structured_content == content(result)


async def test_a_run_that_asks_people_or_takes_too_long_is_returned_as_it_is(
    app: FastAPI, ulla: Mapping[str, str], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RecordedRun(engine, DAG)
    run.is_now("running")
    async with connected(app, ulla) as client:
        place = {"dag_id": DAG, "dag_run_id": "run"}
        assert content(await client.call_tool("get_run", {**place, "wait": 0.1}))["state"] == "running"
        run.task("ask", "awaiting_input")
        assert content(await client.call_tool("get_run", place))["state"] == "awaiting_input"
        run.is_now("failed")
        failed = await client.call_tool("get_run", place)
        assert (failed.is_error, content(failed)["state"]) == (True, "failed")
        wrong = await client.call_tool("get_run", {"dag_id": DAG, "wait": 10_000})
        assert wrong.is_error
        assert "/dag_run_id" in str(wrong.content)
        assert "/wait" in str(wrong.content)


async def test_what_a_workflow_does_not_take_is_told_to_the_model(app: FastAPI, ulla: Mapping[str, str]) -> None:
    async with connected(app, ulla) as client:
        refused = await client.call_tool(DAG, {**INPUT, "query": ""})
        assert refused.is_error
        assert "/input_data/query" in str(refused.content)
        with pytest.raises(MCPError, match="no tool 'nothing'"):
            await client.call_tool("nothing", {})


async def test_tools_follow_the_callers_rights(
    app: FastAPI, http: httpx.AsyncClient, ulla: Mapping[str, str], engine: Engine, airflow: FakeAirflow
) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    unsigned = await http.post("/mcp", json=body)
    assert unsigned.status_code == 401
    assert (await http.get("/mcp", headers=ulla)).status_code == 405
    viewer = await sign_in(http, "victor")
    async with connected(app, viewer) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["get_run"]
        with pytest.raises(MCPError, match="no tool"):
            await client.call_tool(DAG, INPUT)
    assert not airflow.runs
    RecordedRun(engine, DAG, user="somebody")
    async with connected(app, ulla) as client:
        hidden = await client.call_tool("get_run", {"dag_id": DAG, "dag_run_id": "run"})
    assert hidden.is_error
