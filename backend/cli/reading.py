"""`list`, `result` and `logs`: commands that read runs."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx

from backend.cli import formatting
from backend.cli.connection import SILENCE, Backend, Backoff, run_path
from backend.cli.errors import SUCCESS, CliError, Unreachable
from backend.cli.formatting import safe
from backend.cli.session import say
from backend.cli.tables import print_table
from backend.core.log_text import as_text
from backend.core.states import RUN_STATES

_AGO = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_COLUMNS = ("WORKFLOW", "RUN", "STATE", "DONE", "QUEUED", "TOOK", "TOKENS", "COST", "USER")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which runs to list; `since` is an ISO 8601 time, or an age: `30m`, `24h`, `7d`."""

    dag_id: str | None
    states: list[str] = field(default_factory=list)
    user_id: str | None = None
    since: str | None = None
    limit: int = 20

    def query(self) -> dict[str, Any]:
        """The query parameters. Raises `CliError` for an invalid filter."""
        if unknown := sorted({*self.states} - {*RUN_STATES}):
            raise CliError(f"--state: {unknown[0]!r} is not one of {', '.join(RUN_STATES)}")
        since = moment_of(self.since, "--since")
        given = {"dag_id": self.dag_id, "state": self.states or None, "user_id": self.user_id, "since": since}
        return {name: value for name, value in given.items() if value is not None}


def moment_of(given: str | None, option: str) -> str | None:
    """The moment of an ISO 8601 time or an age: `30m`, `24h`, `7d`. Raises `CliError` naming the option."""
    if given is None:
        return None
    if ago := _AGO.fullmatch(given):
        return (datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    try:
        return datetime.fromisoformat(given).astimezone().isoformat()
    except ValueError:
        detail = "is neither a time like 2026-01-31T12:00 nor an age like 30m, 24h or 7d"
        raise CliError(f"{option}: {given!r} {detail}") from None


class ListRuns:
    """Prints runs, newest first."""

    def __init__(self, filters: Filters, *, as_json: bool) -> None:
        self._query = filters.query()
        self._limit = filters.limit
        self._as_json = as_json

    async def __call__(self, backend: Backend) -> int:
        """Print the runs; as JSON, each one as soon as its page arrives."""
        found: list[dict[str, Any]] = []
        async for execution in backend.entries("/workflow-status", "executions", self._query, most=self._limit):
            if self._as_json:
                print(json.dumps(execution))
            else:
                found.append(execution)
        if not self._as_json:
            print_table(_COLUMNS, [_cells(execution) for execution in found], wrapped=(0, 1, 8), nothing="No runs.")
        return SUCCESS


class ShowResult:
    """Prints a run's result: unchanged into a pipe, indented on a terminal."""

    def __init__(self, dag_id: str, dag_run_id: str, *, partial: bool) -> None:
        self._path = run_path(dag_id, dag_run_id, "/result")
        self._partial = partial

    async def __call__(self, backend: Backend) -> int:
        """Print the result."""
        query = {"partial": True} if self._partial else {}
        async with backend.open(self._path, params=query) as response:
            if sys.stdout.isatty():
                shown = json.dumps(json.loads(await response.aread()), indent=2, ensure_ascii=False)
                print(safe(shown))
                return SUCCESS
            async for piece in response.aiter_bytes():
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.write(b"\n")
        return SUCCESS


class ShowLogs:
    """Prints the log of one try of a task. After a lost connection it continues where it stopped."""

    def __init__(
        self,
        dag_id: str,
        dag_run_id: str,
        task_id: str,
        *,
        try_number: int | None,
        map_index: int | None,
        follow: bool,
        as_json: bool,
        give_up_after: float,
    ) -> None:
        self._path = run_path(dag_id, dag_run_id, f"/tasks/{quote(task_id, safe='')}/logs")
        self._query: dict[str, Any] = {"follow": follow}
        if try_number is not None:
            self._query["try_number"] = try_number
        if map_index is not None:
            self._query["map_index"] = map_index
        self._as_json = as_json
        self._backoff = Backoff(give_up_after)
        self._printed = 0
        self._opened = False

    async def __call__(self, backend: Backend) -> int:
        """Print the log; with `follow`, until the try has finished."""
        while True:
            try:
                await self._read(backend)
            except Unreachable as failure:
                if not self._opened:
                    raise
                wait = self._backoff.wait(failure)
                say(f"{failure.message}; retrying in {wait:.0f} s")
                await asyncio.sleep(wait)
                continue
            if not self._printed:
                say("The log is empty.")
            return SUCCESS

    async def _read(self, backend: Backend) -> None:
        headers = {"Accept": "application/x-ndjson"}
        query = self._query | {"after": self._printed}
        async with backend.open(self._path, silence=SILENCE, headers=headers, params=query) as response:
            self._opened = True
            # If the task is retried meanwhile, this stays the log of the same try.
            self._query["try_number"] = int(response.headers["x-try-number"])
            async for line in _lines(response):
                self._backoff.succeeded()
                if line:
                    self._printed += 1
                    text = line.decode(errors="replace") if self._as_json else safe(as_text(line))
                    if text:
                        print(text, flush=True)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


def _cells(execution: dict[str, Any]) -> tuple[str, ...]:
    used = execution["usage"]["input_tokens"] + execution["usage"]["output_tokens"]
    took = formatting.age(execution["started_at"], execution["finished_at"])
    cells = (
        execution["dag_id"], execution["dag_run_id"], execution["state"], f"{execution['progress']} %",
        formatting.moment(execution["queued_at"]), formatting.duration(took), f"{used:,}",
        formatting.cost(execution["cost_usd"]), execution["user_id"] or formatting.NOTHING,
    )  # fmt: skip
    return tuple(safe(cell) for cell in cells)
