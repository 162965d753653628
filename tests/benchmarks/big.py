"""Big and long runs: whether their records are whole, what they cost, and whether anybody else has to wait for them.

Each case is one run. While it is under way, `/healthz` is asked 20 times a second and ten events a second are appended
to the stream of another run, whose reader notes how long each took to arrive.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import typer

from backend.core.events import NewEvent
from backend.db.address import plain_url
from backend.db.runs import events
from backend.deployment.layout import Layout
from backend.deployment.processes import marked
from tests.benchmarks.report import Goal, Result, percentile
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.log_writer import LogWriter
from tests.kit.processes.stack import ROOT, RunningStack, running_stack, wait_for_dag, wait_until
from tests.kit.processes.stack_processes import admin_url

DAGS = Path(__file__).with_name("dags")
PROJECT = Path(__file__).parents[1] / "projects" / "big" / "langgraph.json"
OVER = ("success", "failed", "cancelled")
NEIGHBOUR = "big_neighbour"
SETTLED = 8.0
"""Seconds after a run's end until everything about it is written."""
TITLES = {"backend": "backend serve", "triggerer": "triggerer", "worker": "airflow worker -- "}
MIB = 1024 * 1024


@dataclass(frozen=True)
class Case:
    """A run: its DAG and input, the rows that it must leave, and the length of its result's texts."""

    dag_id: str
    conf: dict[str, Any]
    rows: int
    length: int | None = None


def _cases() -> dict[str, Case]:
    cases = {}
    for place in ("worker", "triggerer"):
        for rounds, size in ((10, 10), (10, 20_000), (400, 10), (400, 2_000), (400, 20_000)):
            conf = {"rounds": rounds, "size": size, "messages": []}
            cases[f"loop_{rounds}_x_{size}_{place}"] = Case(f"big_loop_in_{place}", conf, rounds + 1, rounds * size)
        for rounds, size in ((5_000, 10), (5_000, 2_000)):
            conf = {"rounds": rounds, "size": size, "messages": []}
            name = f"deltas_{rounds}_x_{size}_{place}"
            cases[name] = Case(f"big_loop_of_deltas_in_{place}", conf, rounds + 1, rounds * size)
        for size in (5_000_000, 50_000_000):
            cases[f"state_{size // 10**6}_mb_{place}"] = Case(f"big_states_in_{place}", {"size": size}, 11, size)
        for size, foreign in ((1, False), (20, False), (20, True), (100, False)):
            name = f"output_{size}_mb{'_foreign' if foreign else ''}_{place}"
            conf = {"size": size * 10**6, "foreign": foreign}
            cases[name] = Case(f"big_echo_in_{place}", conf, 2, size * 10**6)
        payload = [{"number": number, "name": "some name"} for number in range(100_000)]
        cases[f"input_4_mb_{place}"] = Case(f"big_echo_in_{place}", {"payload": payload, "size": 10}, 2)
        for count in (20_000, 200_000):
            cases[f"tokens_{count}_{place}"] = Case(f"big_tokens_in_{place}", {"size": count}, 2)
    cases["mapped_300"] = Case("big_map", {"count": 300}, 600)
    cases["mapped_1000"] = Case("big_map", {"count": 1000}, 2000)
    cases["team_200"] = Case("big_team", {}, 400)
    return cases


def measure(only: str = "") -> Result:
    """Per case: seconds, megabytes in Postgres and on a subscriber's wire, memory, what was lost, and what the
    neighbours waited."""
    figures: dict[str, float] = {}
    with OpenAIServer.subprocess(latency=0) as server:
        environment = {
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": "sk-benchmark",
            "VISUAL_AI_LANGGRAPH_JSON": str(PROJECT),
            "VISUAL_AI_FRONTEND": "false",
        }
        with running_stack(environment) as stack:
            shutil.copytree(DAGS, stack.dags, dirs_exist_ok=True)
            cases = {name: case for name, case in _cases().items() if only in name}
            with stack.airflow() as airflow:
                for dag_id in {case.dag_id for case in cases.values()} | {NEIGHBOUR}:
                    wait_for_dag(airflow, dag_id)
            scene = _Scene(stack, server)
            for name, case in cases.items():
                found = scene.run(name, case)
                typer.echo(f"  {name}: {json.dumps(found)}", err=True)
                figures |= {f"{name}_{key}": value for key, value in found.items()}
    goals = [
        Goal(name.replace("_", " "), sum(value for key, value in figures.items() if key.endswith(name)), 0)
        for name in ("lost_rows", "lost_results", "failed")
    ]
    waits = {"healthz_p99_ms": 50, "neighbour_p95_ms": 100}
    for ending, limit in waits.items():
        goals.append(Goal(f"worst {ending}", max(v for key, v in figures.items() if key.endswith(ending)), limit))
    return Result("big", figures, goals)


@dataclass
class _Neighbours:
    """What was measured beside a run, in milliseconds and bytes."""

    healthz: list[float] = field(default_factory=list)
    events: list[float] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)


