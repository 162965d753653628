"""Users' own graphs run unchanged, with the same events, usage, checkpoints and results as built-in agents."""

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import Command
from sqlalchemy import text

from backend.core.budget import BudgetExceededError
from backend.core.errors.input_error import InputError
from backend.core.settings import Settings, get_settings
from backend.db.engine import Database
from backend.runtime.langgraph_json import GraphLoadError, check_reference
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.failures.raised import raises_failure
from tests.kit.graphs import foreign
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres

HERE = "tests.kit.graphs.foreign"
Run = Callable[..., Any]


@pytest.fixture
def run(pg: Postgres, database: Database) -> Run:
    """Runs a graph as the given try of the test's one task."""
    run_id = uuid.uuid4().hex

    async def run(graph: str, input_data: Any, *, try_number: int = 1, project: Path | None = None, **kw: Any) -> Any:
        settings = Settings(database_url_override=pg.worker_url, langgraph_json=str(project) if project else None)
        task = TaskContext("dag", run_id, "task", -1, try_number, {}, user="ann")
        async with AgentRunner(settings, database, task) as runner:
            return await run_single(runner, parse_agent(None, input_data, graph=graph, **kw))

    return run


async def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    async with database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


@pytest.mark.parametrize("graph", ["builder", "compiled", "factory", "resourceful"])
async def test_every_kind_of_graph_runs(run: Run, graph: str) -> None:
    result = await run(f"{HERE}:{graph}", {"value": 3})
    assert result["output"] == {"value": 8}
    assert result["agent"] == graph
    assert graph != "resourceful" or foreign.closed.pop() == "resourceful"


async def test_a_factory_receives_the_config_with_configurable(run: Run) -> None:
    result = await run(f"{HERE}:async_factory", {"value": 3}, configurable={"step": 10})
    assert result["output"] == {"value": 13}


async def test_a_factory_receives_the_run_that_the_graph_is_made_for(run: Run) -> None:
    config = {"tags": ["nightly"], "metadata": {"owner": "ops"}}
    result = await run(f"{HERE}:made_for_a_run", {}, context={"name": "English"}, config=config)
    assert result["output"]["said"].startswith("English for ann, ")
    assert "Store" in result["output"]["said"]
    assert result["output"]["config"] == {"tags": ["nightly"], "owner": "ops"}


@pytest.mark.parametrize("given", ["ahoy there", ["ahoy", "there"]])
async def test_a_graph_takes_any_json(run: Run, given: Any) -> None:
    assert (await run(f"{HERE}:shout", given))["output"] == "AHOY THERE"


async def test_a_graph_begins_where_a_command_says(run: Run) -> None:
    command = Command(update={"rounds": 3, "messages": []}, goto="step")
    result = await run("tests.kit.graphs.loops:whole", command)
    assert len(result["output"]["messages"]) == 3


async def test_the_step_limit_is_the_agents_before_the_graphs(run: Run) -> None:
    with raises_failure(BudgetExceededError, match="not done after 3 steps"):
        await run(f"{HERE}:loop", {"steps": 9, "items": []}, config={"recursion_limit": 3})


async def test_send_command_context_and_store_work(run: Run) -> None:
    result = await run(f"{HERE}:fanned", {"words": ["one", "three"]}, context={"name": "English"})
    assert result["output"]["verdict"] == "8 letters in English"
    assert result["output"]["memory"] == {"verdict": "8 letters in English"}


async def test_a_retry_runs_only_what_failed(run: Run, database: Database) -> None:
    foreign.runs.clear()
    foreign.failures["left"] = 1
    with raises_failure(RuntimeError, match="second node failed"):
        await run(f"{HERE}:builder", {"value": 3})
    result = await run(f"{HERE}:builder", {"value": 3}, try_number=2)
    assert result["output"] == {"value": 8}
    assert foreign.runs == ["add_one", "double", "double"]
    assert await rows(database, "SELECT category, node, exception_type FROM visual_ai.workflow_errors") == [
        ("internal", "double", "RuntimeError")
    ]


