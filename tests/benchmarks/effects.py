"""Kills of a task that calls tools, at random moments: effects that were repeated or lost, and questions about those of
which nobody knows."""

import json
import multiprocessing
import os
import random
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from backend.core.jsonable import dumps
from backend.core.settings import Settings
from backend.db import questions
from backend.db.questions import Given
from backend.runtime.runner import AgentRunner, AgentsWaiting, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from backend.runtime.worker import AgentTask
from tests.benchmarks.database import bench_database
from tests.benchmarks.report import Goal, Result

KILLS, CALLS = 1_000, 5
WAITING = 3
RECORD = "VISUAL_AI_BENCH_EFFECTS"


def effect(run: str, number: int) -> str:
    """Have an effect that can't be taken back."""
    with Path(os.environ[RECORD]).open("a") as record:
        record.write(f"{run} {number}\n")
    time.sleep(random.uniform(0, 0.15))
    return f"effect {number}"


class _Model(BaseHTTPRequestHandler):
    """Wants one effect after the other, by what the conversation already has."""

    def do_POST(self) -> None:  # prescribed
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        run = request["messages"][1]["content"].split()[-2]
        done = sum(message["role"] == "tool" for message in request["messages"])
        message: dict[str, Any] = {"role": "assistant", "content": "Done." if done == CALLS else None}
        if done < CALLS:
            function = {"name": "effect", "arguments": json.dumps({"run": run, "number": done})}
            message["tool_calls"] = [{"id": "call", "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "finish_reason": "stop" if done == CALLS else "tool_calls"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "gpt-4.1", "choices": [choice]}
        body = json.dumps({**answer, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def _model() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def measure() -> Result:
    """Kill tries at random moments, until so many were killed; each run goes on until it has succeeded."""
    kills = runs = 0
    answers: Counter[str] = Counter()
    effects: Counter[str] = Counter()
    expected: list[str] = []
    with tempfile.TemporaryDirectory() as folder, bench_database() as database, _model() as model:
        record = Path(folder) / "effects"
        record.touch()
        os.environ[RECORD] = str(record)
        settings = Settings(
            _env_file=None, database_url_override=database.worker_url, openai_base_url=model, openai_api_key="x"
        )
        engine = create_engine(database.backend_url, poolclass=NullPool, json_serializer=dumps)
        _try(settings, "warm", 1, None)
        took = 0.5
        while kills < KILLS:
            run, number, ended = uuid.uuid4().hex, 0, False
            runs += 1
            while not ended:
                number += 1
                began = time.monotonic()
                code = _try(settings, run, number, random.uniform(0, took) if random.random() < 0.9 else None)
                if code == 0:
                    took = 0.9 * took + 0.1 * (time.monotonic() - began)
                kills += code < 0
                ended = code == 0
                if code == WAITING:
                    answers.update(_answer(engine, run, record))
                elif code > 0:
                    raise RuntimeError(f"a try ended with {code}")
            expected += [f"{run} {number}" for number in range(CALLS)]
        effects.update(record.read_text().split("\n")[:-1])
        with engine.begin() as connection:
            cut_off = connection.execute(
                text("SELECT count(*) FROM visual_ai.tool_calls WHERE state = 'begun'")
            ).scalar_one()
    figures = {
        "kills": kills,
        "runs": runs,
        "repeated": sum(effects[one] > 1 for one in expected),
        "lost": sum(effects[one] == 0 for one in expected),
        "answered_done": answers["done"],
        "answered_run_again": answers["run_again"],
        "unasked": cut_off - answers["run_again"],
    }
    goals = [
        Goal("effects that were repeated", figures["repeated"], 0),
        Goal("effects that are missing", figures["lost"], 0),
        Goal("calls that were cut off and asked about by nobody", figures["unasked"], 0),
    ]
    return Result("effects", figures, goals, {}, {"calls_per_run": CALLS})


def _try(settings: Settings, run: str, number: int, kill_after: float | None) -> int:
    """One try in a process of its own; returns its exit code, which is negative for one that was killed."""
    process = multiprocessing.get_context("fork").Process(target=_work, args=(settings, run, number))
    process.start()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _work(settings: Settings, run: str, number: int) -> None:
    tools = ["tests.benchmarks.effects:effect"]
    config = {"type": "text", "tools": tools, "streaming": False}
    spec = parse_agent(config, {"text": run}, model="openai:gpt-4.1")

    async def work(runner: AgentRunner) -> dict[str, Any]:
        return await run_single(runner, spec)

    try:
        AgentTask(settings, TaskContext("bench", run, "act", -1, number, {})).run(work)
    except AgentsWaiting:
        os._exit(WAITING)
    os._exit(0)


def _answer(engine: Engine, run: str, record: Path) -> list[str]:
    """Answer what is asked by what has happened; returns the answers."""
    answers = []
    had = record.read_text().split("\n")
    with engine.begin() as connection:
        found = questions.open_of_task(connection, "bench", run, "act", -1)
        for row in found:
            given = row["content"]["arguments"]
            took_effect = f"{run} {given['number']}" in had
            value = {"outcome": "done" if took_effect else "run_again"}
            answers.append(value["outcome"])
            questions.answer(connection, str(row["id"]), Given(value, None, "bench", "api"))
    return answers
