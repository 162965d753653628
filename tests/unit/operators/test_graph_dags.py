"""A DAG for each graph of a project, with the form that its input needs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Param
from typer.testing import CliRunner

import visual_ai_graph_dags
from backend.__main__ import app
from backend.core.settings import get_settings
from backend.runtime.langgraph_json import Project, read_project
from backend.runtime.projects import manifest
from backend.runtime.projects.form import parameters
from backend.runtime.projects.library import Record, replace_current
from tests.kit.documents.snippets import snippet
from visual_ai_graph_dags import graph_dags, project_dags
from visual_ai_operators import LangGraphOperator

CODE = """
from dataclasses import dataclass
from enum import Enum
from langgraph.graph import MessagesState, StateGraph
from pydantic import BaseModel

class Tone(Enum):
    DRY = "dry"
    KIND = "kind"

class Place(BaseModel):
    city: str
    zip: str | None = None

class State(MessagesState):
    place: Place
    tone: Tone
    context: str
    handle: object

@dataclass
class Language:
    name: str = "en"

print("the project says hello")
graph = StateGraph(State, context_schema=Language)
graph.add_node("look", lambda state: {})
graph.add_node("act", lambda state: {})
graph.set_entry_point("look")
graph.add_edge("look", "act")
agent = graph.compile(interrupt_before=["act"])

def needy(config):
    return graph if config["configurable"].get("user") else 1 / 0
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the project, with a `flow.toml`, which the settings name then."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    folder = tmp_path / "my project"
    folder.mkdir()

    def write(flow: str | None = None, code: str = CODE, **graphs: str) -> Path:
        (folder / "code.py").write_text(code)
        places: dict[str, Any] = dict(graphs) or {
            "agent": {"path": "./code.py:agent", "description": "Looks and acts."}
        }
        file = folder / "langgraph.json"
        file.write_text(json.dumps({"graphs": places, "dependencies": ["."]}))
        if flow is not None:
            (folder / "flow.toml").write_text(flow)
        read_project.cache_clear()
        monkeypatch.setenv("VISUAL_AI_LANGGRAPH_JSON", str(file))
        get_settings.cache_clear()
        return file

    yield write
    get_settings.cache_clear()
    read_project.cache_clear()


def params(dag: DAG) -> dict[str, Any]:
    return {name: {"default": dag.params[name], **dag.params.get_param(name).schema} for name in dag.params}


def schedule(dag: DAG) -> Any:
    return dag.schedule


def task(dag: DAG) -> LangGraphOperator:
    (task,) = dag.tasks
    assert isinstance(task, LangGraphOperator)
    return task


def test_a_graphs_input_and_context_become_parameters_that_may_be_left_out(write: Write) -> None:
    write()
    (dag_id,) = graph_dags()
    assert dag_id == "my_project.agent"
    dag = graph_dags()[dag_id]
    found = params(dag)
    assert set(found) == {"messages", "place", "tone", "context", "handle", "graph_context"}
    assert found["messages"]["type"] == ["null", "array", "string"]
    assert found["place"]["properties"]["city"]["type"] == "string"
    assert found["tone"]["enum"] == ["dry", "kind", None]
    assert found["graph_context"]["properties"]["name"]["type"] == ["null", "string"]
    assert found["graph_context"]["default"] == {"name": "en"}
    dag.params.validate()
    assert schedule(dag) is None
    assert dag.description == "Looks and acts."
    assert "act" in str(dag.doc_md)
    assert len(json.dumps(found)) < 8_000, "LangChain's schema of messages alone has 20 KB"


