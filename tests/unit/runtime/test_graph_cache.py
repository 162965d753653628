"""Agents of an event loop that are alike share their graph, each with its own checkpoints."""

from contextlib import AsyncExitStack
from typing import Any, cast

from langgraph.checkpoint.memory import InMemorySaver

from backend.core.settings import Settings
from backend.db.engine import Database
from backend.models.http_clients import HttpClients
from backend.models.resolve import ModelCredentials
from backend.observation.recording.observer import AgentObserver
from backend.observation.task_context import TaskContext
from backend.runtime.graphs.cache import LIMIT, GraphCache
from backend.runtime.graphs.factory import GraphMaker
from backend.runtime.specs import AgentSpec, parse_agent


class _Observer:
    def uses(self, model: str | None, notice: str | None) -> None: ...

    def begin(self, given: Any) -> None: ...


GIVEN = {"text": "The harbour was quiet."}
SETTINGS = Settings(_env_file=None, openai_api_key="test-key")


def graph_of(
    cache: GraphCache, http: HttpClients, config: dict[str, Any], *, key: str | None = None, **more: Any
) -> Any:
    credentials = ModelCredentials.of_connection(conn_type=None, password=key, address=None, extra={}) if key else None
    task = TaskContext("dag", "run", "task", -1, 1, {})
    maker = GraphMaker(SETTINGS, cast(Database, None), task, credentials, AsyncExitStack())
    maker.cache, maker.http, maker.saver = cache, http, cast(Any, InMemorySaver())
    spec: AgentSpec = parse_agent({"type": "text", **config}, GIVEN, **more)
    graph = maker.built_in(spec, maker.requested(spec), cast(AgentObserver, _Observer()), GIVEN)
    assert graph.checkpointer is maker.saver
    return graph


async def test_what_is_alike_is_compiled_once_and_what_differs_is_not() -> None:
    cache, http = GraphCache(), HttpClients()
    first, second = (graph_of(cache, http, {"system_prompt": "Be brief."}) for _ in range(2))
    assert first is not second
    assert first.builder is second.builder
    assert first.checkpointer is not second.checkpointer
    others = [
        graph_of(cache, http, {}),
        graph_of(cache, http, {"system_prompt": "Be brief."}, model="openai:gpt-4.1"),
        graph_of(cache, http, {"system_prompt": "Be brief."}, key="another-key"),
        graph_of(cache, http, {"system_prompt": "Be brief."}, error_policy={"fallbacks": []}),
    ]
    assert len({id(graph.builder) for graph in [first, *others]}) == 5
    await http.close()


def test_only_the_latest_are_kept() -> None:
    cache = GraphCache()
    made: list[int] = []

    def make(number: int) -> Any:
        made.append(number)
        return number

    for number in range(LIMIT + 1):
        cache.find(number, lambda number=number: make(number))  # type: ignore[misc]
    cache.find(1, lambda: make(1))
    assert made == list(range(LIMIT + 1))
    cache.find(0, lambda: make(0))
    assert made[-1] == 0
