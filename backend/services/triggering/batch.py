"""Starts many runs with one request: each input has its own answer."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from backend.core.problems import FieldError, Invalid, Problem, Unavailable
from backend.core.roles import Principal
from backend.core.settings import Settings
from backend.services.triggering.from_template import Choice
from backend.services.triggering.request import TriggerRequest
from backend.services.triggering.trigger import Started, Triggers

log = logging.getLogger(__name__)


class BatchTriggers:
    """Starts the runs of a batch side by side, with the rules of single ones: rights, rate, schema, idempotency.

    At most `VISUAL_AI_BATCH_TRIGGER_CONCURRENCY` are started at once in this process, whatever the number of requests.
    """

    def __init__(self, settings: Settings, triggers: Triggers) -> None:
        self._triggers = triggers
        self._limit = settings.batch_trigger_limit
        self._slots = asyncio.Semaphore(settings.batch_trigger_concurrency)
        self._running: set[asyncio.Task[list[Started | Problem]]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On exit, batches that were begun are carried through."""
        yield
        if self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    async def trigger(
        self, who: Principal, requests: Sequence[TriggerRequest], key: str | None = None
    ) -> list[Started | Problem]:
        """Start a run for each request; gives, in order, the run or the problem that refused it.

        A batch that was begun is carried through, also when its client goes away meanwhile. `key` stands for the whole
        batch: with the position it makes the key of each run, so a repeated batch starts only what is missing. Raises
        `Invalid` for too many requests.
        """
        if len(requests) > self._limit:
            detail = f"has {len(requests)} entries; at most {self._limit} may be sent at once"
            raise Invalid(f"/inputs: {detail}", errors=[FieldError("/inputs", detail)])
        task = asyncio.create_task(self._all(who, requests, key))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _all(
        self, who: Principal, requests: Sequence[TriggerRequest], key: str | None
    ) -> list[Started | Problem]:
        # All of a batch have the same version of their template, whatever is activated meanwhile.
        choices = {request.template: self._triggers.choice(request) for request in requests}
        return await asyncio.gather(
            *(
                self._one(who, request, None if key is None else f"{key}#{index}", choices[request.template])
                for index, request in enumerate(requests)
            )
        )

    async def _one(
        self, who: Principal, request: TriggerRequest, key: str | None, choice: Choice | None
    ) -> Started | Problem:
        async with self._slots:
            try:
                return await self._triggers.trigger(who, request, key, choice=choice)
            except Problem as problem:
                return problem
            except SQLAlchemyError as error:
                log.error("an input of a batch: the database failed: %s", type(error).__name__)
                return Unavailable("The database is out of reach; try again shortly.", retry_after=5)
            except Exception:
                log.exception("an input of a batch failed")
                return Problem("Something went wrong here; the log has the details.")
