"""Notices when the shares of budgets are used up at which a user wants to be told."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from backend.core.events import NewEvent
from backend.db import notification_causes
from backend.db.engine import Database
from backend.db.runs import executions
from backend.observation.recording.recorder import Recorder
from backend.observation.task_context import TaskContext
from backend.runtime.budget.guard import Ledger, Spent

Use = dict[str, Any]
"""Of which budget how much is used, as `backend.db.notification_causes.budget_passed` takes it."""


@dataclass(slots=True)
class BudgetWatch:
    """Tells once of each share of each limit that is passed; of several passed at once, only of the largest.

    `tell` is called in whatever thread a model's answer is counted in.
    """

    shares: Sequence[float]
    task_id: str
    map_index: int
    tell: Callable[[Use], None]
    _told: dict[tuple[str, str], float] = field(default_factory=dict)

    def look(self, ledger: Ledger, asked: Spent | None = None) -> None:
        """See what is used of a budget. What was `asked` for beyond it was refused: then all of it counts as used."""
        for limit, allowed, used, wanted in ledger.uses(asked):
            if not allowed:
                continue
            reached = 1.0 if asked is not None and wanted > allowed else float(used / allowed)
            passed = max((share for share in self.shares if share <= reached), default=0.0)
            if passed <= self._told.get((ledger.scope, limit), 0.0):
                continue
            self._told[ledger.scope, limit] = passed
            whole_run = ledger.scope == "run"
            self.tell(
                {
                    "scope": ledger.scope,
                    "task_id": None if whole_run else self.task_id,
                    "map_index": None if whole_run else self.map_index,
                    "limit": limit,
                    "allowed": float(allowed) if limit == "max_cost_usd" else int(allowed),
                    "used": float(used) if limit == "max_cost_usd" else int(used),
                    "share": passed,
                }
            )


async def open_watch(
    database: Database, recorder: Recorder, task: TaskContext
) -> Callable[[Ledger, Spent | None], None] | None:
    """`BudgetWatch.look` for a task, if its run's user wants to be told of budgets; their choice is read here, once.

    What it notices is recorded before the usage that it notices it by, which is recorded when its node is over.
    """

    def read(connection: Connection) -> list[float]:
        return notification_causes.budget_shares(connection, executions.ensure(connection, task.run_state()))

    shares = await database.run(read)
    if not shares:
        return None
    loop = asyncio.get_running_loop()

    def tell(use: Use) -> None:
        def write(connection: Connection, execution_id: str) -> list[NewEvent]:
            notification_causes.budget_passed(connection, execution_id, use)
            return []

        loop.call_soon_threadsafe(recorder.put, write)

    return BudgetWatch(shares, task.task_id, task.map_index, tell).look
