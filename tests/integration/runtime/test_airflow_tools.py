"""Tools that agents get through Airflow: an MCP server by its connection, and common-ai's toolsets."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput
from sqlalchemy import Engine

from backend.db import questions
from backend.db.address import plain_url
from backend.db.questions import Given
from tests.integration.runtime.test_parking import asked_airflow, context, questions_of
from tests.kit.documents.snippets import snippet
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.mcp_tools import ToolServer, tool_server
from tests.kit.servers.postgres import Postgres
from visual_ai_operators import LangGraphOperator, MultiAgentOperator

__all__ = ["asked_airflow"]  # a fixture
Person = Callable[[], None]


@pytest.fixture
def weather(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToolServer]:
    with tool_server() as server:
        connection = {"conn_type": "mcp", "host": server.url, "extra": {"transport": "http"}}
        monkeypatch.setenv("AIRFLOW_CONN_WEATHER", json.dumps(connection))
        yield server


@pytest.fixture(autouse=True)
def model(openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")


def operator(*tools: Any, **more: Any) -> LangGraphOperator:
    return LangGraphOperator(
        task_id=more.pop("task_id", "ask"),
        agent_config={"type": "text", "tools": list(tools)},
        input_data={"text": "What to wear in Lima?"},
        model="openai:gpt-4.1",
        **more,
    )


def wants(server: OpenAIServer, name: str, **arguments: Any) -> None:
    server.script(tool_calls=[{"name": name, "arguments": arguments}])


def test_an_mcp_servers_tools_need_approval_unless_the_dag_says_otherwise(
    asked_airflow: list[Person], weather: ToolServer, openai_server: OpenAIServer, engine: Engine
) -> None:
    free = {"mcp": "weather", "only": ["forecast"], "approval": "never", "repeatable": True}
    task = operator(free, {"mcp": "weather", "only": ["order_umbrella"]}, deferrable=True)
    wants(openai_server, "forecast", town="Lima")
    wants(openai_server, "order_umbrella", colour="red")
    openai_server.script(content="Take the umbrella.")
    asked_airflow.append(lambda: None)
    with pytest.raises(TaskAwaitingInput):
        task.execute(context())
    assert weather.effects == [("forecast", "Lima")]
    with engine.begin() as connection:
        (row,) = questions_of(connection)
        assert row["content"]["action_requests"][0] == {
            "name": "order_umbrella",
            "args": {"colour": "red"},
            "description": "Order an umbrella.",
        }
        approval = {"decisions": [{"type": "approve"}]}
        assert questions.answer(connection, str(row["id"]), Given(approval, "approve", "ulla", "api"))
    result = task.resume_answered(context(), {"chosen_options": ["Answered"]})
    assert result["output"]["answer"] == "Take the umbrella."
    assert weather.effects == [("forecast", "Lima"), ("order_umbrella", "red")]
    assert "It rains in Lima." in openai_server.requests[1].prompt


def test_tools_that_talk_to_airflow_keep_a_deferrable_task_in_a_worker() -> None:
    with DAG("tools", schedule=None):
        tools: tuple[Any, ...] = ("a.b:c", {"mcp": "weather"})
        alone = [operator(tool, deferrable=True, task_id=f"ask_{number}") for number, tool in enumerate(tools)]
        teams = [
            MultiAgentOperator(
                task_id=f"team_{number}",
                agents=[{"name": "a", "type": "text", "tools": [tool], "input_data": {"text": "x"}}],
                deferrable=True,
            )
            for number, tool in enumerate(tools)
        ]
    assert [task.start_from_trigger for task in (*alone, *teams)] == [True, False, True, False]


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ({"mcp": "nothing"}, r"agent_config.tools\[0\].mcp: .*nothing"),
        ({"mcp": "weather", "only": ["snow"]}, r"snow is not among its tools: forecast, order_umbrella"),
        ({"toolset": "builtins:list"}, "is no toolset, but list"),
        (
            {"toolset": "builtins:list", "arguments": {"x": 1}},
            r"agent_config.tools\[0\].arguments: builtins:list can't",
        ),
    ],
)
def test_what_is_wrong_with_a_toolset_is_named(
    asked_airflow: list[Person], weather: ToolServer, openai_server: OpenAIServer, tool: Any, said: str
) -> None:
    with pytest.raises(AirflowFailException, match=said):
        operator(tool).execute(context())
    assert openai_server.requests == []


def test_a_server_that_is_away_is_worth_a_retry(
    asked_airflow: list[Person], openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "mcp", "host": "http://127.0.0.1:9/mcp", "extra": {"transport": "http"}}
    monkeypatch.setenv("AIRFLOW_CONN_WEATHER", json.dumps(connection))
    with pytest.raises(ConnectionError, match="doesn't say which tools"):
        operator({"mcp": "weather"}).execute(context())


def test_airflows_databases_are_tools(
    asked_airflow: list[Person], pg: Postgres, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_STORE", plain_url(pg.worker_url))
    sql = {
        "toolset": "airflow.providers.common.ai.toolsets.sql:SQLToolset",
        "arguments": {"db_conn_id": "store"},
        "only": ["query"],
        "repeatable": True,
    }
    wants(openai_server, "query", sql="SELECT 6 * 7 AS answer")
    openai_server.script(content="42.")
    assert operator(sql).execute(context())["output"]["answer"] == "42."
    assert '"answer"' in openai_server.requests[1].prompt
    assert "42" in openai_server.requests[1].prompt


def test_the_documented_tools_are_accepted() -> None:
    names: dict[str, Any] = {"LangGraphOperator": LangGraphOperator}
    exec(snippet("tools"), names)  # noqa: S102  # it is ours
    assert names["support"].task_id == "support"
