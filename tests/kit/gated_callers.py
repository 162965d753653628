"""Processes full of agents that call a model through the shared gate, or without one.

Each is `python -m tests.kit.gated_callers`; they begin together. An agent does what the model call wrapper does: asks
the gate, calls, tells the gate, waits as long as the provider asks and tries again.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer

from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError, ModelGate
from backend.core.settings import Settings
from backend.db.engine import ThreadedDatabase, make_engine
from backend.ratelimit.limiter import open_gate

MODEL = "openai:gpt-4.1-mini@0a1b2c"
ROOT = Path(__file__).parents[2]
TRIES = 200


@dataclass(frozen=True)
class Called:
    """What the agents of one process have done: answers, 429s, agents without an answer, seconds to the last one."""

    answered: int
    refused: int
    failed: int
    seconds: float


def call_in_processes(
    processes: int,
    callers: int,
    *,
    base_url: str,
    database_url: str,
    redis_url: str | None = None,
    gate: bool = True,
) -> list[Called]:
    """Have so many agents, spread over so many processes, get an answer each."""
    arguments = [f"--base-url={base_url}", f"--database-url={database_url}", "--gate" if gate else "--no-gate"]
    if redis_url is not None:
        arguments.append(f"--redis-url={redis_url}")
    with ExitStack() as stack:
        running = []
        for number in range(processes):
            share = callers // processes + (number < callers % processes)
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.kit.gated_callers", *arguments, f"--callers={share}"],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            running.append(process)
        for process in running:
            _line(process)  # it is ready
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [Called(**json.loads(_line(process))) for process in running]


def waste(called: Sequence[Called]) -> float:
    """The part of all calls that was refused."""
    refused = sum(one.refused for one in called)
    return refused / (refused + sum(one.answered for one in called))


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"a process of callers ended with {process.wait()}"
    return line


class Callers:
    """The agents of this process."""

    def __init__(self, gate: ModelGate, client: httpx.AsyncClient) -> None:
        self._gate = gate
        self._client = client
        self.answered = self.refused = self.failed = 0

    async def agent(self) -> None:
        """Call until there is an answer."""
        for _ in range(TRIES):
            try:
                await self._gate.admit(MODEL, tokens=20, max_wait=60)
            except (HeldBackError, CircuitOpenError) as error:
                await asyncio.sleep(error.retry_after)
                continue
            answer = await self._client.post(
                "chat/completions", json={"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Hello"}]}
            )
            if answer.status_code == httpx.codes.OK:
                self.answered += 1
                await self._gate.report(MODEL, "ok", tokens=answer.json()["usage"]["total_tokens"])
                return
            assert answer.status_code == httpx.codes.TOO_MANY_REQUESTS, answer.text
            self.refused += 1
            wait = float(answer.headers["retry-after-ms"]) / 1000
            await self._gate.report(MODEL, "rate_limited", retry_after=wait)
            await asyncio.sleep(wait)
        self.failed += 1


async def call(settings: Settings, callers: int) -> Called:
    """Run the agents, when told to."""
    engine = make_engine(settings.database_url, application="test", pool_size=2)
    database = ThreadedDatabase(engine, threads=2)
    limits = httpx.Limits(max_connections=math.inf)  # type: ignore[arg-type]  # so many as there are agents
    client = httpx.AsyncClient(
        base_url=settings.openai_base_url or "", headers={"Authorization": "Bearer test"}, timeout=60, limits=limits
    )
    try:
        async with open_gate(settings, database) as gate, client:
            print("ready", flush=True)  # noqa: T201
            await asyncio.to_thread(sys.stdin.readline)
            began = time.monotonic()
            mine = Callers(gate, client)
            await asyncio.gather(*(mine.agent() for _ in range(callers)))
            return Called(mine.answered, mine.refused, mine.failed, time.monotonic() - began)
    finally:
        await database.close()
        engine.dispose()


def main(
    base_url: Annotated[str, typer.Option()],
    database_url: Annotated[str, typer.Option()],
    callers: Annotated[int, typer.Option()],
    redis_url: Annotated[str | None, typer.Option()] = None,
    gate: Annotated[bool, typer.Option()] = True,
) -> None:
    """Wait for a line on the standard input, call, and print what was done."""
    settings = Settings(
        _env_file=None,
        database_url_override=database_url,
        redis_url=redis_url,
        openai_base_url=base_url,
        rate_limiter=gate,
    )
    print(json.dumps(asdict(asyncio.run(call(settings, callers)))), flush=True)  # noqa: T201


if __name__ == "__main__":
    typer.run(main)