class _Scene:
    def __init__(self, stack: RunningStack, server: OpenAIServer) -> None:
        self._stack = stack
        self._server = server
        self._layout = Layout(root=ROOT, state=stack.state)
        self._url = admin_url(stack)
        with stack.airflow() as airflow:
            made = airflow.post(f"/api/v2/dags/{NEIGHBOUR}/dagRuns", json={"logical_date": None}).raise_for_status()
        self._neighbour = str(made.json()["dag_run_id"])
        self._neighbour_id = wait_until(
            lambda: self._value("SELECT id FROM visual_ai.workflow_executions WHERE dag_id = %s", NEIGHBOUR),
            timeout=120, what="the record of the neighbour",
        )  # fmt: skip

    def run(self, name: str, case: Case) -> dict[str, float]:
        if case.dag_id.startswith("big_tokens"):
            self._server.reset()
            self._server.script(content="word " * case.conf["size"], times=None)
        before = self._size()
        began = time.monotonic()
        with self._stack.backend() as backend, self._neighbours() as beside:
            run = wait_until(lambda: _started(backend, name, case), timeout=300, poll=2, what=f"the start of {name}")
            wire = self._follow(run)
            seconds = time.monotonic() - began
            time.sleep(SETTLED)
            status = backend.get(run["status_url"], timeout=120)
            result = backend.get(f"{run['status_url']}/result", timeout=300)
        chosen = f"FROM visual_ai.agent_traces WHERE execution_id = '{run['execution_id']}'"
        rows = self._value(f"SELECT count(*) {chosen} AND state = 'success'")
        return {
            "seconds": round(seconds, 1),
            "failed": float(status.json()["state"] != "success"),
            "lost_rows": float(case.rows - rows),
            "lost_results": float(not _whole(result, case.length)),
            "postgres_mb": round((self._size() - before) / 1e6, 1),
            "wire_mb": round(wire["bytes"] / 1e6, 2),
            "largest_event_kb": round(wire["largest"] / 1e3, 1),
            "snapshot_kb": round(len(status.content) / 1e3, 1),
            **{f"{title}_mib": round(used / MIB) for title, used in beside.memory.items()},
            "healthz_p99_ms": round(percentile(beside.healthz, 99), 1),
            "neighbour_p95_ms": round(percentile(beside.events, 95), 1),
            "neighbour_max_ms": round(max(beside.events), 1),
        }

    def _follow(self, run: dict[str, Any]) -> dict[str, int]:
        """Read the run's stream to its end, as often as the connection takes; returns its bytes, and the largest
        event's."""
        total, largest, last = 0, 0, ""
        while True:
            with suppress(httpx.TransportError), self._stack.backend() as backend:
                headers = {"Last-Event-ID": last} if last else {}
                with backend.stream("GET", run["stream_url"], headers=headers, timeout=900) as answer:
                    answer.raise_for_status()
                    for line in answer.iter_lines():
                        total += len(line) + 1
                        largest = max(largest, len(line))
                        if line.startswith("id:"):
                            last = line[3:].strip()
                        if line == "event: end":
                            return {"bytes": total, "largest": largest}

    def _value(self, statement: str, *values: Any) -> Any:
        with psycopg.connect(plain_url(self._url), autocommit=True) as connection:
            row = connection.execute(statement.encode(), values or None).fetchone()
        return row[0] if row else None

    def _size(self) -> int:
        return int(self._value("SELECT pg_database_size('airflow')"))

    @contextmanager
    def _neighbours(self) -> Iterator[_Neighbours]:
        beside, over = _Neighbours(), threading.Event()
        connected = threading.Event()
        works: list[Callable[[_Neighbours, threading.Event, threading.Event], None]] = [
            self._ask, self._read, self._append, self._weigh,
        ]  # fmt: skip
        threads = [threading.Thread(target=work, args=(beside, over, connected), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        assert connected.wait(60)
        try:
            yield beside
        finally:
            over.set()
            for thread in threads:
                thread.join(30)

    def _ask(self, beside: _Neighbours, over: threading.Event, _: threading.Event) -> None:
        with self._stack.backend() as backend:
            while not over.wait(0.05):
                began = time.perf_counter()
                backend.get("/healthz", timeout=60).raise_for_status()
                beside.healthz.append((time.perf_counter() - began) * 1000)

    def _read(self, beside: _Neighbours, over: threading.Event, connected: threading.Event) -> None:
        with self._stack.backend() as backend:
            path = f"/workflow-status/stream/{NEIGHBOUR}/{self._neighbour}"
            with backend.stream("GET", path, timeout=120) as answer:
                for line in answer.iter_lines():
                    connected.set()
                    if line.startswith("data:") and '"sent_at"' in line:
                        beside.events.append((time.time() - json.loads(line[5:])["sent_at"]) * 1000)
                    if over.is_set():
                        return

    def _append(self, _: _Neighbours, over: threading.Event, connected: threading.Event) -> None:
        connected.wait()
        with LogWriter(self._url, check=False) as writer:
            while True:
                told = NewEvent("token", {"text": "tick", "sent_at": time.time()})
                writer.run(events.append, self._neighbour_id, [told])
                if over.wait(0.1):  # the last event lets the reader see that it is over
                    writer.run(events.append, self._neighbour_id, [told])
                    return

    def _weigh(self, beside: _Neighbours, over: threading.Event, _: threading.Event) -> None:
        while not over.wait(0.5):
            for process in marked(self._layout.identity):
                with suppress(psutil.Error):
                    line, used = " ".join(process.cmdline()), process.memory_info().rss
                    for name, title in TITLES.items():
                        if title in line and "<idle>" not in line:
                            beside.memory[name] = max(beside.memory.get(name, 0), used)


def _started(backend: httpx.Client, name: str, case: Case) -> dict[str, Any] | None:
    body = {"dag_id": case.dag_id, "input_data": case.conf}
    answer = backend.post("/workflows/trigger", json=body, headers={"Idempotency-Key": name}, timeout=120)
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return None
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text[:500]
    run: dict[str, Any] = answer.json()
    return run


def _whole(answer: httpx.Response, length: int | None) -> bool:
    """Whether a result is there and has texts of this length altogether."""
    result = answer.json()
    if length is None or result is None:
        return result is not None
    output = result["output"]
    return len(output.get("text") or "") + sum(map(len, output.get("messages") or [])) == length