async def test_inner_models_and_tools_are_recorded_and_counted(
    run: Run, database: Database, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    openai_server.script(tool_calls=[{"name": "weather", "arguments": {"city": "Bristol"}}])
    openai_server.script(content="Take an umbrella to Bristol.")
    result = await run(f"{HERE}:nested", {"question": "What about Bristol?"})
    assert result["output"] == {"question": "What about Bristol?", "answer": "Take an umbrella to Bristol."}
    assert result["model"] == "openai:gpt-4.1-mini"
    assert result["usage"]["output_tokens"] > 0
    assert result["cost_usd"] > 0
    nodes = await rows(
        database,
        "SELECT node, model, output_tokens > 0 FROM visual_ai.agent_traces WHERE node IS NOT NULL ORDER BY started_at",
    )
    assert nodes == [
        ("inside", None, False),
        ("inside/chat", "openai:gpt-4.1-mini", True),
        ("inside/tools", None, False),
        ("inside/chat", "openai:gpt-4.1-mini", True),
    ]
    tokens = await rows(
        database, "SELECT payload ->> 'text' FROM visual_ai.workflow_events WHERE event_type = 'token' ORDER BY seq"
    )
    assert "".join(token for (token,) in tokens) == "Take an umbrella to Bristol."
    totals = await rows(database, "SELECT output_tokens, cost_usd > 0 FROM visual_ai.workflow_executions")
    assert totals == [(result["usage"]["output_tokens"], True)]


async def test_parts_of_the_output_can_be_renamed(run: Run) -> None:
    result = await run(f"{HERE}:builder", {"value": 3}, output_mapping={"answer": "value"})
    assert result["output"] == {"answer": 8}
    with raises_failure(InputError, match="output_mapping: 'nothing' leads nowhere"):
        await run(f"{HERE}:builder", {"value": 3}, try_number=2, output_mapping={"answer": "nothing"})


async def test_a_project_provides_graphs_environment_and_modules(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEP_OF_THE_PROJECT", raising=False)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "stepping_stone.py").write_text("import os\nSTEP = int(os.environ['STEP_OF_THE_PROJECT'])\n")
    (tmp_path / "agent.py").write_text(
        "from typing import TypedDict\n"
        "from langgraph.graph import StateGraph\n"
        "from stepping_stone import STEP\n"
        "class S(TypedDict):\n    value: int\n"
        "graph = StateGraph(S)\n"
        "graph.add_node('step', lambda s: {'value': s['value'] + STEP})\n"
        "graph.set_entry_point('step')\n"
    )
    (tmp_path / ".env").write_text("STEP_OF_THE_PROJECT=5\n")
    project = tmp_path / "langgraph.json"
    project.write_text(
        json.dumps(
            {"graphs": {"stepper": "./agent.py:graph"}, "env": ".env", "dependencies": ["./lib", "langgraph>=1"]}
        )
    )
    monkeypatch.setenv("VISUAL_AI_LANGGRAPH_JSON", str(project))
    get_settings.cache_clear()
    result = await run("stepper", {"value": 1}, project=project)
    get_settings.cache_clear()
    assert result["output"] == {"value": 6}
    os.environ.pop("STEP_OF_THE_PROJECT")


@pytest.mark.parametrize("package", ["import no_such_package", "raise SystemError('not here')"])
async def test_a_file_works_without_a_package_that_cannot_be_imported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    folder = tmp_path / f"package_{len(package)}"
    folder.mkdir()
    (folder / "__init__.py").write_text(package)
    (folder / "graph.py").write_text(f"from {HERE} import builder\n")
    project = tmp_path / "langgraph.json"
    project.write_text(json.dumps({"graphs": {"g": f"./{folder.name}/graph.py:builder"}, "dependencies": []}))
    monkeypatch.setenv("VISUAL_AI_LANGGRAPH_JSON", str(project))
    get_settings.cache_clear()
    foreign.failures["left"] = 0
    result = await run("g", {"value": 3}, project=project)
    get_settings.cache_clear()
    assert result["output"] == {"value": 8}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("tests.kit.no_such_module:graph", "there is no module 'tests.kit.no_such_module'"),
        (f"{HERE}:no_such_graph", "has no 'no_such_graph'"),
        (f"{HERE}:broken", "is a int; it has to be a graph"),
        (f"{HERE}:failing_factory", "failed to make its graph: KeyError"),
    ],
)
async def test_objects_that_are_not_graphs_are_rejected_without_a_retry(
    run: Run, database: Database, reference: str, message: str
) -> None:
    with raises_failure(InputError, match=message) as caught:
        await run(reference, {"value": 1})
    error = caught.value.error
    assert isinstance(error, InputError)
    assert error.field == "graph"
    assert await rows(database, "SELECT category, action FROM visual_ai.workflow_errors") == [("input", "fail")]


def test_references_are_checked_when_the_dag_is_parsed(tmp_path: Path) -> None:
    project = tmp_path / "langgraph.json"
    project.write_text(json.dumps({"graphs": {"known": "./agent.py:graph"}}))
    check_reference("known", str(project))
    for reference, file, message in [
        ("package.module:", None, "has to read 'package.module:attribute'"),
        ("", None, "has to be 'package.module:attribute'"),
        ("known", None, "VISUAL_AI_LANGGRAPH_JSON"),
        ("unknown", str(project), "there is no 'unknown'.*it has known"),
        ("known", str(tmp_path / "nothing.json"), "can't be read as a langgraph.json"),
    ]:
        with pytest.raises(GraphLoadError, match=message):
            check_reference(reference, file)


def test_missing_dependencies_are_named(tmp_path: Path) -> None:
    from backend.runtime.langgraph_json import activate

    project = tmp_path / "langgraph.json"
    project.write_text(json.dumps({"graphs": {"g": "./a.py:g"}, "dependencies": ["no-such-package>=2", "langgraph"]}))
    with pytest.raises(GraphLoadError, match="pip install no-such-package>=2"):
        activate(project)


def test_what_of_a_project_has_no_effect_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from backend.runtime.langgraph_json import activate

    project = tmp_path / "langgraph.json"
    more = {"auth": {"path": "./auth.py:auth"}, "ui": {}, "python_version": "3.11", "colour": "red", "env": "own.env"}
    project.write_text(json.dumps({"graphs": {"g": "./a.py:g"}, "dependencies": [], **more}))
    (tmp_path / ".env.example").write_text("HOME=\nKEY_OF_THE_PROJECT=\n")
    activate(project)
    assert [record.getMessage().removeprefix(f"{project}: ") for record in caplog.records] == [
        "'auth' has no effect: users sign in as Airflow says, and their rights are those that they have there",
        "'colour' has no effect",
        f"env of {project}: there is no file 'own.env' beside it; its example lists variables that aren't set: "
        "KEY_OF_THE_PROJECT",
    ]
