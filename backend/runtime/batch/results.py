"""The results of a batch's items: written to `batch_items` while it runs, and read again when it has ended."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any, TextIO
from urllib.parse import quote

from backend.db.engine import Database
from backend.db.outage import retry_until_available
from backend.db.rows import Row
from backend.db.runs import batch_items
from backend.db.runs.threads import Claim
from backend.db.runs.traces import Place
from backend.observation.task_context import TaskContext

RESULT_ITEMS = 100
RESULT_BYTES = 2**20
"""Outputs beyond these limits aren't passed on in XCom; they stay in `batch_items`."""

_PAGE = 500
_WRITE_INTERVAL = 0.1
_WRITE_LIMIT = 500


class ResultWriter:
    """Writes items' rows, many per transaction. It must not lose any: unlike the recorder, `add` and `close` raise."""

    def __init__(self, database: Database, execution_id: str, place: Place, claim: Claim) -> None:
        self._database = database
        self._target = (execution_id, place, claim)
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(2 * _WRITE_LIMIT)
        self._writer = asyncio.create_task(self._write_all())
        self._error: Exception | None = None

    async def add(self, row: dict[str, Any]) -> None:
        """Have a row written soon. Waits while too many are queued."""
        if self._error is not None:
            raise self._error
        await self._queue.put(row)

    async def close(self) -> None:
        await self._queue.put(None)
        await self._writer
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        self._writer.cancel()

    async def _write_all(self) -> None:
        ended = False
        while not ended:
            rows = [await self._queue.get()]
            if rows[0] is not None:
                await asyncio.sleep(_WRITE_INTERVAL)
            while not self._queue.empty() and len(rows) < _WRITE_LIMIT:
                rows.append(self._queue.get_nowait())
            ended = None in rows
            due = [row for row in rows if row is not None]
            if due and self._error is None:
                write = partial(self._database.run, batch_items.write, *self._target, due)
                try:
                    await retry_until_available(write)
                except Exception as error:
                    self._error = error


class Results:
    """Reads the rows of one batch."""

    def __init__(self, database: Database, execution_id: str, place: Place) -> None:
        self._database = database
        self._target = (execution_id, place)

    async def count(self) -> batch_items.Counts:
        """How many items succeeded and failed, and the size of their outputs."""
        return await retry_until_available(partial(self._database.run, batch_items.count, *self._target))

    async def outputs(self, items: int) -> list[Any]:
        """The outputs in order, None for a failed item. For at most `RESULT_ITEMS` items."""
        outputs: list[Any] = [None] * items
        for row in await self._page(-1):
            outputs[row["item_index"]] = row["output"]
        return outputs

    async def write_lines(self, write_to: Callable[[], TextIO]) -> None:
        """Write all items to a file in order, one JSON object per line."""
        file = await asyncio.to_thread(write_to)
        with contextlib.closing(file):
            after = -1
            while rows := await self._page(after):
                lines = [
                    json.dumps(batch_items.item_json(row), ensure_ascii=False, separators=(",", ":")) for row in rows
                ]
                await asyncio.to_thread(file.write, "\n".join([*lines, ""]))
                after = rows[-1]["item_index"]

    async def _page(self, after: int) -> list[Row]:
        read = partial(batch_items.read_page, after=after, limit=_PAGE)
        return await retry_until_available(partial(self._database.run, read, *self._target))


def results_url(task: TaskContext) -> str:
    """The path under which the backend returns pages of the items."""
    path = "/".join(quote(part, safe="") for part in (task.dag_id, task.dag_run_id, "items", task.task_id))
    return f"/workflow-status/{path}?map_index={task.map_index}"
