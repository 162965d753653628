"""Runs a task's agents on the event loop of a triggerer, beside hundreds of others."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

from langgraph.types import Durability

from backend.core.asking.terms import QuestionTerms
from backend.core.budget import Budget
from backend.core.settings import Settings
from backend.models.resolve import ModelCredentials
from backend.runtime.cancellation import run_cancelled
from backend.runtime.runner import AgentRunner, AgentsWaiting, TaskContext
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
    durability: Durability | None = "async",
    terms: QuestionTerms | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Carry out `work`; returns the task's result and the run's id in our records, with all records written.

    Raises what `work` raises, and an `AgentFailure` with `RunCancelledError` when somebody cancelled the run. When it
    is cancelled itself, running model calls are dropped; whoever claims the task's thread next resumes from the last
    checkpoint. If somebody has claimed it already, this one reports nothing more, and waits to be cancelled.

    `ends_here`: the task ends in the triggerer, where Airflow calls no listener, so its end is recorded here.
    """
    started_at = datetime.now(UTC)
    async with (
        shared_resources(settings) as shared,
        AgentRunner(
            settings,
            shared.database,
            await task.verified(shared.database),
            budget=budget,
            shared=shared,
            credentials=credentials,
            durability=durability,
            terms=terms,
        ) as runner,
    ):
        runner.recorder.put_state("running", started_at=started_at)
        try:
            # An asyncio task of its own, because it alone is cancelled when the run is.
            result = await asyncio.ensure_future(work(runner))
        except asyncio.CancelledError:
            if runner.cancelled:
                raise run_cancelled() from None
            raise
        except (Exception, AgentsWaiting):
            await _unless_superseded(runner)
            raise
        if ends_here:
            runner.recorder.put_state("success", started_at=started_at, finished_at=datetime.now(UTC))
        await _unless_superseded(runner)
    return result, runner.execution_id


async def _unless_superseded(runner: AgentRunner) -> None:
    if not await runner.recorder.check_claim():
        # Airflow would take either the end or an event of this trigger for the task's own.
        log.warning("%s was taken over by another triggerer: this one reports nothing more", runner.task.thread_id)
        await asyncio.Event().wait()
