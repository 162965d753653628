"""Threads of LangGraph's protocol: conversations, with the rights of those who talk."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from backend.core.problems import Conflict, FieldError, Forbidden, Invalid, NotFound
from backend.core.roles import NO_DAGS, Principal, covers
from backend.core.turns import is_named
from backend.db.conversations import conversations, turns
from backend.db.conversations.conversations import Search
from backend.db.conversations.states import StateQuery
from backend.db.engine import Database
from backend.db.rows import Row
from backend.services.langgraph.states import States

MAX_TTL_MINUTES = 10 * 366 * 1_440


class Conversations:
    """Makes, finds and deletes conversations. Whoever may see a run of somebody else's may see its conversation."""

    def __init__(self, database: Database, states: States) -> None:
        self._database = database
        self.states = states

    async def get(self, who: Principal, conversation_id: str, *, to_change: bool = False) -> Row:
        """A conversation. Raises `NotFound`, also for one that the user must not see, and with `to_change`
        `Forbidden` for one that they may only see."""
        row = await self._database.run_autocommit(conversations.get, conversation_id)
        if row is None or not may_see(who, row):
            raise NotFound(f"There is no thread {conversation_id}.")
        if to_change:
            check_may_change(who, row)
        return row

    async def find(self, who: Principal, conversation_id: str) -> Row | None:
        """The same; None if there is none at all."""
        row = await self._database.run_autocommit(conversations.get, conversation_id)
        if row is not None and not may_see(who, row):
            raise NotFound(f"There is no thread {conversation_id}.")
        return row

    async def create(
        self,
        who: Principal,
        *,
        conversation_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_exists: str = "raise",
        ttl: Any = None,
        temporary: bool = False,
        dag_id: str | None = None,
        graph_id: str | None = None,
    ) -> Row:
        """Make a conversation.

        Raises `Forbidden` for a Viewer or without the scope `read`, `Conflict` if there is one with this id unless
        `if_exists` is `do_nothing`, and `Invalid` for a `ttl` that is none, or an id that only a DAG's names become.
        """
        if who.rights.starts == NO_DAGS:
            raise Forbidden("The role Viewer may not talk to graphs; the role User or higher is needed.")
        if who.service_token is not None and "read" not in who.service_token.scopes:
            raise Forbidden(f"The service token {who.service_token.name!r} needs the scope 'read' as well.")
        key = conversation_id or str(uuid.uuid4())
        if is_named(key):
            detail = "is a UUID of version 8, which only the names of a DAG's conversations become; use another version"
            raise Invalid(f"/thread_id: {detail}", errors=[FieldError("/thread_id", detail)])
        expires = expiry(ttl)
        made = await self._database.run(
            conversations.create,
            key,
            user=who.username,
            metadata=metadata or {},
            temporary=temporary,
            expires_at=expires,
            dag_id=dag_id,
            graph_id=graph_id,
        )
        if not made:
            row = await self.find(who, key)
            if row is None or if_exists != "do_nothing":
                raise Conflict(f"There is a thread {key} already, or there was one.")
            return row
        return await self.get(who, key)

    async def update(self, who: Principal, conversation_id: str, metadata: Mapping[str, Any], ttl: Any) -> Row:
        """Add to a conversation's metadata, and set when it is deleted. Raises as `get`, and `Invalid`."""
        await self.get(who, conversation_id, to_change=True)
        await self._database.run(
            conversations.update,
            conversation_id,
            metadata=metadata,
            expires=ttl is not None,
            expires_at=expiry(ttl),
        )
        return await self.get(who, conversation_id)

    async def search(self, who: Principal, wanted: Search) -> list[Row]:
        """The conversations that the user sees, in order."""
        return await self._database.run(conversations.search, wanted, who.visible)

    async def count(self, who: Principal, wanted: Search) -> int:
        """How many conversations there are that the user sees."""
        return await self._database.run(conversations.count, wanted, who.visible)

    async def delete(self, conversation_id: str) -> None:
        """Delete a conversation that the caller has found, and whose runs are over."""
        await self._database.run(conversations.delete, conversation_id)

    async def copy(self, who: Principal, conversation_id: str) -> Row:
        """Make a conversation that begins with the states of another one. Raises as `get`."""
        source = await self.get(who, conversation_id)
        head = (await self.states.latest(source))["checkpoint"]["checkpoint_id"]
        key = str(uuid.uuid4())
        root = source["copied_from"] if source["copied_from"] is not None else conversation_id

        def write(connection: Connection) -> None:
            conversations.create(
                connection,
                key,
                user=who.username,
                metadata=source["metadata"],
                copied_from=root if head is not None else None,
                copied_checkpoint=head,
                dag_id=source["dag_id"],
                graph_id=source["graph_id"],
            )

        await self._database.run(write)
        return await self.get(who, key)

    async def keep_latest(self, who: Principal, conversation_id: str) -> bool:
        """Show only the latest state of a conversation from now on; returns whether there is one. Raises as `get`."""
        row = await self.get(who, conversation_id, to_change=True)
        head = (await self.states.latest(row))["checkpoint"]["checkpoint_id"]
        if head is not None:
            await self._database.run(conversations.show_from, conversation_id, head)
        return head is not None

    async def history(
        self,
        row: Row,
        *,
        limit: int,
        before: str | None,
        namespace: str,
        metadata: Mapping[str, Any] | None,
    ) -> list[dict[str, Any]]:
        """The states of a conversation, newest first."""
        query = StateQuery(str(row["id"]), namespace=namespace, before=before, metadata=metadata, limit=limit)
        return await self.states.read(row, query)

    async def active(self, conversation_id: str) -> list[Row]:
        """The turns whose runs are under way, oldest first."""
        return await self._database.run(turns.active, conversation_id)


