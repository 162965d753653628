"""Import rules that import-linter can't express; the others are its contracts in pyproject.toml.

The modules of `airflow/` are top-level modules: Airflow puts `config` and `plugins` on `sys.path`, and none of them is
in a package.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]

AIRFLOW_MAY_IMPORT = {
    "config": {"deployment.processes"},
    "dags": {"checkpoints.prune", "core", "observation.recording", "runtime.input_checks"},
    "plugins": {
        "agents.registry", "agents.tools", "core", "db.runs", "models.hidden_values", "models.resolve",
        "observation.tracing", "runtime", "services.notifications", "services.recording",
    },
}  # fmt: skip
"""The parts of `backend` that each folder of `airflow/` may use."""

AIRFLOW_MODULES = {path.stem for path in (ROOT / "airflow").rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """The absolute names of everything that a file imports, at any level of nesting."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("folder", AIRFLOW_MAY_IMPORT)
def test_airflow_uses_only_the_agreed_parts_of_the_backend(folder: str) -> None:
    allowed = {f"backend.{name}" for name in AIRFLOW_MAY_IMPORT[folder]}
    used = {
        (path.name, name)
        for path in (ROOT / "airflow" / folder).rglob("*.py")
        for name in imported(path)
        if within(name, {"backend"})
    }
    assert [(file, name) for file, name in sorted(used) if not within(name, allowed)] == []
    unused = [package for package in allowed if not any(within(name, {package}) for _, name in used)]
    assert unused == [], "remove these from AIRFLOW_MAY_IMPORT"


def test_every_folder_of_airflow_has_a_rule() -> None:
    folders = {path.relative_to(ROOT / "airflow").parts[0] for path in (ROOT / "airflow").rglob("*.py")}
    assert folders == set(AIRFLOW_MAY_IMPORT)


def test_the_backend_never_imports_modules_of_airflow() -> None:
    for path in (ROOT / "backend").rglob("*.py"):
        assert [name for name in imported(path) if within(name, AIRFLOW_MODULES)] == [], path


def test_what_runs_in_containers_does_not_import_the_laptops_launcher() -> None:
    graph = grimp.build_graph("backend", cache_dir=None)
    entries = {"backend.deployment.entrypoint", "backend.api.server"}
    for path in (ROOT / "airflow").rglob("*.py"):
        entries |= {
            module
            for name in imported(path)
            if within(name, {"backend"})
            for module in (name, name.rpartition(".")[0])
            if module in graph.modules
        }
    for entry in sorted(entries):
        needed = {entry, *graph.find_upstream_modules(entry)}
        assert not {name for name in needed if within(name, {"backend.stack", "backend.cli"})}, entry


def test_no_module_takes_part_in_an_import_cycle() -> None:
    graph = grimp.build_graph("backend", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as cycle:
        pytest.fail(" imports ".join(reversed(cycle.args[1])))
