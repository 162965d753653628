"""The tool calls of a run's agents, for those who see the run."""

from dataclasses import dataclass

from backend.core.roles import Principal
from backend.db import tool_calls
from backend.db.engine import Database
from backend.db.rows import Row
from backend.services.runs.page_cursor import decode_cursor, encode_cursor
from backend.services.runs.status import Status


@dataclass(frozen=True, slots=True)
class ToolCallPage:
    """Tool calls, oldest first, and the cursor of the next page."""

    rows: list[Row]
    next_cursor: str | None


class ToolCalls:
    """Reads the ledger of tool calls."""

    def __init__(self, database: Database, status: Status) -> None:
        self._database = database
        self._status = status

    async def list_page(
        self, who: Principal, dag_id: str, dag_run_id: str, *, state: str | None, cursor: str | None, limit: int
    ) -> ToolCallPage:
        """A run's calls. Raises `NotFound`, and `Invalid` for a malformed cursor."""
        run = await self._status.row(who, dag_id, dag_run_id)
        after = decode_cursor(cursor) if cursor else None
        rows = await self._database.run(tool_calls.list_page, str(run["id"]), state=state, after=after, limit=limit + 1)
        shown = rows[:limit]
        more = len(rows) > limit
        return ToolCallPage(shown, encode_cursor(shown[-1]["claimed_at"], str(shown[-1]["claimant"])) if more else None)
