"""What exceeds a limit fails at once, and says which value it is and which setting raises the limit."""

import uuid
from typing import Any

import pytest
from sqlalchemy import text

from backend.core.settings import Settings
from backend.core.workflow_error_handler import AgentFailure
from backend.db.engine import Database
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.servers.postgres import Postgres

HEAVY = "tests.kit.graphs.heavy"


@pytest.mark.parametrize(
    ("limits", "graph", "category", "said"),
    [
        (
            {"max_input_bytes": 2_000},
            "chain",
            "input",
            "input_data/note: has more than 2,000 bytes, the limit of VISUAL_AI_MAX_INPUT_BYTES",
        ),
        (
            {"max_output_bytes": 100_000},
            "chain",
            "invalid_output",
            "/payload, which the node 'node3' wrote, has more than 100,000 bytes, the limit of VISUAL_AI_MAX_OUTPUT",
        ),
        (
            {"max_state_bytes": 100_000},
            "chain",
            "invalid_output",
            "the node 'node0' returned what no checkpoint can keep: /payload has 200,0",
        ),
        (
            {"max_steps": 7},
            "endless",
            "budget",
            "not done after 7 steps; if it does come to an end, raise VISUAL_AI_MAX",
        ),
    ],
)
async def test_a_limit_is_named_and_final(
    pg: Postgres, database: Database, limits: dict[str, Any], graph: str, category: str, said: str
) -> None:
    settings = Settings(database_url_override=pg.worker_url, **limits)
    given: dict[str, Any] = {"kind": "text", "size": 225_000, "note": "x" * 3_000}
    run_id = uuid.uuid4().hex
    with pytest.raises(AgentFailure) as caught:
        async with AgentRunner(settings, database, TaskContext("dag", run_id, "task", -1, 1, {})) as runner:
            await run_single(runner, parse_agent(None, given, graph=f"{HEAVY}:{graph}"))
    assert said in str(caught.value)
    assert caught.value.classified.category == category
    assert caught.value.classified.final
    async with database.engine.connect() as connection:
        query = text("SELECT category, message, action FROM visual_ai.workflow_errors WHERE dag_run_id = :run")
        [(recorded, message, action)] = (await connection.execute(query, {"run": run_id})).all()
    assert (recorded, action) == (category, "fail")
    assert said in message
