"""Tokens for machines: created by a user, with a part of that user's rights, until they expire or are revoked.

A token is `lgf_<prefix>_<secret>`. Only a hash of the secret is stored, so it is shown once. The hash is a plain
SHA-256: the secret is random and as long as the hash, so it can't be guessed from it.
"""

import asyncio
import hmac
import logging
import re
import secrets
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.core.problems import Conflict, FieldError, Forbidden, Invalid, NotFound, Unauthorized
from backend.core.roles import NO_DAGS, Principal, Role, Scope, ServiceToken, covers
from backend.db import audit
from backend.db.engine import Database
from backend.db.identity import service_tokens as tokens
from backend.db.rows import Row
from backend.services.background import in_background
from backend.services.identity.accounts import Accounts
from backend.services.runs.page_cursor import decode_cursor, encode_cursor

log = logging.getLogger(__name__)

PREFIX = "lgf_"
_FORM = re.compile(r"lgf_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)

MAX_PER_USER = 50
"""Valid tokens of one user."""

MAX_KNOWN = 10_000
"""Tokens that one process remembers."""

_FLUSH = 10.0
"""Seconds between two writes of when tokens were last used."""


@dataclass(frozen=True, slots=True)
class TokenPage:
    """Tokens, newest first, and the cursor of the next page."""

    rows: list[Row]
    next_cursor: str | None


class ServiceTokens:
    """Creates, lists, revokes and verifies service tokens."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._database = database
        self._accounts = accounts
        self._known: OrderedDict[str, tuple[float, Row]] = OrderedDict()
        self._used: set[str] = set()

    async def create(
        self, who: Principal, name: str, scopes: Sequence[Scope], dag_ids: Sequence[str] | None, days: int
    ) -> tuple[str, Row]:
        """A new token and what is stored about it.

        Raises `Forbidden` and `Invalid` when it would exceed its creator's rights, and `Conflict` when the user has
        `MAX_PER_USER` valid tokens.
        """
        rights = who.rights
        for scope, dags in (("trigger", rights.starts), ("stop", rights.stops_own)):
            if scope in scopes and dags == NO_DAGS:
                raise Forbidden(f"You may not {scope} runs, so a token of yours can't have the scope {scope!r}.")
        unseen = [one for one in dag_ids or () if not covers(rights.reads, one)]
        if unseen:
            detail = f"there is no workflow {unseen[0]!r} that you may see"
            raise Invalid(f"/dag_ids: {detail}", errors=[FieldError("/dag_ids", detail)])
        prefix, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        values = {
            "prefix": prefix,
            "secret_hash": _hash(secret),
            "name": name,
            "user_id": who.username,
            "account": who.account,
            "scopes": sorted(set(scopes)),
            "dag_ids": sorted(set(dag_ids)) if dag_ids is not None else None,
            "expires_at": datetime.now(UTC) + timedelta(days=days),
        }

        def add(connection: Connection) -> Row:
            if tokens.count_live(connection, who.username) >= MAX_PER_USER:
                raise Conflict(f"You have {MAX_PER_USER} valid service tokens; revoke one first.")
            row = tokens.add(connection, values)
            shown = {"prefix": prefix, "scopes": values["scopes"], "dag_ids": values["dag_ids"], "days": days}
            audit.record(connection, who, "token.create", name, **shown)
            return row

        row = await self._database.run(add)
        return f"{PREFIX}{prefix}_{secret}", row

    async def list_page(self, user_id: str | None, *, cursor: str | None, limit: int) -> TokenPage:
        """Tokens of a user, or of all users. Raises `Invalid` for a malformed cursor."""
        before = decode_cursor(cursor) if cursor else None
        rows = await self._database.run(tokens.list_tokens, user_id=user_id, before=before, limit=limit + 1)
        page = rows[:limit]
        last = page[-1] if len(rows) > limit else None
        return TokenPage(page, encode_cursor(last["created_at"], str(last["id"])) if last else None)

    async def revoke(self, who: Principal, token_id: str) -> Row:
        """Revoke a token: one's own or, as an Admin, anybody's. Raises `NotFound`."""
        try:
            checked_id = str(uuid.UUID(token_id))
        except ValueError:
            raise NotFound("There is no such token.") from None

        def revoke(connection: Connection) -> Row | None:
            row = tokens.get(connection, checked_id)
            if row is None or not (row["user_id"] == who.username or who.role >= Role.ADMIN):
                return None
            if row["revoked_at"] is None:
                owner = row["user_id"] if row["user_id"] != who.username else None
                audit.record(connection, who, "token.revoke", row["name"], prefix=row["prefix"], owner=owner)
            return tokens.revoke(connection, checked_id, by=who.username)

        row = await self._database.run(revoke)
        if row is None:
            raise NotFound("There is no such token.")
        self._known.pop(row["prefix"], None)
        return row

    async def revoke_all(self, username: str, *, by: str) -> None:
        """Revoke all tokens of a user."""
        await self._database.run(tokens.revoke_all, username, by=by)
        self._known = OrderedDict((key, one) for key, one in self._known.items() if one[1]["user_id"] != username)

    async def verify(self, token: str) -> Principal:
        """Who a request with this token is made for. Raises `Unauthorized` and `Unavailable`."""
        form = _FORM.fullmatch(token)
        row = await self._find(form[1]) if form else None
        if form is None or row is None or not hmac.compare_digest(bytes(row["secret_hash"]), _hash(form[2])):
            raise Unauthorized("The service token is not valid.")
        return await self._principal(row)

    async def recheck(self, token: ServiceToken) -> Principal:
        """The same as `verify` for a request that is still being answered."""
        row = await self._find(token.prefix)
        if row is None or str(row["id"]) != token.id:
            raise Unauthorized("The service token is not valid.")
        return await self._principal(row)

    async def holder(self, prefix: str) -> Principal:
        """Who acts with the token of this prefix, with the rights that it gives now. Raises as `verify` does."""
        row = await self._find(prefix)
        if row is None:
            raise Unauthorized("The service token is not valid.")
        return await self._principal(row)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Record when tokens were last used, until the context ends."""
        async with in_background(self._record_uses()):
            yield

    async def _principal(self, row: Row) -> Principal:
        expires_at = row["expires_at"].timestamp()
        if row["revoked_at"] is not None:
            raise Unauthorized("The service token was revoked.")
        if expires_at <= time.time():
            raise Unauthorized("The service token has expired.")
        account = await self._accounts.get(row["user_id"])
        if account is None or account.mark != row["account"]:
            raise Unauthorized("The account that created the service token is gone or not active.")
        scopes: frozenset[Scope] = frozenset(row["scopes"])
        dags = frozenset(row["dag_ids"]) if row["dag_ids"] is not None else None
        token = ServiceToken(str(row["id"]), row["prefix"], row["name"], scopes, dags)
        self._used.add(token.id)
        return Principal(
            account.username,
            account.rights.limited(dags, scopes),
            expires_at=expires_at,
            token_id=token.id,
            account=account.mark,
            service_token=token,
        )

    async def _find(self, prefix: str) -> Row | None:
        known = self._known.get(prefix)
        if known is not None and time.monotonic() - known[0] < self._accounts.interval:
            self._known.move_to_end(prefix)
            return known[1]
        began = time.monotonic()
        row = await self._database.run_autocommit(tokens.find, prefix)
        if row is None:
            self._known.pop(prefix, None)
            return None
        self._known[prefix] = (began, row)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return row

    async def _record_uses(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH)
            used, self._used = self._used, set()
            if not used:
                continue
            try:
                await self._database.run(tokens.touch, sorted(used))
            except (SQLAlchemyError, OSError) as error:
                log.warning("the use of service tokens could not be recorded: %s", type(error).__name__)


def _hash(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
