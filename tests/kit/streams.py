"""A strict client of event streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

DAG = "visual_ai_workflow"


@dataclass(frozen=True)
class Got:
    """An event as the client received it."""

    id: str | None
    type: str
    data: Any


class Parser:
    """Parses server-sent events by the WHATWG standard, section 9.2.6, but is strict where browsers are lenient."""

    def __init__(self) -> None:
        self.comments: list[str] = []
        self.retry: int | None = None
        self._id: str | None = None
        self._type = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Got | None:
        if not line:
            got = Got(self._id, self._type, json.loads("\n".join(self._data))) if self._data else None
            self._id, self._type, self._data = None, "", []
            return got
        if line.startswith(":"):
            self.comments.append(line[1:].strip())
            return None
        name, _, value = line.partition(": ")
        match name:
            case "id":
                self._id = value
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "retry":
                self.retry = int(value)
            case _:
                raise AssertionError(f"no field of the standard: {line!r}")
        return None


async def stream(
    http: httpx.AsyncClient,
    cursor: int | str | None = None,
    *,
    run_id: str = "run",
    headers: Mapping[str, str] | None = None,
    parser: Parser | None = None,
) -> AsyncGenerator[Got]:
    """The events of a stream until the server closes it."""
    parser = parser or Parser()
    own = {"Last-Event-ID": str(cursor)} if cursor is not None else {}
    path = f"/workflow-status/stream/{DAG}/{run_id}"
    async with http.stream("GET", path, headers={**(headers or {}), **own}) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in response.headers["cache-control"]
        async for line in response.aiter_lines():
            if (got := parser.feed(line)) is not None:
                yield got


async def all_of(frames: AsyncIterator[Got]) -> list[Got]:
    async with asyncio.timeout(20):
        return [got async for got in frames]


async def until(frames: AsyncIterator[Got], count: int) -> list[Got]:
    """The next `count` events."""
    async with asyncio.timeout(20):
        return [await anext(frames) for _ in range(count)]
