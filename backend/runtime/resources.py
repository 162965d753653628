"""What agents use besides their own specs: connections, writers, the rate limiter and HTTP clients.

A worker's task has its own `AgentResources`; in a triggerer, all agents of the event loop share one.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from langgraph.types import Durability

from backend.checkpoints.batch_writer import SHARED_GATHER_SECONDS, CheckpointWriter
from backend.checkpoints.batched_saver import BatchedSaver
from backend.checkpoints.pool import Pool, open_pool
from backend.checkpoints.store import Store
from backend.core.ratelimit.interface import ModelGate
from backend.core.settings import Settings
from backend.db.engine import Database
from backend.db.runs.threads import Claim
from backend.models.http_clients import HttpClients
from backend.observation.recording.writer import RecordWriter
from backend.ratelimit.limiter import open_gate
from backend.runtime.budget.call_limits import SpendLimits
from backend.runtime.cancellation import CancelWatch
from backend.runtime.graphs.load import find_at
from backend.runtime.graphs.pauses import Graph
from langgraph_flow_host.embedding import Embedder
from langgraph_flow_host.store_terms import Index, StoreTerms


class GraphCache:
    """The latest compiled graphs of built-in agents, by everything they are made of."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._graphs: OrderedDict[Hashable, Graph] = OrderedDict()

    def find(self, key: Hashable, make: Callable[[], Graph]) -> Graph:
        graph = self._graphs.pop(key, None)
        self._graphs[key] = graph = make() if graph is None else graph
        if len(self._graphs) > self._limit:
            self._graphs.popitem(last=False)
        return graph


class AgentResources:
    """The resources of one task or, when `shared`, of all agents of an event loop.

    Use it as an asynchronous context manager. What only some agents need is made when it is first asked for.
    Shared resources are made for hundreds of agents at once. For a task's own, whoever asks first decides: with
    `many_calls` for hundreds of model calls at once, and with the seconds that a checkpoint waits to `gather` others.
    """

    pool: Pool
    """Connections for reading checkpoints. Made, like the `gate`, on entering the context."""
    gate: ModelGate
    """Admits the model calls of built-in agents."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        gate: ModelGate | None = None,
        shared: bool = False,
        connections: int = 4,
        wait: float = 10,
    ) -> None:
        """`connections` is the size of the pool, and `wait` the time in seconds that an agent waits for one of them.
        Without a `gate`, the settings decide about it."""
        self.settings = settings
        self.database = database
        self.shared = shared
        self.records = RecordWriter(database, shared=shared)
        self.cancel_watch = CancelWatch(database)
        self.spend_limits = SpendLimits(database)
        self.graphs = GraphCache() if shared else None
        """Compiled graphs of built-in agents, where more than one agent may use them."""
        self._gate = gate
        self._connections = connections
        self._wait = wait
        self._stack = AsyncExitStack()
        self._http: HttpClients | None = None
        self._checkpoints: CheckpointWriter | None = None
        self._embedders: dict[tuple[Path | None, Index], Embedder] = {}

    async def __aenter__(self) -> Self:
        gate = self._gate
        if gate is None:
            gate = await self._stack.enter_async_context(open_gate(self.settings, self.database))
        self.gate = gate
        opened = open_pool(self.settings.database_url, max_size=self._connections, wait=self._wait)
        self.pool = await self._stack.enter_async_context(opened)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._checkpoints is not None:
            self._checkpoints.close()
        self.records.close()
        try:
            await self._stack.aclose()
        finally:
            if self._http is not None:
                await self._http.close()

    def store(self, folder: Path | None, terms: StoreTerms) -> Store:
        """LangGraph's store for a graph of a project, on its terms.

        Each graph has its own: LangGraph's stores carry out one batch after another, and all of a batch fails with a
        part of it, so one agent's model would hold up the items of all others.
        """
        index = terms.index
        if index is None:
            return Store(self.pool, terms)
        if (folder, index) not in self._embedders:
            self._embedders[folder, index] = Embedder(index, lambda place: find_at(place, folder or Path.cwd()))
        return Store(self.pool, terms, self._embedders[folder, index])

    def http(self, *, many_calls: bool = False) -> HttpClients:
        """HTTP clients for OpenAI's models.

        LangChain's own clients are cached for the process and useless to its next event loop: a second task under
        `airflow dags test` would fail.
        """
        if self._http is None:
            self._http = HttpClients(many_calls=many_calls or self.shared)
        return self._http

    def saver(self, claim: Claim, known: Collection[str], durability: Durability, *, gather: float = 0) -> BatchedSaver:
        """A checkpointer for the graphs of a claim. `known` are the threads that may have checkpoints already."""
        if self._checkpoints is None:
            self._checkpoints = CheckpointWriter(
                self.settings.database_url, gather=SHARED_GATHER_SECONDS if self.shared else gather
            )
        return BatchedSaver(self.pool, claim, self._checkpoints, known, durability, self.settings.max_state_bytes)
