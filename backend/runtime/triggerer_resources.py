"""The resources that all agents of a triggerer's event loop share.

A triggerer runs hundreds of agents in one event loop. If each of them opened its own connections, they would exhaust
the database's, and writing their records one by one would cost most of the loop's time. So the first agent opens one
`AgentResources` for the loop; the others use it, and it is closed when no agent has used it for a while. Opening and
closing happen in an asyncio task that belongs to no agent, because any agent may be cancelled at any time.

While they are open, the loop has a pool of threads for synchronous nodes, a watch that reports what blocks the loop,
and rarer garbage collections.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from weakref import WeakKeyDictionary

from backend.core.settings import Settings
from backend.db.engine import ThreadedDatabase, make_engine
from backend.runtime.gc_tuning import rare_collections
from backend.runtime.loop_watchdog import BlockingWatch
from backend.runtime.resources import AgentResources

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""How long the resources stay open without an agent."""

LEAVE_SECONDS = 8.0
"""How long running agents may take to write their records when the loop is closed. Airflow kills after 10 s."""

KEEPER = "visual-ai-shared-resources"
"""The name of the asyncio task that keeps them open."""

WAIT_SECONDS = 120.0
"""How long an agent waits for one of the shared connections: hundreds may start at once."""


class _SharedResources:
    """The resources of one event loop, and the task that opens and closes them."""

    def __init__(self, settings: Settings) -> None:
        connections = settings.triggerer_connections
        # Hundreds of agents may ask for a connection at once, so waiting for one has no limit here.
        self._engine = make_engine(
            settings.database_url, application="visual_ai_triggerer", pool_size=connections, wait=None
        )
        self._database = ThreadedDatabase(self._engine, threads=connections, redis_url=settings.redis_address)
        self.resources = AgentResources(
            settings, self._database, shared=True, connections=connections, wait=WAIT_SECONDS
        )
        self._agents = 0
        self._ready = asyncio.Event()
        self._changed = asyncio.Event()
        # A task of its own, and not that of the first agent: it closes what all of them use.
        self._keeper = asyncio.create_task(self._keep(), name=KEEPER)

    @property
    def closed(self) -> bool:
        """Whether they are closed, or about to be."""
        return self._keeper.done() or self._keeper.cancelling() > 0

    @asynccontextmanager
    async def used(self) -> AsyncIterator[AgentResources]:
        """Keep them open for one agent. Raises what made opening them impossible."""
        self._count_agents(1)
        opened = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait([opened, self._keeper], return_when=asyncio.FIRST_COMPLETED)
            if self._keeper.done():
                self._keeper.result()
            yield self.resources
        finally:
            opened.cancel()
            self._count_agents(-1)

    def _count_agents(self, change: int) -> None:
        self._agents += change
        self._changed.set()

    async def _keep(self) -> None:
        loop, settings = asyncio.get_running_loop(), self.resources.settings
        # The default is a handful of threads: an agent's synchronous nodes would wait for those of all others.
        threads = ThreadPoolExecutor(settings.triggerer_threads, thread_name_prefix="visual-ai-node")
        loop.set_default_executor(threads)
        try:
            async with self.resources:
                self._ready.set()
                with BlockingWatch(loop, settings.blocking_warning), rare_collections():
                    try:
                        await self._until_idle()
                    finally:
                        await self._until_left()
        finally:
            _shared.pop(loop, None)
            await self._database.close()
            self._engine.dispose()

    async def _until_idle(self) -> None:
        while True:
            await self._until_left(None)
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._changed.wait()
            if not self._agents:
                # From here on, the next agent opens others.
                _shared.pop(asyncio.get_running_loop(), None)
                return

    async def _until_left(self, limit: float | None = LEAVE_SECONDS) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self._agents:
                    self._changed.clear()
                    await self._changed.wait()


_shared: "WeakKeyDictionary[asyncio.AbstractEventLoop, _SharedResources]" = WeakKeyDictionary()


@asynccontextmanager
async def shared_resources(settings: Settings) -> AsyncIterator[AgentResources]:
    """The resources that the agents of the running loop share, opened for the first of them.

    They are closed `IDLE_SECONDS` after the last agent has ended, or with the loop.
    """
    loop = asyncio.get_running_loop()
    shared = _shared.get(loop)
    if shared is None or shared.closed:
        shared = _shared[loop] = _SharedResources(settings)
    async with shared.used() as resources:
        yield resources
