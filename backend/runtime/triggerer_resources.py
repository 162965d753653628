"""What all agents of one event loop have in common: a triggerer runs hundreds of them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from weakref import WeakKeyDictionary

from backend.checkpoints.batch_writer import SHARED_GATHER_SECONDS, CheckpointWriter
from backend.checkpoints.pool import Pool, ResilientStore, open_pool
from backend.core.ratelimit.interface import ModelGate
from backend.core.settings import Settings
from backend.db.engine import Database, ThreadedDatabase, make_engine
from backend.models.http_clients import HttpClients
from backend.observation.recording.writer import RecordWriter
from backend.ratelimit.factory import open_gate
from backend.runtime.cancellation import CancelWatch
from backend.runtime.gc_tuning import rare_collections
from backend.runtime.graphs.cache import GraphCache
from backend.runtime.loop_watchdog import BlockingWatch

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""How long connections are kept when no agent runs any more."""

LEAVE_SECONDS = 8.0
"""How long agents in flight have to write down what they did when the loop is closed. Airflow kills after 10 s."""

WAIT_SECONDS = 120.0
"""How long an agent waits for one of the connections that all share: hundreds may start at once."""


class SharedResources:
    """Connections, store, gate, watches and threads of one event loop. Made by `shared_resources`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        connections = settings.triggerer_connections
        # Waiting for one of the connections has no limit: hundreds may ask at once.
        self._engine = make_engine(
            settings.database_url, application="visual_ai_triggerer", pool_size=connections, wait=None
        )
        self.database: Database = ThreadedDatabase(self._engine, threads=connections, redis_url=settings.redis_address)
        self.records = RecordWriter(self.database, shared=True)
        self.watch = CancelWatch(self.database)
        self.http = HttpClients(many_calls=True)
        self.graphs = GraphCache()
        self.pool: Pool
        self.store: ResilientStore
        self.checkpoints: CheckpointWriter
        self.gate: ModelGate
        self.users = 0
        self._ready = asyncio.Event()
        self._changed = asyncio.Event()
        # Of its own, and not of the agent that happens to be the first: it closes what all use.
        self._keeper = asyncio.create_task(self._keep(), name="visual-ai-shared-resources")

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        return self._keeper.done() or self._keeper.cancelling() > 0

    async def ready(self) -> None:
        """Wait until it can be used."""
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait([waiting, self._keeper], return_when=asyncio.FIRST_COMPLETED)
            if self._keeper.done():
                self._keeper.result()
        finally:
            waiting.cancel()

    def enter(self) -> None:
        """One agent more."""
        self.users += 1
        self._changed.set()

    def leave(self) -> None:
        """One agent less."""
        self.users -= 1
        self._changed.set()

    async def _keep(self) -> None:
        loop, settings = asyncio.get_running_loop(), self.settings
        # The default is a handful of threads: an agent's synchronous nodes would wait for those of all others.
        threads = ThreadPoolExecutor(settings.triggerer_threads, thread_name_prefix="visual-ai-node")
        loop.set_default_executor(threads)
        try:
            async with (
                open_pool(
                    settings.database_url, max_size=settings.triggerer_connections, wait=WAIT_SECONDS
                ) as self.pool,
                open_gate(settings, self.database) as self.gate,
            ):
                self.store = ResilientStore(self.pool)
                self.checkpoints = CheckpointWriter(settings.database_url, gather=SHARED_GATHER_SECONDS)
                self._ready.set()
                with BlockingWatch(loop, settings.blocking_warning), rare_collections():
                    try:
                        await self._until_idle()
                    finally:
                        await self._until_left()
                        self.checkpoints.close()
                        self.records.close()
        finally:
            _shared.pop(loop, None)
            await self.http.close()
            await self.database.close()
            self._engine.dispose()

    async def _until_idle(self) -> None:
        while True:
            await self._until_left(None)
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._changed.wait()
            if not self.users:
                # From here on, whoever comes makes another.
                _shared.pop(asyncio.get_running_loop(), None)
                return

    async def _until_left(self, limit: float | None = LEAVE_SECONDS) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self.users:
                    self._changed.clear()
                    await self._changed.wait()


_shared: "WeakKeyDictionary[asyncio.AbstractEventLoop, SharedResources]" = WeakKeyDictionary()


@asynccontextmanager
async def shared_resources(settings: Settings) -> AsyncIterator[SharedResources]:
    """What the agents of the running loop share, made for the first one of them.

    It is closed some time after the last one has left, or with the loop.
    """
    loop = asyncio.get_running_loop()
    shared = _shared.get(loop)
    if shared is None or shared.closed:
        shared = _shared[loop] = SharedResources(settings)
    shared.enter()
    try:
        await shared.ready()
        yield shared
    finally:
        shared.leave()
