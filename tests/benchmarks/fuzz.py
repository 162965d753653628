"""20,000 requests by Schemathesis, of all phases and callers: no 5xx, and nothing that the document doesn't name."""

import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.benchmarks.report import Goal, Result
from tests.kit.fuzzing import CALLERS, fuzz, fuzzed_backend
from tests.kit.servers.postgres import migrated_database, running_cluster

EXAMPLES = 30
"""Requests for each operation and caller in the phases that are random; the others add thousands of their own."""


def measure() -> Result:
    """Fuzz a backend."""
    return asyncio.run(_measure())


async def _measure() -> Result:
    cases, statuses = 0, Counter[str]()
    failures: list[str] = []
    began = time.monotonic()
    with running_cluster("fuzz") as cluster, tempfile.TemporaryDirectory() as folder:
        database = migrated_database(cluster)
        for caller in CALLERS:
            async with fuzzed_backend(database.backend_url) as url:
                found = await fuzz(url, caller, Path(folder), examples=EXAMPLES)
            cases, statuses = cases + found.cases, statuses + found.statuses
            failures += [f"{caller}: {failure}" for failure in found.failures]
            print("\n".join(failures[-20:]))  # noqa: T201  # what to fix
    figures = {
        "cases": float(cases),
        "failures": float(len(failures)),
        "cases_per_second": cases / (time.monotonic() - began),
        **{f"status_{status}": float(count) for status, count in sorted(statuses.items())},
    }
    goals = [Goal("cases", cases, 20_000, at_least=True), Goal("failures", len(failures), 0)]
    return Result("fuzz", figures, goals, settings={"examples": EXAMPLES, "callers": list(CALLERS)})