def test_a_run_gives_the_graph_what_it_was_given(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    operator = task(graph_dags()["my_project.agent"])
    monkeypatch.setattr(LangGraphOperator, "execute", lambda self, _context: {"given": self.input_data})
    conf = {
        "graph_context": {"name": "de"},
        "configurable": {"user": "ann"},
        "_visual_ai": {"user_id": "ann"},
        "tone": None,
    }
    run: Any = {"params": {"place": {"city": "Bonn"}, "tone": "dry"}, "dag_run": SimpleNamespace(conf=conf)}
    assert operator.execute(run) == {"given": {"place": {"city": "Bonn"}}}
    assert (operator.context, operator.configurable) == ({"name": "de"}, {"user": "ann"})


def test_flow_toml_says_how_airflow_runs_the_graphs(write: Write) -> None:
    flow = """
        [flow]
        owner = "research"
        retries = 5
        tags = ["nightly"]
        configurable = { user = "ann" }

        [flow.agent]
        dag_id = "sailing"
        schedule = "0 6 * * *"
        pool = "models"
        timeout = 30
        budget = { max_cost_usd = 1.5 }
        input = { tone = "kind" }

        [flow.second]
        schedule = ["s3://bucket/pictures"]
        retries = 0
    """
    write(flow, agent="./code.py:agent", second="./code.py:needy")
    first, second = graph_dags().values()
    assert (first.dag_id, schedule(first), first.params["tone"]) == ("sailing", "0 6 * * *", "kind")
    operator = task(first)
    assert (operator.owner, operator.pool, operator.retries, operator.timeout) == ("research", "models", 5, 30)
    assert operator.budget == {"max_cost_usd": 1.5}
    assert first.tags == {"langgraph", "nightly"}
    assert (second.dag_id, task(second).retries) == ("my_project.second", 0)
    assert [asset.uri for asset in schedule(second)] == ["s3://bucket/pictures"]
    assert second.params["configurable"] == {"user": "ann"}
    assert set(params(second)) > {"messages"}, "it was made with what flow.toml says"


def test_the_documented_settings_have_an_effect(write: Write) -> None:
    write(snippet("flow-toml"))
    (dag,) = graph_dags().values()
    assert (dag.dag_id, schedule(dag)) == ("news_agent", "0 6 * * *")
    assert dag.params["messages"] == "What happened yesterday?"
    dag.params.validate()


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        ("[flow]\nretrys = 3", "flow.retrys: is no key that has an effect; did you mean 'retries'?"),
        ("[flow.agnet]\nretries = 3", "flow.agnet: is no graph that has an effect; did you mean 'agent'?"),
        ("[flow.agent]\nretries = -1", "flow.agent.retries: has to be a whole number from 0"),
        ("[flow.agent]\nbudget = { max_cost = 1 }", "flow.agent.budget"),
        ("[flow.agent]\nschedule = 5", "flow.agent.schedule: has to be a text"),
        ("[other]", "has no section [flow]"),
        ("[flow", "can't be read"),
    ],
)
def test_what_is_wrong_with_flow_toml_is_named_with_its_place(write: Write, flow: str, message: str) -> None:
    write(flow)
    with pytest.raises(ValueError, match=r".") as raised:
        graph_dags()
    assert message in str(raised.value)


