"""Ten parallel agents in one task, with a model that takes 2 s: the time of the team and of its slowest agent."""

import importlib
import time
import uuid
from typing import Any

import psycopg

from backend.core.settings import Settings
from backend.db.address import plain_url
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.specs import parse_team
from backend.runtime.team.run import run_team
from backend.runtime.worker import AgentTask
from tests.benchmarks.database import bench_database
from tests.benchmarks.report import Goal, Result, median
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres

AGENTS, LATENCY, ROUNDS = 10, 2.0, 5
GOAL = 1.1


def measure() -> Result:
    """Wall time of the whole task, including records and checkpoints."""
    importlib.import_module("langchain_openai")  # preloaded, as in the process that forks tasks
    samples: dict[str, list[float]] = {"team_s": [], "slowest_agent_s": []}
    with bench_database() as database, OpenAIServer.subprocess(latency=LATENCY) as server:
        settings = Settings(
            _env_file=None,
            database_url_override=database.worker_url,
            openai_base_url=server.base_url,
            openai_api_key="test-key",
        )
        for _ in range(ROUNDS):
            samples["team_s"].append(_run(settings))
            samples["slowest_agent_s"].append(_slowest(database))
    figures = {name: median(values) for name, values in samples.items()}
    figures["ratio"] = figures["team_s"] / figures["slowest_agent_s"]
    figures["ratio_to_model_call"] = figures["team_s"] / LATENCY
    goals = [Goal("time of a team of ten to its slowest agent", figures["ratio"], GOAL)]
    return Result("parallel", figures, goals, samples, {"agents": AGENTS, "model_s": LATENCY})


def _slowest(database: Postgres) -> float:
    with psycopg.connect(plain_url(database.admin_url)) as connection:
        found = connection.execute(
            "SELECT count(*), max(latency_ms) FROM visual_ai.agent_traces WHERE node IS NULL AND state = 'success'"
        ).fetchone()
        connection.execute("TRUNCATE visual_ai.agent_traces")
    assert found is not None
    assert found[0] == AGENTS, found
    return float(found[1]) / 1000


def _run(settings: Settings) -> float:
    agents = [{"name": f"agent_{number}", "type": "text", "input_data": {"text": "Ships."}} for number in range(AGENTS)]
    specs = parse_team(agents, "parallel")

    async def work(runner: AgentRunner) -> dict[str, Any]:
        return await run_team(runner, specs, "parallel", synthesis=None)

    began = time.monotonic()
    AgentTask(settings, TaskContext("bench", uuid.uuid4().hex, "team", -1, 1, {})).run(work)
    return time.monotonic() - began
