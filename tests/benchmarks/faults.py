"""Runs in whose middle something breaks: what is lost, told wrongly or paid for again.

For each fault, 24 runs are started: ten in workers, ten in the triggerer and four batches of four inputs. Every agent
makes five model calls. The fault begins when a quarter of the calls have been made. None of the faults is the agents',
so each run must succeed with one `end` event and nothing after it, and leave no agent open. A call is repeated if the
model server has answered it before.
"""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import typer

from backend.db.address import plain_url
from backend.deployment.layout import Layout
from backend.deployment.processes import MARKER_VARIABLE, end_all, marked
from backend.stack.postgres import Cluster
from tests.benchmarks.report import Goal, Result
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import ROOT, RunningStack, running_stack, wait_for_dag, wait_until
from tests.kit.processes.stack_processes import admin_url, kill_program, pid_of, program_stopped, restart_postgres

DAGS = Path(__file__).with_name("dags")
PROJECT = Path(__file__).parents[1] / "projects" / "five_steps" / "langgraph.json"

RUNS = {"faults_in_worker": 10, "faults_in_triggerer": 10, "faults_in_batch": 4}
CALLS = {"faults_in_worker": 5, "faults_in_triggerer": 5, "faults_in_batch": 20}
ALL_CALLS = sum(RUNS[dag_id] * CALLS[dag_id] for dag_id in RUNS)
LATENCY = 0.5
OVER = ("success", "failed", "cancelled")

SETTLED = 10.0
"""Seconds after the last run's end in which nothing more may be told: two passes of the reconciler."""


