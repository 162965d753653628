"""The documents: links resolve, every code block has a test, and what can't be run refers only to things that exist.

tests/e2e/test_readme.py runs the code blocks that can be run.
"""

import ast
import re
import shlex
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from dotenv import dotenv_values

from backend.__main__ import app as command_line
from backend.core.settings import Settings
from backend.db.schema import metadata
from backend.deployment.options import StackOptions
from tests.architecture.test_layout import CONTRACT
from tests.kit.documents.pages import DOCUMENTS, Document, tree_paths
from tests.kit.documents.snippets import SNIPPETS, found, snippet
from tests.kit.processes.stack import ROOT

README = DOCUMENTS[0]
LINKED = [*DOCUMENTS, Document("frontend/README.md")]
COMPOSE_FILE = "docker/docker-compose.airflow.yml"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / COMPOSE_FILE).read_text())
SERVICES = set(COMPOSE["services"])
EXAMPLE = set(re.findall(r"^(?:# )?([A-Z_][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
DAGS = set(re.findall(r'dag_id="(\w+)"', "".join(path.read_text() for path in ROOT.glob("airflow/dags/*.py"))))

# The integration guide's section titles, so that a reader who follows the guide finds each of them.
GUIDE = """
Overview; Quick Start; 1. Prerequisites; 2. Environment Setup; 3. Start the Services; 4. Access the Services;
Project Structure; Key Features; 1. Triggering Workflows via API; 2. Real-time Status Monitoring;
3. Custom Airflow Operators; 4. Error Handling and Retry Logic; 5. Monitoring Dashboard; Database Schema;
Development Workflow; 1. Creating New DAGs; 2. Testing DAGs Locally; 3. Debugging; Production Deployment;
1. Kubernetes Deployment; 2. Scaling Considerations; 3. Security; Troubleshooting; Common Issues; Getting Help;
Next Steps
"""


def test_every_code_block_has_a_name() -> None:
    """A new block needs an entry in tests/kit/documents/snippets.py and a test that uses it."""
    for block in chain.from_iterable(document.blocks for document in DOCUMENTS):
        names = [name for name, candidate in SNIPPETS.items() if candidate.matches(block)]
        assert len(names) == 1, f"{block}: {names or 'this block has no name'}"


@pytest.mark.parametrize("name", SNIPPETS)
def test_every_name_matches_exactly_one_block(name: str) -> None:
    assert len(found(name)) == 1


def test_every_code_block_has_a_test() -> None:
    used = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "snippet":
                used |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    assert SNIPPETS.keys() - used == set()


@pytest.mark.parametrize("document", LINKED, ids=lambda document: str(document.name))
def test_links_resolve(document: Document) -> None:
    for link in document.links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document.name).parent / path if path else ROOT / document.name
        assert target.exists(), f"{document.name}: {link}"
        if anchor:
            name = str(target.resolve().relative_to(ROOT))
            assert anchor in Document(name).anchors, f"{document.name}: {link}"


def test_the_readme_has_the_guides_sections_in_order() -> None:
    expected = [title.strip() for title in GUIDE.replace("\n", " ").split(";")]
    assert [heading for heading in README.headings if heading in expected] == expected


def test_every_path_in_the_trees_exists() -> None:
    created_at_run_time = {Path("airflow/logs")}
    drawn = {path.relative_to("langgraph-flow") for path in tree_paths(snippet("tree"))} | tree_paths(snippet("places"))
    assert {"backend/api/workflow_triggers.py", "airflow/plugins/visual_ai_triggers.py"} <= {
        str(path) for path in drawn
    }
    assert [path for path in drawn - created_at_run_time if not (ROOT / path).exists()] == []


def test_every_module_in_the_flow_diagram_exists() -> None:
    for name in re.findall(r"\[backend/(\S+?)\]", snippet("flow-diagram")):
        path = ROOT / "backend" / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists(), name
    for name in re.findall(r"\[services\.([\w.]+)\]", snippet("flow-diagram")):
        assert (ROOT / "backend" / "services" / f"{name.replace('.', '/')}.py").exists(), name


@pytest.mark.parametrize("document", LINKED, ids=lambda document: str(document.name))
def test_every_path_in_the_text_exists(document: Document) -> None:
    known = {path.name for path in ROOT.iterdir()} - {".venv", ".stack", ".node", ".env"}
    for word in document.inline:
        top, slash, _ = word.partition("/")
        if slash and top in known and re.fullmatch(r"[\w./-]+", word) and word.rstrip("/") != "airflow/logs":
            path = ROOT / word
            assert path.exists() or path.is_symlink(), f"{document.name}: {word}"


@pytest.mark.parametrize("document", LINKED, ids=lambda document: str(document.name))
def test_every_command_in_the_text_exists(document: Document) -> None:
    code = [*document.inline, *(block.text for block in document.blocks if block.language == "bash")]
    text = "\n".join(code)
    assert set(re.findall(r"\bmake (?:-s )?([a-z][a-z-]*)\b", text)) <= TARGETS
    commands = set(typer.main.get_command(command_line).commands)  # type: ignore[attr-defined]  # a group
    assert set(re.findall(r"-m backend ([a-z]+)", text)) <= commands
    scripts = set(yaml.safe_load((ROOT / "frontend" / "package.json").read_text())["scripts"])
    assert set(re.findall(r"npm run ([\w:]+)", text)) <= scripts


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.name))
def test_every_variable_in_the_text_is_in_the_example(document: Document) -> None:
    text = "\n".join(
        [*document.inline, *(block.text for block in document.blocks if block.language in ("bash", "env"))]
    )
    named = set(
        re.findall(r"\b_?(?:VISUAL_AI|OPENAI|LANGFUSE|AIRFLOW|POSTGRES|REDIS|COMPOSE)_[A-Z0-9_]*[A-Z0-9]\b", text)
    )
    others = {
        "AIRFLOW__KUBERNETES",
        "AIRFLOW__CELERY__BROKER_URL",
        "LANGFUSE_MEDIA_UPLOAD_ENABLED",
    }  # Airflow's, Langfuse's
    assert {name for name in named if name not in EXAMPLE and f"_{name}" not in EXAMPLE} <= others


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.name))
def test_every_api_path_in_the_text_exists(document: Document) -> None:
    known = {(method, re.sub(r"\{\w+\}", "*", path)) for method, path in CONTRACT}
    for word in document.inline:
        match = re.match(r"((?:GET|POST|PUT)(?:, (?:GET|POST))*) (/[\w/{}-]*)", word)
        if match:
            path = re.sub(r"\{\w+\}", "*", match[2])
            assert all((method, path) in known for method in match[1].split(", ")), f"{document.name}: {word}"


