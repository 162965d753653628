"""`tokens`: creates, lists and revokes service tokens."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from backend.cli import formatting
from backend.cli.connection import Backend
from backend.cli.errors import SUCCESS
from backend.cli.formatting import safe
from backend.cli.session import say
from backend.cli.tables import print_table

_COLUMNS = ("ID", "NAME", "TOKEN", "SCOPES", "WORKFLOWS", "USER", "EXPIRES", "LAST USED", "STATE")


@dataclass(frozen=True, slots=True)
class CreateToken:
    """Creates a token and prints it."""

    body: dict[str, Any]
    as_json: bool

    async def __call__(self, backend: Backend) -> int:
        """Create it."""
        made = await backend.post("/tokens", json=self.body)
        if self.as_json:
            print(json.dumps(made))
            return SUCCESS
        print(made["token"])
        until = datetime.fromisoformat(made["expires_at"]).astimezone()
        say(f"Valid until {until:%Y-%m-%d %H:%M}. Keep it now: it isn't shown again.")
        return SUCCESS


@dataclass(frozen=True, slots=True)
class ListTokens:
    """Prints tokens, newest first."""

    query: dict[str, Any]
    as_json: bool

    async def __call__(self, backend: Backend) -> int:
        """Print them."""
        found = [one async for one in backend.entries("/tokens", "tokens", self.query)]
        if self.as_json:
            for one in found:
                print(json.dumps(one))
        else:
            print_table(_COLUMNS, [_cells(one) for one in found], wrapped=(1, 4), nothing="No service tokens.")
        return SUCCESS


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Revokes a token."""

    token_id: str

    async def __call__(self, backend: Backend) -> int:
        """Revoke it."""
        revoked = await backend.delete(f"/tokens/{quote(self.token_id, safe='')}")
        say(f"Revoked the token {revoked['name']!r} of {revoked['user_id']}.")
        return SUCCESS


def _cells(token: dict[str, Any]) -> tuple[str, ...]:
    state = "valid"
    if datetime.fromisoformat(token["expires_at"]) <= datetime.now(UTC):
        state = "expired"
    if token["revoked_at"] is not None:
        state = "revoked"
    cells = (
        token["id"], token["name"], f"lgf_{token['prefix']}_…", " ".join(token["scopes"]),
        " ".join(token["dag_ids"]) if token["dag_ids"] else "all", token["user_id"],
        formatting.moment(token["expires_at"]),
        formatting.moment(token["last_used_at"]) if token["last_used_at"] else "never", state,
    )  # fmt: skip
    return tuple(safe(cell) for cell in cells)
