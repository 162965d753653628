"""`limits`: lists, sets and removes an operator's limits."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from backend.cli.connection import Backend
from backend.cli.errors import SUCCESS
from backend.cli.formatting import safe
from backend.cli.session import say
from backend.cli.tables import print_table

_COLUMNS = ("ID", "FOR", "KIND", "PER", "USED", "LIMIT", "RESETS")


@dataclass(frozen=True, slots=True)
class ListLimits:
    """Prints limits by their ids."""

    path: str
    as_json: bool

    async def __call__(self, backend: Backend) -> int:
        """Print them."""
        found = (await backend.get(self.path))["limits"]
        if self.as_json:
            for one in found:
                print(json.dumps(one))
        else:
            print_table(_COLUMNS, [_cells(one) for one in found], wrapped=(0, 1), nothing="No limits.")
        return SUCCESS


@dataclass(frozen=True, slots=True)
class SetLimit:
    """Sets a limit. Without an id, it gets one that is made of its subject, kind and period."""

    limit_id: str | None
    body: dict[str, Any]
    as_json: bool

    async def __call__(self, backend: Backend) -> int:
        """Set it."""
        parts = [self.body["subject"], self.body["kind"], self.body.get("period")]
        made = re.sub(r"[^A-Za-z0-9._:@-]", "_", ".".join(filter(None, parts)))[:100]
        limit = await backend.put(f"/limits/{quote(self.limit_id or made, safe='')}", json=self.body)
        if self.as_json:
            print(json.dumps(limit))
        else:
            say(f"Set the limit {safe(limit['id'])!r}.")
        return SUCCESS


@dataclass(frozen=True, slots=True)
class RemoveLimit:
    """Removes a limit."""

    limit_id: str

    async def __call__(self, backend: Backend) -> int:
        """Remove it."""
        removed = await backend.delete(f"/limits/{quote(self.limit_id, safe='')}")
        say(f"Removed the limit {safe(removed['id'])!r}.")
        return SUCCESS


def _cells(one: dict[str, Any]) -> list[str]:
    resets = one["resets_at"]
    return [
        safe(one["id"]),
        safe(one["subject"]),
        one["kind"],
        one["period"] or "",
        "" if one["used"] is None else f"{one['used']:.10g}",
        f"{one['limit']:.15g}",
        f"{datetime.fromisoformat(resets).astimezone():%Y-%m-%d %H:%M}" if resets else "",
    ]