def test_the_table_list_matches_the_schema() -> None:
    section = README.prose.partition("## Database Schema")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {
        table.name for table in metadata.sorted_tables
    }


def test_the_guides_env_file_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text(snippet("env"))
    given = dotenv_values(file)
    assert given.keys() <= EXAMPLE
    for name in given:
        monkeypatch.delenv(name, raising=False)
    settings = Settings(_env_file=file)
    assert [settings.openai_api_key, settings.langfuse_public_key, settings.langfuse_secret_key] == [None] * 3
    assert settings.postgres_host == "postgres"
    options = StackOptions(_env_file=file)
    assert options.embedded, "make up has no host of this name, so it uses its own PostgreSQL"
    assert (options.username, options.password.get_secret_value()) == ("airflow", "airflow")


def test_the_langfuse_env_file_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text(snippet("langfuse-env"))
    given = dotenv_values(file)
    for name in given:
        monkeypatch.delenv(name, raising=False)
    settings = Settings(_env_file=file)
    assert settings.langfuse_secret_key is not None
    assert {
        settings.langfuse_public_key,
        settings.langfuse_secret_key.get_secret_value(),
        settings.langfuse_host,
    } == set(given.values())


def test_the_role_for_own_runs_is_created_as_the_set_up_does() -> None:
    tree = ast.parse((ROOT / "airflow/config/airflow_bootstrap.py").read_text())
    [permissions] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOW_PERMISSIONS"
    ]
    create, *grants = lines(snippet("flow-user"))
    assert create == "airflow roles create FlowUser"
    documented = set()
    for grant in grants:
        *command, resources = re.split(r" (?:-a|-r) ", grant)
        assert command[0] == "airflow roles add-perms FlowUser"
        documented |= {(command[1], resource) for resource in shlex.split(resources)}
    assert documented == set(permissions)


def test_the_port_variables_change_every_port(monkeypatch: pytest.MonkeyPatch) -> None:
    *assignments, make, target = shlex.split(snippet("ports"))
    assert (make, target) == ("make", "up")
    monkeypatch.delenv("POSTGRES_HOST", raising=False)
    for assignment in assignments:
        monkeypatch.setenv(*assignment.split("="))
    options, usual = StackOptions(_env_file=None), StackOptions.model_construct()
    for name in ("airflow_port", "backend_port", "frontend_port", "database_port", "worker_log_port"):
        assert getattr(options, name) != getattr(usual, name), name


def test_the_make_commands_exist() -> None:
    blocks = (snippet("up"), snippet("status-down"), snippet("checks"), snippet("set-up"))
    for command in chain.from_iterable(map(lines, blocks)):
        for part in command.split("&&"):
            make, target = shlex.split(part, comments=True)
            assert make == "make"
            assert target in TARGETS


def test_the_commands_that_regenerate_the_client_exist() -> None:
    openapi, api = (shlex.split(command) for command in lines(snippet("generated-client")))
    assert openapi[:4] == [".venv/bin/python", "-m", "backend", "openapi"]
    assert (ROOT / openapi[-1]).is_file()
    assert api[:4] == [".venv/bin/python", "-m", "backend", "frontend"]
    assert api[4] in yaml.safe_load((ROOT / "frontend" / "package.json").read_text())["scripts"]