def may_see(who: Principal, row: Row) -> bool:
    """Whether the user may see a conversation."""
    dag_id = row["dag_id"]
    own = row["user_id"] == who.username
    if dag_id is None:
        return own or who.sees_all
    return bool(covers(who.rights.reads, dag_id) and (own or covers(who.rights.sees, dag_id)))


def check_may_change(who: Principal, row: Row) -> None:
    """Raise `Forbidden` if the user may not talk in a conversation, change or delete it."""
    own = row["user_id"] == who.username
    rights = who.rights
    may = own and rights.starts != NO_DAGS
    if not may and not covers(rights.stops, row["dag_id"] or ""):
        raise Forbidden("A User may change only their own threads; Op and Admin may change all.")


def expiry(ttl: Any) -> datetime | None:
    """When a conversation with this `ttl` is deleted: a number of minutes, or `{"ttl": minutes}`."""
    minutes = ttl.get("ttl") if isinstance(ttl, Mapping) else ttl
    if minutes is None:
        return None
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes <= MAX_TTL_MINUTES:
        detail = f"has to be a number of minutes above 0 and up to {MAX_TTL_MINUTES}"
        raise Invalid(f"/ttl: {detail}", errors=[FieldError("/ttl", detail)])
    return datetime.now(UTC) + timedelta(minutes=minutes)


def thread_json(row: Row, state: Mapping[str, Any] | None, select: Sequence[str] | None = None) -> dict[str, Any]:
    """A conversation as clients know it, with its latest state."""
    found = {
        "thread_id": str(row["id"]),
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "state_updated_at": row["state_updated_at"],
        "metadata": row["metadata"],
        "status": row["status"],
        "config": row["config"],
        "values": None if state is None else state["values"] or None,
        "interrupts": {}
        if state is None
        else {task["id"]: task["interrupts"] for task in state["tasks"] if task["interrupts"]},
    }
    return found if select is None else {name: found[name] for name in ("thread_id", *select) if name in found}
