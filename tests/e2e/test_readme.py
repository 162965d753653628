"""The README's own commands and snippets, run as they stand; only the ports are the test's."""

import os
import re
import subprocess

import httpx
import psycopg
import pytest

from backend.db.address import plain_url
from tests.kit.runs import follow, snapshot, trigger
from tests.kit.stack import ROOT, RunningStack, wait_for_dag

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

README = (ROOT / "README.md").read_text()


def blocks(language: str, containing: str) -> list[str]:
    """The README's code blocks of a language that contain something."""
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    chosen = [block for block in found if containing in block]
    assert chosen, f"the README has no {language} block with {containing!r}"
    return chosen


def here(stack: RunningStack, code: str) -> str:
    """The code with the test's address of the backend."""
    return code.replace("http://localhost:8000", stack.backend_url)


def shell(stack: RunningStack, script: str, **variables: str) -> str:
    """What a block of shell prints; each of its commands has to succeed."""
    commands = here(stack, script).replace("make -s token", "python -m backend token").replace("curl -s", "curl -fs")
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env={**stack.environment, **variables, "PATH": path}, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_quick_start(stack: RunningStack, backend: httpx.Client) -> None:
    started = shell(stack, blocks("bash", "workflows/trigger")[0])
    found = re.search(r'"dag_run_id":"([^"]+)"', started)
    assert found is not None, started
    token = stack.command("token").stdout.strip()
    watched = shell(stack, blocks("bash", "workflow-status/stream")[0], TOKEN=token, DAG_RUN_ID=found.group(1))
    assert "event: end" in watched
    assert '"state":"success"' in watched
    assert "event: agent_update" in watched


def test_the_shell(stack: RunningStack) -> None:
    done = shell(stack, blocks("bash", "python -m backend watch")[0])
    assert "analyse_image / vision  success" in done
    assert '"answer"' in done
    assert re.search(r"^visual_ai_workflow +api__\S+ +success", done, re.MULTILINE)


def test_the_python_client_and_the_monitoring(stack: RunningStack, backend: httpx.Client) -> None:
    names: dict[str, object] = {}
    exec(here(stack, blocks("python", "httpx.post")[0]), names)  # noqa: S102  # the README's own code
    run = {"dag_id": "visual_ai_workflow", "dag_run_id": str(names["dag_run_id"])}
    now = snapshot(backend, run)
    assert now["user_id"] == "user123"
    follow(backend, {**run, "stream_url": now["stream_url"]})
    assert snapshot(backend, run)["state"] == "success"
    assert '"success_rate"' in shell(stack, blocks("bash", "monitoring/workflow-metrics")[0])


def test_the_template(stack: RunningStack, backend: httpx.Client) -> None:
    token = stack.command("token").stdout.strip()
    started = shell(stack, blocks("bash", "/templates")[0], TOKEN=token)
    found = re.search(r'"dag_run_id":"([^"]+)"', started)
    assert found is not None, started
    run = {"dag_id": "multi_agent_workflow", "dag_run_id": found.group(1)}
    follow(backend, {"stream_url": snapshot(backend, run)["stream_url"]})
    now = snapshot(backend, run)
    assert (now["state"], now["template_name"], now["template_version"]) == ("success", "contract-check", 1)
    assert set(now["result"]["results"]) == {"seen", "terms", "checked"}


def test_the_dag_of_ones_own(stack: RunningStack, backend: httpx.Client, airflow: httpx.Client) -> None:
    code = blocks("python", "MultiAgentOperator(")[0].replace("my_custom_workflow", "readme_workflow")
    (stack.dags / "readme_workflow.py").write_text(code)
    wait_for_dag(airflow, "readme_workflow")
    given = {"image_url": "sample://invoice", "text": "Three boats lay at the pier."}
    accepted = trigger(backend, "readme_workflow", given)
    follow(backend, accepted)
    assert snapshot(backend, accepted)["state"] == "success"


def test_the_query(stack: RunningStack) -> None:
    url = stack.specification("backend")["VISUAL_AI_DATABASE_URL"]
    with psycopg.connect(plain_url(url)) as connection:
        for query in blocks("sql", "SELECT"):
            assert connection.execute(query.encode()).description is not None