def test_the_activation_command_works() -> None:
    script = snippet("activate").replace(".venv", sys.prefix) + "python -c 'import sys; print(sys.prefix)'"
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.stdout.strip() == sys.prefix, done.stderr


def test_the_compose_commands_are_valid() -> None:
    blocks = (snippet("compose-up"), snippet("compose-airflow"), snippet("compose-psql"), snippet("compose-logs"))
    for command in chain.from_iterable(map(lines, blocks)):
        program, option, file, what, *rest = shlex.split(command)
        assert (program, option, file) == ("docker-compose", "-f", COMPOSE_FILE)
        match what, *rest:
            case ["up", "-d"] | ["ps"] | ["logs", "-f"]:
                pass
            case ["logs", *services]:
                assert services
                assert set(services) <= SERVICES
            case ["exec", "airflow-webserver", "airflow", "dags", "test" | "trigger", dag_id]:
                assert dag_id in DAGS
            case ["exec", "postgres", "psql", "-U", user, database]:
                postgres = COMPOSE["services"]["postgres"]["environment"]
                assert postgres["POSTGRES_USER"] == f"${{POSTGRES_USER:-{user}}}"
                assert postgres["POSTGRES_DB"] == f"${{POSTGRES_DB:-{database}}}"
            case _:
                pytest.fail(f"this test does not know the command: {command}")


def test_the_service_table_matches_the_compose_file() -> None:
    (operations,) = [document for document in DOCUMENTS if document.name == "docs/operations.md"]
    section = operations.prose.partition("## Docker Compose")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == SERVICES


def manifests() -> list[dict[str, Any]]:
    """Return the manifests for `kubectl apply`."""
    return list(yaml.safe_load_all((ROOT / "docker/kubernetes/langgraph-flow.yaml").read_text()))


def values() -> dict[str, Any]:
    """Return the values for helm."""
    read: dict[str, Any] = yaml.safe_load((ROOT / "docker/kubernetes/airflow-values.yaml").read_text())
    return read


def test_kubernetes_runs_the_images_that_are_built() -> None:
    built = set()
    for command in lines(snippet("images")):
        docker, build, *rest = shlex.split(command)
        assert (docker, build, rest[-1]) == ("docker", "build", ".")
        options = dict(zip(rest[:-1:2], rest[1:-1:2], strict=True))
        file = (ROOT / options["-f"]).read_text()
        assert "--target" not in options or re.search(rf"^FROM .* AS {options['--target']}$", file, re.MULTILINE)
        built.add(options["-t"])
    run = set(re.findall(r"image: (\S+)", yaml.safe_dump_all(manifests())))
    airflow = values()["images"]["airflow"]
    assert run | {f"{airflow['repository']}:{airflow['tag']}"} == built
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {image.rpartition(":")[2] for image in built} == {version}


def test_the_kubernetes_commands_are_valid() -> None:
    repository, apply, install = (shlex.split(command) for command in lines(snippet("kubernetes")))
    assert repository[:4] == ["helm", "repo", "add", "apache-airflow"]
    assert apply[:5] == ["kubectl", "--namespace", "airflow", "apply", "-f"]
    assert install[:5] == ["helm", "upgrade", "--install", "airflow", "apache-airflow/airflow"]
    assert install[5:8] == ["--namespace", "airflow", "--values"]
    assert (ROOT / apply[5]).samefile(ROOT / "docker/kubernetes/langgraph-flow.yaml")
    assert (ROOT / install[8]).samefile(ROOT / "docker/kubernetes/airflow-values.yaml")
    # The backend reaches Airflow's API server by the service name that the chart derives from the release's name, and
    # the frontend reaches the backend.
    environment = {
        entry["name"]: entry.get("value")
        for manifest in manifests()
        if manifest["kind"] == "Deployment"
        for container in manifest["spec"]["template"]["spec"]["containers"]
        for entry in container["env"]
    }
    assert environment["VISUAL_AI_AIRFLOW_URL"] == f"http://{install[3]}-api-server:8080"
    assert environment["BACKEND_URL"] == "http://langgraph-flow-backend.airflow.svc.cluster.local:8000"


def test_the_values_shown_match_the_values_file() -> None:
    def within(part: Any, whole: Any, path: str = "") -> None:
        if isinstance(part, dict):
            for key, value in part.items():
                assert key in whole, f"{path}.{key}"
                within(value, whole[key], f"{path}.{key}")
        else:
            assert part == whole, path

    within(yaml.safe_load(snippet("values")), values())


def lines(script: str) -> list[str]:
    """Return a script's commands, one per line, without comments."""
    return [line for line in script.splitlines() if line.strip() and not line.startswith("#")]
