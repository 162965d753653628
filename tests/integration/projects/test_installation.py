"""Projects are added, updated, rolled back and removed, and what is wrong with one is said with the remedy."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backend.core.settings import get_settings
from backend.doctor.projects import app
from backend.runtime.projects.library import find_installed, installed

GRAPH = """
from typing import TypedDict
from langgraph.graph import END, START, StateGraph

class State(TypedDict, total=False):
    value: int

graph = StateGraph(State)
graph.add_node("{node}", lambda state: {{"value": 1}})
graph.add_edge(START, "{node}")
graph.add_edge("{node}", END)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of projects."""
    folder = tmp_path / "projects"
    monkeypatch.setenv("VISUAL_AI_PROJECTS_DIR", str(folder))
    get_settings.cache_clear()
    yield folder
    get_settings.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small project, which needs nothing but LangGraph."""
    source = tmp_path / "small"
    source.mkdir()
    write(source)
    return source


def write(source: Path, *, node: str = "first", graph: str = "./graph.py:graph", **keys: Any) -> None:
    (source / "graph.py").write_text(GRAPH.format(node=node))
    (source / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": {"agent": graph}, **keys}))


def projects(*arguments: str, code: int = 0) -> str:
    ended = CliRunner().invoke(app, [*arguments])
    assert ended.exit_code == code, ended.output
    return ended.output


def test_a_project_is_added_updated_rolled_back_and_removed(folder: Path, source: Path) -> None:
    said = projects("add", str(source))
    assert "agent: the DAG small.agent" in said
    assert "input     value" in said
    first = find_installed(folder, "small").record.version
    assert "already" in projects("update", "small")

    write(source, node="second")
    assert "nodes     second" in projects("update", "small")
    second = find_installed(folder, "small").record
    assert second.version != first
    assert f"version   {second.version} of {second.added_at}, before it {first}" in projects("list")
    assert "nodes     first" in projects("update", "small", "--rollback")
    assert find_installed(folder, "small").record.version == first
    assert "nodes     second" in projects("update", "small", "--rollback")

    write(source, node="third")
    projects("update", "small")
    assert not (folder / "small" / first).exists()  # only one former version is kept
    assert (folder / "small" / second.version).exists()

    projects("remove", "small")
    assert installed(folder) == {}
    assert not (folder / "small").exists()


def test_airflow_looks_at_each_change_at_once(
    folder: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "dags" / "project_dags.py"
    file.parent.mkdir()
    file.touch()
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(file.parent))
    for command in (("add", str(source)), ("update", "small"), ("remove", "small")):
        os.utime(file, (1, 1))
        projects(*command)
        assert file.stat().st_mtime > 1, command
    file.unlink()
    projects("add", str(source))
    assert not file.exists(), "what isn't there is nobody's to make"


def test_a_failed_update_changes_nothing(folder: Path, source: Path) -> None:
    projects("add", str(source))
    before = find_installed(folder, "small")
    write(source, dependencies=[".", "langgraph<1"])
    assert "LangGraph Flow runs LangGraph 1.x only" in projects("update", "small", code=2)
    assert find_installed(folder, "small") == before
    assert {one.name for one in (folder / "small").iterdir()} == {before.record.version, "current.json"}


def test_a_repository_is_cloned(folder: Path, source: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository.git"
    inside = repository / "apps" / "small"
    inside.parent.mkdir(parents=True)
    shutil.copytree(source, inside)
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "First"]):
        subprocess.run([*git, *command], check=True)
    assert "repository.agent" in projects("add", f"file://{repository}#main")
    assert find_installed(folder, "repository").record.source == f"file://{repository}#main"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("http://example.com/a.git", "SOURCE: http://example.com/a.git has to be an https:// address"),
        ("https://ann:secret@example.com/a.git", "SOURCE: has credentials in it"),
        ("git@example.com:a/b.git", "has to be an https:// address"),
        ("/nowhere/at/all", "SOURCE: /nowhere/at/all is neither a folder nor a https:// address"),
    ],
)
def test_a_source_that_is_refused(folder: Path, given: str, message: str) -> None:
    said = projects("add", given, code=2)
    assert message in said
    assert "secret" not in said
    assert installed(folder) == {}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"python_version": "3.7"}, "python_version: Python 3.7 can't be had"),
        ({"dependencies": ["./nothing"]}, "dependencies: there is no folder ./nothing"),
        ({"pip_config_file": "pip.conf"}, "pip_config_file: there is no file pip.conf"),
        ({"dependencies": [".", "langgraph-flow-has-no-such-package"]}, "dependencies: can't be installed"),
        ({"graphs": "agent"}, "can't be read as a langgraph.json"),
    ],
)
def test_a_project_that_is_refused(folder: Path, source: Path, keys: dict[str, Any], message: str) -> None:
    write(source, **keys)
    assert message in projects("add", str(source), code=2)
    assert installed(folder) == {}


def test_a_graph_that_cannot_run_is_named_and_the_others_run(folder: Path, source: Path) -> None:
    write(source, graphs={"agent": "./graph.py:graph", "page": "./agent.ts:graph"}, auth={"path": "./auth.py:auth"})
    said = projects("add", str(source), code=1)
    assert "problem   ./agent.ts is JavaScript, which can't run here" in said
    assert "'auth' has no effect: users sign in as Airflow says" in said
    assert "nodes     first" in said
    assert "nodes     first" in projects("check", "small", code=1)


def test_a_name_is_taken_only_once(folder: Path, source: Path) -> None:
    projects("add", str(source), "--name", "one")
    assert "NAME: is taken: update the project with `projects update one`" in projects(
        "add", str(source), "--name", "one", code=2
    )
    assert "NAME: is 'a/b'" in projects("add", str(source), "--name", "a/b", code=2)


def test_a_package_that_cannot_be_installed_is_imported_from_its_folder(folder: Path, source: Path) -> None:
    (source / "pyproject.toml").write_text('[project]\nname = "small"\nversion = "1"\ndependencies = ["langgraph"]\n')
    for name in ("one", "two"):  # setuptools finds several packages, and takes none
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    assert "note      it can't be installed as a package" in projects("add", str(source))


def test_what_graphs_do_is_found_out_in_their_environment(projects_folder: Path) -> None:
    graphs = json.loads(find_installed(projects_folder, "pinned").graphs_file.read_text())
    assert graphs["steps"]["nodes"] == ["first", "second"]
    assert graphs["asking"]["asks"] == ["ask"]
    assert graphs["stopping"]["breakpoints"] == ["ask"]