@dataclass(frozen=True)
class Scene:
    """The running stack, and what breaks it."""

    stack: RunningStack
    server: OpenAIServer

    @property
    def layout(self) -> Layout:
        return Layout(root=ROOT, state=self.stack.state)

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Carry out statements as PostgreSQL's superuser; returns the rows of the last one, if it has any."""
        with self.admin() as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def admin(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(plain_url(admin_url(self.stack)), autocommit=True)

    def processes(self, title: str) -> list[psutil.Process]:
        """The stack's processes whose command line matches the pattern."""
        return [one for one in marked(self.layout.identity) if re.search(title, " ".join(one.cmdline()))]

    def kill(self, title: str) -> None:
        found = self.processes(title)
        assert found, f"no process is called {title}"
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    @contextmanager
    def frozen(self, title: str) -> Iterator[None]:
        """Stop processes as SIGSTOP does: their connections stay open, and nothing answers."""
        stopped = self.processes(title)
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()


def _killed(program: str) -> Callable[[Scene], None]:
    def fault(scene: Scene) -> None:
        kill_program(scene.stack, program)

    return fault


def _terminated(program: str) -> Callable[[Scene], None]:
    return lambda scene: os.kill(pid_of(scene.stack, program), signal.SIGTERM)


def _away(program: str, seconds: float) -> Callable[[Scene], None]:
    def fault(scene: Scene) -> None:
        with program_stopped(scene.stack, program):
            time.sleep(seconds)

    return fault


def _slow_api_server(scene: Scene) -> None:
    for _ in range(8):
        with scene.frozen("api.server"):
            time.sleep(6)
        time.sleep(1)


def _frozen_postgres(scene: Scene) -> None:
    with scene.frozen("postgres"):
        time.sleep(20)


def _postgres_away(scene: Scene) -> None:
    marker = {MARKER_VARIABLE: scene.layout.identity}
    port = int(scene.stack.environment["POSTGRES_PORT"])
    cluster = Cluster(scene.layout.postgres, port, "", marker, report=lambda _: None)
    cluster.stop()
    time.sleep(45)
    cluster.start()


def _set_for_roles(setting: str, value: str, seconds: float) -> Callable[[Scene], None]:
    """Another default for the product's two roles, whose present connections are ended so that it applies at once."""
    roles = ("visual_ai_worker", "visual_ai_backend")
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN {roles}"

    def fault(scene: Scene) -> None:
        scene.sql(*(f"ALTER ROLE {role} SET {setting} = {value}" for role in roles), end)
        time.sleep(seconds)
        scene.sql(*(f"ALTER ROLE {role} RESET {setting}" for role in roles), end)

    return fault


def _locked_tables(scene: Scene) -> None:
    with scene.admin() as connection, connection.transaction():
        connection.execute("LOCK TABLE visual_ai.agent_traces, visual_ai.workflow_events IN ACCESS EXCLUSIVE MODE")
        time.sleep(30)


def _misbehaving_model(preset: Any, times: int) -> Callable[[Scene], None]:
    return lambda scene: scene.server.script(preset, times=times)


def _power_cut(scene: Scene) -> None:
    end_all(scene.layout.identity, grace=0)
    _succeeds(scene, "up")


def _down_and_up(scene: Scene) -> None:
    _succeeds(scene, "down")
    _succeeds(scene, "up")


def _succeeds(scene: Scene, command: str) -> None:
    done = scene.stack.command(command)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


FAULTS: dict[str, Callable[[Scene], None]] = {
    "none": lambda _: None,
    "killed_tasks": lambda scene: scene.kill("airflow worker -- [0-9a-f]{8}-"),
    "killed_workers": lambda scene: scene.kill("LocalExecutor"),
    "killed_scheduler": _killed("scheduler"),
    "terminated_scheduler": _terminated("scheduler"),
    "killed_triggerer": _killed("triggerer"),
    "terminated_triggerer": _terminated("triggerer"),
    "killed_dag_processor": _killed("dag-processor"),
    "killed_backend": _killed("backend"),
    "killed_api_server": _killed("api-server"),
    "api_server_away_120_s": _away("api-server", 120),
    "slow_api_server": _slow_api_server,
    "restarted_postgres": lambda scene: restart_postgres(scene.stack),
    "postgres_away_45_s": _postgres_away,
    "frozen_postgres_20_s": _frozen_postgres,
    "read_only_postgres_30_s": _set_for_roles("default_transaction_read_only", "on", 30),
    "statement_timeouts_25_s": _set_for_roles("statement_timeout", "1", 25),
    "locked_tables_30_s": _locked_tables,
    "model_server_errors": _misbehaving_model("server_error", 30),
    "model_rate_limits": _misbehaving_model("rate_limit", 30),
    "power_cut": _power_cut,
    "down_and_up": _down_and_up,
}


def measure() -> Result:
    """Counts over all faults, and the repeated calls of each."""
    figures: dict[str, float] = {}
    with OpenAIServer.subprocess(latency=LATENCY) as server:
        environment = {
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": "sk-benchmark",
            "VISUAL_AI_LANGGRAPH_JSON": str(PROJECT),
            "VISUAL_AI_FRONTEND": "false",
        }
        with running_stack(environment) as stack:
            shutil.copytree(DAGS, stack.dags, dirs_exist_ok=True)
            with stack.airflow() as airflow:
                for dag_id in RUNS:
                    wait_for_dag(airflow, dag_id)
            scene = Scene(stack, server)
            for name, fault in FAULTS.items():
                found = _under(scene, name, fault)
                typer.echo(f"  {name}: {found}", err=True)
                for figure in ("runs", "not_successful", "without_reason", "resurrected"):
                    figures[figure] = figures.get(figure, 0) + found[figure]
                figures[f"repeated_calls_{name}"] = found["repeated"]
                figures[f"seconds_{name}"] = found["seconds"]
            figures["open_agents"] = _open_agents(scene)
    zero = ("not_successful", "without_reason", "resurrected", "open_agents")
    goals = [Goal(name.replace("_", " "), figures[name], 0) for name in zero]
    return Result("faults", figures, goals, settings={"runs_per_fault": sum(RUNS.values()), "model_s": LATENCY})


def _under(scene: Scene, name: str, fault: Callable[[Scene], None]) -> dict[str, float]:
    began = time.monotonic()
    scene.server.reset()
    scene.server.configure(latency=LATENCY)
    ids = _start(scene, name)
    scene.server.wait_for(lambda stats: stats.requests >= ALL_CALLS // 4, timeout=300)
    fault(scene)
    with suppress(TimeoutError):  # what is not over then is counted as not successful
        wait_until(lambda: _all_over(scene, ids), timeout=600, poll=1)
    seconds = time.monotonic() - began
    time.sleep(SETTLED)
    chosen = f"SELECT id FROM visual_ai.workflow_executions WHERE dag_run_id IN {tuple(ids)}"
    states = scene.sql(
        "SELECT e.state, EXISTS (SELECT FROM visual_ai.workflow_errors r WHERE r.execution_id = e.id)"
        f" FROM visual_ai.workflow_executions e WHERE e.id IN ({chosen})"
    )
    [(resurrected,)] = scene.sql(
        "SELECT count(DISTINCT execution_id) FROM visual_ai.workflow_events later"
        f" WHERE execution_id IN ({chosen}) AND event_type IN ('workflow_update', 'end') AND EXISTS ("
        "  SELECT FROM visual_ai.workflow_events e WHERE e.execution_id = later.execution_id"
        "  AND e.event_type = 'end' AND e.seq < later.seq)"
    )
    failed = [explained for state, explained in states if state != "success"]
    answered = [request.prompt.partition(". So far")[0] for request in scene.server.requests if request.status == 200]
    return {
        "runs": len(states),
        "not_successful": len(failed),
        "without_reason": failed.count(False),
        "resurrected": resurrected,
        "repeated": len(answered) - len(set(answered)),
        "seconds": round(seconds, 1),
    }


def _start(scene: Scene, name: str) -> list[str]:
    """Start the runs of one fault; returns their ids."""
    ids = []
    with scene.stack.backend() as backend:
        for dag_id, count in RUNS.items():
            for number in range(count):
                body = {"dag_id": dag_id, "input_data": {"topic": f"{name} {dag_id} {number}"}}
                headers = {"Idempotency-Key": f"{name}-{dag_id}-{number}"}

                def accepted() -> str | None:
                    answer = backend.post("/workflows/trigger", json=body, headers=headers)  # noqa: B023
                    return str(answer.json()["dag_run_id"]) if answer.status_code == httpx.codes.ACCEPTED else None

                ids.append(wait_until(accepted, timeout=120, poll=1, what=f"the start of a run of {dag_id}"))
    return ids


def _all_over(scene: Scene, ids: list[str]) -> bool:
    query = "SELECT count(*) FROM visual_ai.workflow_executions WHERE state IN {} AND dag_run_id IN {}"
    with suppress(psycopg.OperationalError):
        return scene.sql(query.format(OVER, tuple(ids))) == [(len(ids),)]
    return False


def _open_agents(scene: Scene) -> float:
    """Agents that are still called running after the reconciler has had its two minutes."""
    time.sleep(120)
    [(count,)] = scene.sql(
        "SELECT count(*) FROM visual_ai.agent_traces t JOIN visual_ai.workflow_executions e ON e.id = t.execution_id"
        f" WHERE t.state = 'running' AND e.state IN {OVER}"
    )
    return float(count)
