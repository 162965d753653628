"""The states of conversations, as LangGraph's protocol shows them."""

import asyncio
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.checkpoints.plain_values import UnreadableValueError, plain
from backend.core.jsonable import to_jsonable
from backend.db.conversations import states
from backend.db.conversations.states import StateQuery
from backend.db.engine import Database
from backend.db.rows import Row

_CONTROL = ("__", "branch:", "join:")
"""How the names of channels begin that are LangGraph's own."""


class States:
    """Reads the states of conversations. No user's class is imported, nothing is unpickled."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, conversation: Row, query: StateQuery) -> list[dict[str, Any]]:
        """States of a conversation, newest first; without its own ones, those that it begins with."""
        thread = str(conversation["id"])
        found = await self._database.run(states.read, replace(query, first=query.first or conversation["shown_from"]))
        if not found and conversation["copied_from"] is not None:
            begun = replace(query, conversation_id=conversation["copied_from"], last=conversation["copied_checkpoint"])
            found = await self._database.run(states.read, begun)
        return await asyncio.to_thread(lambda: [state_json(thread, row) for row in found])

    async def latest(self, conversation: Row) -> dict[str, Any]:
        """The latest state; an empty one if there is none yet."""
        found = await self.read(conversation, StateQuery(str(conversation["id"])))
        return found[0] if found else empty_state(str(conversation["id"]))


def empty_state(thread: str) -> dict[str, Any]:
    """The state of a conversation in which nothing was said yet."""
    return {
        "values": {},
        "next": [],
        "tasks": [],
        "checkpoint": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": None},
        "metadata": {},
        "created_at": None,
        "parent_checkpoint": None,
        "interrupts": [],
    }


def state_json(thread: str, row: Row) -> dict[str, Any]:
    """A state of a conversation as clients know it."""
    tasks = row["tasks"] or []
    place = {"thread_id": thread, "checkpoint_ns": row["checkpoint_ns"]}
    parent = row["parent_checkpoint_id"]
    return {
        "values": _values(row["inline"] or {}, row["blobs"] or []),
        "next": list(row["next"] or []),
        "tasks": [_task(thread, task) for task in tasks],
        "checkpoint": {**place, "checkpoint_id": row["checkpoint_id"]},
        "metadata": {**row["metadata"], "thread_id": thread},
        "created_at": row["created_at"],
        "parent_checkpoint": None if parent is None else {**place, "checkpoint_id": parent},
        "interrupts": [one for task in tasks for one in task.get("interrupts") or []],
    }


def _task(thread: str, task: Mapping[str, Any]) -> dict[str, Any]:
    inner = task.get("checkpoint") or (task.get("state") or {}).get("configurable")
    return {
        "id": task.get("id"),
        "name": task.get("name"),
        "path": task.get("path") or [],
        "error": task.get("error"),
        "interrupts": task.get("interrupts") or [],
        "checkpoint": None if inner is None else {**inner, "thread_id": thread},
        "state": None,
        "result": task.get("result"),
    }


def _values(inline: Mapping[str, Any], blobs: Sequence[Sequence[Any]]) -> dict[str, Any]:
    found = {name: value for name, value in inline.items() if not name.startswith(_CONTROL)}
    for name, kind, content in blobs:
        if name.startswith(_CONTROL) or kind == "empty":
            continue
        try:
            found[name] = to_jsonable(plain(kind, b64decode(content or "")))
        except UnreadableValueError as error:
            found[name] = f"[{error}]"
    return found
