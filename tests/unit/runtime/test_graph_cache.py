"""Agents of an event loop that are alike share their graph, each with its own checkpoints."""

from contextlib import AsyncExitStack
from typing import Any, cast

from langgraph.checkpoint.memory import InMemorySaver

from backend.checkpoints.batched_saver import BatchedSaver
from backend.core.ratelimit.interface import OpenGate
from backend.core.settings import Settings
from backend.db.engine import Database
from backend.models.attempts import REAL_TIME
from backend.models.resolve import ModelCredentials
from backend.observation.recording.observer import AgentObserver
from backend.observation.task_context import TaskContext
from backend.runtime.graphs.factory import GraphFactory
from backend.runtime.resources import AgentResources, GraphCache
from backend.runtime.specs import AgentSpec, parse_agent


class _Observer:
    def uses(self, model: str | None, notice: str | None) -> None: ...

    def begin(self, argument: Any) -> None: ...


GIVEN = {"text": "The harbour was quiet."}
SETTINGS = Settings(_env_file=None, openai_api_key="test-key")


def graph_of(resources: AgentResources, config: dict[str, Any], *, key: str | None = None, **more: Any) -> Any:
    credentials = ModelCredentials.of_connection(conn_type=None, password=key, address=None, extra={}) if key else None
    task = TaskContext("dag", "run", "task", -1, 1, {})
    factory = GraphFactory(SETTINGS, task, credentials, resources, AsyncExitStack(), REAL_TIME, [])
    spec: AgentSpec = parse_agent({"type": "text", **config}, GIVEN, **more)
    saver = cast(BatchedSaver, InMemorySaver())
    graph = factory.built_in(spec, factory.requested(spec), cast(AgentObserver, _Observer()), GIVEN, saver)
    assert graph.checkpointer is saver
    return graph


async def test_only_identical_agents_share_a_graph() -> None:
    async with AgentResources(SETTINGS, cast(Database, None), gate=OpenGate(), shared=True) as resources:
        first, second = (graph_of(resources, {"system_prompt": "Be brief."}) for _ in range(2))
        others = [
            graph_of(resources, {}),
            graph_of(resources, {"system_prompt": "Be brief."}, model="openai:gpt-4.1"),
            graph_of(resources, {"system_prompt": "Be brief."}, key="another-key"),
            graph_of(resources, {"system_prompt": "Be brief."}, error_policy={"fallbacks": []}),
        ]
    assert first is not second
    assert first.builder is second.builder
    assert first.checkpointer is not second.checkpointer
    assert len({id(graph.builder) for graph in [first, *others]}) == 5


def test_the_cache_keeps_the_latest_graphs_only() -> None:
    cache = GraphCache(limit=3)
    made: list[int] = []

    def make(number: int) -> Any:
        made.append(number)
        return number

    for number in range(4):
        cache.find(number, lambda number=number: make(number))  # type: ignore[misc]
    cache.find(1, lambda: make(1))
    assert made == list(range(4))
    cache.find(0, lambda: make(0))
    assert made[-1] == 0
