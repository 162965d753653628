"""Runs a task's agents on the event loop of a triggerer, among hundreds of others."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

from backend.core.budget import Budget
from backend.core.settings import Settings
from backend.models.resolve import ModelCredentials
from backend.runtime.cancellation import run_cancelled
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.triggerer_resources import shared_resources
from backend.runtime.worker import Work

log = logging.getLogger(__name__)


async def run_deferred(
    settings: Settings,
    task: TaskContext,
    work: Work,
    *,
    ends_here: bool,
    budget: Budget | None = None,
    credentials: ModelCredentials | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Carry out `work`; gives the task's result and the run's id in our records, with all records written.

    Raises what `work` raises, and an `AgentFailure` with `RunCancelledError` when somebody cancelled the run. When it
    is cancelled itself, the model calls in flight are dropped; whoever claims the task's thread next goes on from the
    last checkpoint. When that has happened already, this one's word no longer counts, and it waits to be cancelled.

    `ends_here`: the task ends with this, which no listener of Airflow notices, so that its end is recorded here.
    """
    started_at = datetime.now(UTC)
    async with (
        shared_resources(settings) as shared,
        AgentRunner(settings, shared.database, task, budget=budget, shared=shared, credentials=credentials) as runner,
    ):
        runner.tell_state("running", started_at=started_at)
        try:
            # A task of its own: it alone is cancelled when the run is.
            result = await asyncio.ensure_future(work(runner))
        except asyncio.CancelledError:
            if runner.cancelled:
                raise run_cancelled() from None
            raise
        except Exception:
            await _unless_superseded(runner)
            raise
        if ends_here:
            runner.tell_state("success", started_at=started_at, finished_at=datetime.now(UTC))
        await _unless_superseded(runner)
    return result, runner.execution_id


async def _unless_superseded(runner: AgentRunner) -> None:
    if await runner.superseded():
        log.warning("%s was taken over by another triggerer: nothing is said any more", runner.task.thread_id)
        await asyncio.Event().wait()
