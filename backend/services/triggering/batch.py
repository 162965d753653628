"""Triggers many runs with one request. Each input has its own outcome."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from backend.core.audit import entry_of
from backend.core.problems import FieldError, Invalid, Problem
from backend.core.roles import Principal
from backend.core.settings import Settings
from backend.db.outage import database_problem
from backend.services.identity.audit_log import AuditLog
from backend.services.limits.admission import Admission
from backend.services.triggering.from_template import TemplateReference
from backend.services.triggering.request import TriggerRequest
from backend.services.triggering.trigger import Started, Triggers

log = logging.getLogger(__name__)


class BatchTriggers:
    """Triggers the runs of a batch concurrently, under the rules for single runs: rights, rate, schema, idempotency.

    At most `VISUAL_AI_BATCH_TRIGGER_CONCURRENCY` triggers of all batches are in progress in this process.
    """

    def __init__(self, settings: Settings, triggers: Triggers, admission: Admission, audit: AuditLog) -> None:
        self._triggers = triggers
        self._admission = admission
        self._audit = audit
        self._limit = settings.batch_trigger_limit
        self._concurrency = settings.batch_trigger_concurrency
        self._slots = asyncio.Semaphore(self._concurrency)
        self._running: set[asyncio.Task[list[Started | Problem]]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On exit, wait for the batches in progress."""
        yield
        if self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    async def check_size(self, who: Principal, count: int) -> None:
        """Raise `Invalid` if a batch of this user may not have this many runs."""
        if count > self._limit:
            detail = f"has {count} entries; at most {self._limit} may be sent at once"
            raise Invalid(f"/inputs: {detail}", errors=[FieldError("/inputs", detail)])
        await self._admission.check_batch(who.username, count)

    async def trigger(
        self, who: Principal, requests: Sequence[TriggerRequest], key: str | None = None
    ) -> list[Started | Problem]:
        """Trigger a run for each request; returns, in order, the run or the problem that refused it.

        A batch is completed even if its client disconnects. `key` is the idempotency key of the whole batch: together
        with the position it becomes the key of each run, so a repeated batch starts only what is missing. Raises
        `Invalid` for too many requests.
        """
        await self.check_size(who, len(requests))
        task = asyncio.create_task(self._all(who, requests, key))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _all(
        self, who: Principal, requests: Sequence[TriggerRequest], key: str | None
    ) -> list[Started | Problem]:
        # All runs of a batch use the same version of a template, even if another one is activated meanwhile.
        references = {request.template: self._triggers.reference(request) for request in requests}
        outcomes: dict[int, Started | Problem] = {}
        waiting = iter(enumerate(requests))

        async def work() -> None:
            for index, request in waiting:
                own_key = None if key is None else f"{key}#{index}"
                outcomes[index] = await self._one(who, request, own_key, references[request.template])

        # A few tasks for all: a thousand would take the event loop a while to create.
        await asyncio.gather(*(work() for _ in range(min(self._concurrency, len(requests)))))
        refused = sum(isinstance(outcome, Problem) for outcome in outcomes.values())
        name = requests[0].dag_id or requests[0].template if requests else None
        started = len(outcomes) - refused
        self._audit.note(entry_of(who, "run.trigger_batch", name, started=started, refused=refused))
        return [outcomes[index] for index in range(len(requests))]

    async def _one(
        self, who: Principal, request: TriggerRequest, key: str | None, template: TemplateReference | None
    ) -> Started | Problem:
        async with self._slots:
            try:
                return await self._triggers.trigger(who, request, key, template=template)
            except Problem as problem:
                return problem
            except SQLAlchemyError as error:
                log.error("a run of a batch: the database failed: %s", type(error).__name__)
                return database_problem(error)
            except Exception:
                log.exception("a run of a batch could not be triggered")
                return Problem("Something went wrong here; the log has the details.")