def test_a_project_is_imported_once_for_each_version_of_its_files(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports: list[Path] = []
    imported = manifest._imported

    def counted(project: Project) -> dict[str, Any]:
        imports.append(project.file)
        return imported(project)

    monkeypatch.setattr(manifest, "_imported", counted)
    write()
    graph_dags()
    graph_dags()
    assert len(imports) == 1
    write(code=CODE.replace("tone: Tone", "voice: Tone"))
    (dag,) = graph_dags().values()
    assert len(imports) == 2
    assert "voice" in dag.params
    # A task's process parses the file for its own DAG, and never imports the project for that.
    monkeypatch.setattr(visual_ai_graph_dags, "get_parsing_context", lambda: SimpleNamespace(dag_id=dag.dag_id))
    write(code=CODE.replace("print(", "str("))
    assert list(graph_dags()) == [dag.dag_id]
    assert len(imports) == 2


def test_what_a_project_lacked_may_be_there_later(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(code=f"import os\nos.environ['KEY_OF_THE_TEST']\n{CODE}")
    (dag,) = graph_dags().values()
    assert "KEY_OF_THE_TEST" in str(dag.doc_md)
    monkeypatch.setenv("KEY_OF_THE_TEST", "x")
    (dag,) = graph_dags().values()
    assert "KEY_OF_THE_TEST" in str(dag.doc_md), "it is not imported for each parse"
    monkeypatch.setattr(manifest, "RETRY_SECONDS", 0.0)
    (dag,) = graph_dags().values()
    assert "place" in dag.params
    write(code="import os\nos._exit(3)")
    for _ in range(2):
        with pytest.raises(ValueError, match="ended with 3"):
            graph_dags()
    write()
    assert CliRunner().invoke(app, ["projects", "check", str(file)]).exit_code == 0
    assert len(list((file.parents[1] / "airflow" / "graph_descriptions").iterdir())) == 1


@pytest.mark.parametrize(
    ("code", "problem"),
    [("raise ImportError('no such thing')", "no such thing"), ("import os\nos._exit(3)", "ended with 3")],
)
def test_a_graph_that_cannot_be_loaded_says_so(write: Write, code: str, problem: str) -> None:
    file = write(code=code)
    said = CliRunner().invoke(app, ["projects", "check", str(file)])
    assert said.exit_code in (1, 2)
    assert problem in said.output
    if said.exit_code == 1:
        (dag,) = graph_dags().values()
        assert problem in str(dag.doc_md)
        assert "configurable" in dag.params
    else:
        with pytest.raises(ValueError, match=problem):
            graph_dags()


def test_a_command_says_what_a_project_contains(write: Write) -> None:
    file = write()
    said = CliRunner().invoke(app, ["projects", "check", str(file.parent)])
    assert said.exit_code == 0, said.output
    for text in (
        "agent: the DAG my_project.agent",
        "messages, place, tone, context, handle",
        "look, act",
        "stops at  act",
    ):
        assert text in said.output
    (graph,) = json.loads(CliRunner().invoke(app, ["projects", "check", str(file), "--json"]).output)
    assert (graph["name"], graph["dag_id"], graph["error"]) == ("agent", "my_project.agent", None)


def test_without_a_project_there_are_no_dags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL_AI_LANGGRAPH_JSON", raising=False)
    get_settings.cache_clear()
    assert graph_dags() == {}


def install(folder: Path, name: str, graphs: dict[str, Any], flow: str = "") -> None:
    """An added project, as far as DAG files look at it."""
    version = folder / name / "1"
    source = version / "source"
    source.mkdir(parents=True)
    (source / "langgraph.json").write_text(json.dumps({"graphs": dict.fromkeys(graphs, "./code.py:agent")}))
    (source / "flow.toml").write_text(f"[flow]\n{flow}")
    (version / "graphs.json").write_text(json.dumps(graphs))
    replace_current(folder / name, Record("/somewhere", "1", "langgraph.json", "2026-01-31T12:00:00+00:00"))


def test_added_projects_have_dags_at_the_next_parse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "projects"
    monkeypatch.setenv("VISUAL_AI_PROJECTS_DIR", str(folder))
    get_settings.cache_clear()
    assert project_dags() == {}
    schema = {"properties": {"question": {"type": "string"}}}
    described = {"input_schema": schema, "nodes": ["look"], "asks": ["look"], "error": None}
    install(folder, "news", {"agent": described, "broken": {"error": "it needs a key"}}, "retries = 7")
    dags = project_dags()
    assert set(dags) == {"news.agent", "news.broken"}
    dag = dags["news.agent"]
    assert set(params(dag)) == {"question"}
    assert task(dag).graph == "news/agent"
    assert task(dag).retries == 7
    assert "It stops to ask people at look." in str(dag.doc_md)
    assert "it needs a key" in str(dags["news.broken"].doc_md)

    install(folder, "other", {"agent": described}, 'dag_id = "news.agent"')
    install(folder, "wrong", {"agent": described}, "retry = 7")
    assert set(project_dags()) == {"news.agent", "news.broken"}
    assert "the project other has no DAGs: there is another DAG 'news.agent'" in caplog.text
    assert "the project wrong has no DAGs" in caplog.text
    assert "did you mean 'retries'?" in caplog.text


def test_a_reference_to_an_added_project_is_checked_when_a_dag_is_parsed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("VISUAL_AI_PROJECTS_DIR", str(tmp_path))
    get_settings.cache_clear()
    install(tmp_path, "news", {"agent": {}})
    assert LangGraphOperator(task_id="a", graph="news/agent").graph == "news/agent"
    with pytest.raises(ValueError, match="the project news has no graph 'agnet'; it has agent"):
        LangGraphOperator(task_id="b", graph="news/agnet")
    with pytest.raises(
        ValueError, match=r"there is no project 'sports': add it with `projects add`; there are .*: news"
    ):
        LangGraphOperator(task_id="c", graph="sports/agent")
    get_settings.cache_clear()


@pytest.mark.parametrize(
    "field",
    [
        {"allOf": [{"$ref": "#/$defs/Size"}], "title": "Size"},
        {"type": "object", "not": {"required": ["x"]}},
        {"const": "fixed"},
        {"enum": [1, 2]},
        {"oneOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#/$defs/Size"}}]},
        {"$ref": "#/$defs/Gone"},
        {"type": ["integer", "string"], "format": "date-time"},
        {},
        True,
    ],
)
def test_every_field_may_be_left_out(field: Any) -> None:
    schema = {"properties": {"field": field}, "$defs": {"Size": {"type": "object", "required": ["width"]}}}
    (found,) = parameters(schema, {}).values()
    default = found.pop("default")
    assert Param(default, **found).resolve() is None


def test_a_schema_without_end_is_cut() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    schema = {"properties": {"root": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}}
    assert len(json.dumps(parameters(schema, {}))) < 1_000
