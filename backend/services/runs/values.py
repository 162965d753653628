"""Reads inputs, results and outputs of batch items of runs as JSON text, piece by piece, however large they are."""

from collections.abc import AsyncGenerator
from hashlib import sha256

from backend.core.problems import Conflict, NotFound
from backend.core.roles import Principal
from backend.core.states import TERMINAL_RUN_STATES
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.runs import value_text
from backend.db.runs.value_text import StoredResult, StoredText
from backend.services.runs.status import Status

RETRY_AFTER = 2.0
"""Seconds after which a client may ask again for the result of a run that has not finished."""

_NULL = StoredText("", 4, "null", b"null")


class Values:
    """Reads inputs and results with the caller's rights."""

    def __init__(self, database: Database, status: Status) -> None:
        self._database = database
        self._status = status

    async def input(self, who: Principal, dag_id: str, dag_run_id: str) -> StoredText:
        """The run's complete input. Raises as `Status.row` does."""
        row = await self._status.row(who, dag_id, dag_run_id)
        return await self._database.run(value_text.find_input, str(row["id"]))

    async def item_output(
        self, who: Principal, dag_id: str, dag_run_id: str, task_id: str, map_index: int, item_index: int
    ) -> StoredText:
        """An item's complete output. Raises as `Status.row` does, and `NotFound` without such an item."""
        row = await self._status.row(who, dag_id, dag_run_id)
        found = None
        if "\x00" not in task_id:  # PostgreSQL would reject the query
            found = await self._database.run(value_text.find_item, str(row["id"]), task_id, map_index, item_index)
        if found is None:
            raise NotFound(f"The run has no outcome of item {item_index} of the task {task_id!r}.")
        return found

    async def result(
        self, who: Principal, dag_id: str, dag_run_id: str, *, partial: bool, after: int, limit: int | None
    ) -> tuple[StoredText, StoredResult]:
        """The run's complete result, `null` when it succeeded without one; of a mapped task, the list of the results
        after the map index `after`, at most `limit`.

        With `partial` also the result that a failed or cancelled run had by then. Raises `NotFound`, and `Conflict`
        when the run has no result, with the seconds after which to ask again if it has not finished.
        """
        row = await self._status.row(who, dag_id, dag_run_id)
        found = await self._database.run(value_text.find_result, str(row["id"]), after=after, limit=limit)
        if found.state not in TERMINAL_RUN_STATES:
            raise Conflict(
                f"The run is {found.state}; its result is available once it has finished.", retry_after=RETRY_AFTER
            )
        if found.state != "success" and (found.text is None or not partial):
            raise _no_result(row, found)
        return found.text or _NULL, found

    async def read(self, text: StoredText, start: int, stop: int) -> AsyncGenerator[bytes]:
        """The bytes from `start` up to `stop` of a text, in pieces of half a megabyte at most.

        Raises SQLAlchemy's errors when the database is unavailable, and `LookupError` when the value has been replaced.
        """
        if text.whole is not None:
            yield text.whole[start:stop]
            return
        while start < stop:
            piece = await self._database.run(value_text.read, text, start)
            if not piece:  # nobody has read it lately
                await self._database.run(value_text.cut, text)
                piece = await self._database.run(value_text.read, text, start)
            if not piece:
                raise LookupError("the value has been replaced while it was read")
            yield piece[: stop - start]
            start += len(piece)


def stored_text(whole: bytes) -> StoredText:
    """A short text to be served."""
    return StoredText("", len(whole), sha256(whole).hexdigest(), whole)


def _no_result(row: Row, found: StoredResult) -> Conflict:
    hint = " `partial=true` returns what its agents had returned by then." if found.text is not None else ""
    outcome = "failed" if found.state == "failed" else f"was {found.state}"
    why = f": {row['reason']}" if row["reason"] else "; its snapshot's `errors` say why."
    return Conflict(f"The run {outcome}, so it has no result{why}{hint}")
