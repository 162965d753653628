"""What the rate limiter saves, and what it costs.

200 agents in four processes call a server at once that allows 20 calls per second and answers the others with 429 and
`Retry-After`. Measured is the share of calls that are wasted, with the limiter and without it. Agents wait as long as
the server asks and retry; the state is in PostgreSQL. Then the cost for a model without a limit: microseconds per call,
and how often the database is queried.
"""

import asyncio
import time
from typing import Any

from backend.db.engine import ThreadedDatabase, make_engine
from backend.ratelimit.limiter import SharedGate
from backend.ratelimit.stores import LimitStore, PostgresStore
from tests.benchmarks.database import bench_database
from tests.benchmarks.report import Goal, Result
from tests.kit.gated_callers import MODEL, call_in_processes, waste
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres

AGENTS, PROCESSES = 200, 4
RATE, LATENCY = 20.0, 0.2
GOAL_WASTE = 0.15
QUIET_SECONDS = 5.0
"""How long an agent calls a model without a limit."""
GOAL_TRIPS = 1.5


def measure() -> Result:
    """Measure the waste with the limiter and without it, and the cost of the limiter."""
    figures: dict[str, float] = {}
    with bench_database() as database:
        for name, gate in (("without_gate", False), ("with_gate", True)):
            figures |= {f"{figure}_{name}": value for figure, value in _ask(database, gate=gate).items()}
        figures |= asyncio.run(_cost(database))
    goals = [
        Goal("share of calls wasted on 429s", figures["waste_with_gate"], GOAL_WASTE),
        Goal("database queries per second without a limit", figures["trips_per_s"], GOAL_TRIPS),
    ]
    settings: dict[str, Any] = {"agents": AGENTS, "processes": PROCESSES, "allowed_per_s": RATE, "latency_s": LATENCY}
    return Result("rate_limit", figures, goals, settings=settings)


def _ask(database: Postgres, *, gate: bool) -> dict[str, float]:
    with OpenAIServer.subprocess(rate=RATE, latency=LATENCY) as server:
        called = call_in_processes(
            PROCESSES, AGENTS, base_url=server.base_url, database_url=database.worker_url, gate=gate
        )
        statuses = server.stats().statuses
    assert statuses[200] == AGENTS, statuses
    return {
        "waste": waste(called),
        "refused": statuses.get(429, 0),
        "seconds": max(one.seconds for one in called),
    }


class _Counted:
    """A store that counts its round trips."""

    def __init__(self, store: LimitStore) -> None:
        self._store = store
        self.trips = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any) -> Any:
            self.trips += 1
            return await method(*args)

        return call


async def _cost(database: Postgres) -> dict[str, float]:
    engine = make_engine(database.worker_url, application="bench", pool_size=2)
    connections = ThreadedDatabase(engine, threads=2)
    store = _Counted(PostgresStore(connections))
    gate = SharedGate(store, {})
    model = f"{MODEL}-unlimited"
    try:
        began = time.perf_counter()
        await gate.admit(model, tokens=100, max_wait=60)
        first = time.perf_counter() - began
        await gate.report(model, "ok", tokens=100)
        await asyncio.sleep(2.5)
        await gate.admit(model, tokens=100, max_wait=60)  # the ramp has ended
        store.trips, calls, spent = 0, 0, 0.0
        began = time.perf_counter()
        while time.perf_counter() - began < QUIET_SECONDS:
            before = time.perf_counter()
            await gate.admit(model, tokens=100, max_wait=60)
            await gate.report(model, "ok", tokens=100)
            spent += time.perf_counter() - before
            calls += 1
            await asyncio.sleep(0.05)  # the call
    finally:
        await gate.close()
        await connections.close()
        engine.dispose()
    return {
        "first_admit_ms": 1000 * first,
        "admit_and_report_us": 1e6 * spent / calls,
        "trips_per_s": store.trips / QUIET_SECONDS,
        "trips_per_call": store.trips / calls,
    }
