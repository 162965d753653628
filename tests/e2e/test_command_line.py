"""Runs from a shell, on the whole stack: start them, watch them across a killed backend, read results and logs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.kit import pictures
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import ROOT, RunningStack, wait_until
from tests.kit.processes.stack_processes import pid_of
from tests.kit.runs import events, follow, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WORDS = " ".join(f"word{number}" for number in range(80))
TEXT = {"text": "Three boats lay at the pier."}


class Started:
    """A command in the background, whose output goes to files."""

    def __init__(self, stack: RunningStack, folder: Path, *arguments: str) -> None:
        self._out, self._err = folder / f"{arguments[0]}.out", folder / f"{arguments[0]}.err"
        command = [sys.executable, "-m", "backend", *arguments]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(command, env=dict(stack.environment), cwd=ROOT, stdout=out, stderr=err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def says_something(self) -> None:
        """Wait for its first line."""
        wait_until(lambda: "\n" in self._out.read_text(), timeout=60, what="the first line")

    def done(self) -> tuple[int, str, str]:
        """Its exit code and its output."""
        return self._process.wait(120), self._out.read_text(), self._err.read_text()


def as_printed(backend: httpx.Client, run: dict[str, Any]) -> list[dict[str, Any]]:
    """All events of the run as `watch --json` prints them."""
    found = follow(backend, {"stream_url": run["stream_url"]})
    return [{"id": event.seq, "event": event.type, "data": event.data} for event in found]


def test_start_watch_result_and_log_of_a_run(
    stack: RunningStack, backend: httpx.Client, airflow: httpx.Client, tmp_path: Path
) -> None:
    picture = tmp_path / "invoice.png"
    picture.write_bytes(pictures.encode(pictures.invoice()))
    order = ("--input", "query=What is the total?", "--image", str(picture), "--model", "local:vision")
    done = stack.command("run", "visual_ai_workflow", *order, "--watch", "--json")
    assert done.returncode == 0, done.stderr
    accepted, *seen = map(json.loads, done.stdout.splitlines())
    run = accepted["data"]
    assert seen == as_printed(backend, run)
    ids = (run["dag_id"], run["dag_run_id"])

    watched = stack.command("watch", *ids)
    assert watched.returncode == 0
    assert "analyse_image / vision  success  local:vision" in watched.stdout

    result = stack.command("result", *ids)
    assert json.loads(result.stdout) == snapshot(backend, run)["result"]
    assert "79.50" in json.loads(result.stdout)["output"]["answer"]

    listed = stack.command("list", run["dag_id"], "--json", "-n", "1")
    assert json.loads(listed.stdout)["dag_run_id"] == run["dag_run_id"]

    printed = stack.command("logs", *ids, "analyse_image", "--json")
    assert printed.returncode == 0, printed.stderr
    path = f"/api/v2/dags/{ids[0]}/dagRuns/{ids[1]}/taskInstances/analyse_image/logs/1"
    content = airflow.get(path, headers={"Accept": "application/json"}).json()["content"]
    own = content[[entry["event"] for entry in content].index("::endgroup::") + 1 :]
    assert [json.loads(line) for line in printed.stdout.splitlines()] == own
    assert len(own) > 1
    as_text = stack.command("logs", *ids, "analyse_image").stdout
    assert own[0]["event"].removeprefix("::group::") in as_text
    assert "Traceback" not in as_text
    missing = stack.command("logs", *ids, "analyse_image", "--try", "2")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "no try 2; its latest is 1" in missing.stderr


def test_watching_and_following_a_log_survive_a_killed_backend(
    stack: RunningStack, backend: httpx.Client, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script(content=WORDS, token_delay=0.1, model="gpt-4.1-mini")
    victim = pid_of(stack, "backend")
    run = trigger(backend, "multi_agent_workflow", TEXT, model="gpt-4.1-mini")
    ids = (run["dag_id"], run["dag_run_id"])
    task = next(event.data["task_id"] for event in events(backend, run["stream_url"], after=0) if event.type == "token")
    with (
        Started(stack, tmp_path, "watch", *ids, "--json", "--after", "0") as watching,
        Started(stack, tmp_path, "logs", *ids, task, "--follow", "--json") as reading,
    ):
        watching.says_something()
        reading.says_something()
        os.kill(victim, signal.SIGKILL)
        code, events_told, told = watching.done()
        log_code, log, log_told = reading.done()
    assert (code, log_code) == (0, 0), told + log_told
    assert "retrying in" in told
    assert [json.loads(line) for line in events_told.splitlines()] == as_printed(backend, run)
    assert log == stack.command("logs", *ids, task, "--json").stdout


def test_a_failed_run_and_its_log(stack: RunningStack, backend: httpx.Client) -> None:
    done = stack.command("run", "visual_ai_workflow", "--image", "https://127.0.0.1/a.png", "--watch")
    assert done.returncode == 1, done.stderr
    run_id, *lines = done.stdout.splitlines()
    assert lines[-1].startswith("end  failed")
    logs = next(line for line in done.stderr.splitlines() if line.startswith("Its log: "))
    task_id = logs.split()[-1]
    log = stack.command("logs", "visual_ai_workflow", run_id, task_id)
    assert log.returncode == 0, log.stderr
    assert "VISUAL_AI_ALLOW_PRIVATE_IMAGES=true where private hosts are to be trusted" in log.stdout
    refused = stack.command("result", "visual_ai_workflow", run_id)
    assert refused.returncode == 2
    assert "The run failed, so it has no result" in refused.stderr


def test_a_run_is_cancelled_from_the_shell(
    stack: RunningStack, backend: httpx.Client, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script(content=WORDS, token_delay=0.5, model="gpt-4.1-mini")
    run = trigger(backend, "multi_agent_workflow", TEXT, model="gpt-4.1-mini")
    ids = (run["dag_id"], run["dag_run_id"])
    next(event for event in events(backend, run["stream_url"], after=0) if event.type == "token")
    with Started(stack, tmp_path, "watch", *ids) as watching:
        watching.says_something()
        assert stack.command("cancel", *ids).returncode == 0
        assert watching.done()[0] == 3
