"""`audit`: prints the audit log."""

import json
from dataclasses import dataclass
from typing import Any

from backend.cli import formatting
from backend.cli.connection import Backend
from backend.cli.errors import SUCCESS
from backend.cli.formatting import safe
from backend.cli.tables import print_table

_COLUMNS = ("WHEN", "USER", "ACTION", "OUTCOME", "OBJECT", "ADDRESS", "CREDENTIAL", "DETAILS")
_NAMES = ("user_id", "action", "outcome", "object", "address", "credential")


@dataclass(frozen=True, slots=True)
class ListAudit:
    """Prints entries, newest first."""

    query: dict[str, Any]
    limit: int
    as_json: bool

    async def __call__(self, backend: Backend) -> int:
        """Print them; as JSON, each one as soon as its page arrives."""
        found: list[dict[str, Any]] = []
        async for entry in backend.entries("/audit", "entries", self.query, most=self.limit):
            if self.as_json:
                print(json.dumps(entry))
            else:
                found.append(entry)
        if not self.as_json:
            print_table(_COLUMNS, [_cells(one) for one in found], wrapped=(4, 7), nothing="No entries.")
        return SUCCESS


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    details = " ".join(f"{name}={value}" for name, value in entry["details"].items())
    cells = (formatting.moment(entry["occurred_at"]), *(entry[name] or "-" for name in _NAMES), details)
    return tuple(safe(cell) for cell in cells)
