"""Notifies a user when their agents have used certain shares of a budget."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from backend.db import notification_causes
from backend.db.engine import Database
from backend.db.runs import executions
from backend.observation.recording.recorder import Recorder
from backend.observation.recording.records import RowsWithEvents
from backend.observation.task_context import TaskContext
from backend.runtime.budget.ledger import Ledger, Spent

Use = dict[str, Any]
"""How much of which budget is used, as `backend.db.notification_causes.budget_passed` takes it."""


@dataclass(slots=True)
class BudgetWatch:
    """Reports each share of each limit once, when it is passed; of several passed at once, only the largest.

    `report` is called in the thread in which a model's answer is counted.
    """

    shares: Sequence[float]
    task_id: str
    map_index: int
    report: Callable[[Use], None]
    _reported: dict[tuple[str, str], float] = field(default_factory=dict)

    def look(self, ledger: Ledger, asked: Spent | None = None) -> None:
        """Check what is used of a budget. When what was `asked` for was refused, all of the budget counts as used."""
        for limit, allowed, used, wanted in ledger.uses(asked):
            if not allowed:
                continue
            reached = 1.0 if asked is not None and wanted > allowed else float(used / allowed)
            passed = max((share for share in self.shares if share <= reached), default=0.0)
            if passed <= self._reported.get((ledger.scope, limit), 0.0):
                continue
            self._reported[ledger.scope, limit] = passed
            whole_run = ledger.scope == "run"
            self.report(
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
    """`BudgetWatch.look` for a task; None if the run's user wants no notifications about budgets, which is read once.

    A share is recorded before the usage that passed it, which is recorded when its node is over.
    """

    def read(connection: Connection) -> list[float]:
        return notification_causes.budget_shares(connection, executions.ensure(connection, task.run_state()))

    shares = await database.run(read)
    if not shares:
        return None
    loop = asyncio.get_running_loop()

    def report(use: Use) -> None:
        rows = RowsWithEvents(lambda connection, run: notification_causes.budget_passed(connection, run, use))
        loop.call_soon_threadsafe(recorder.put, rows)

    return BudgetWatch(shares, task.task_id, task.map_index, report).look
