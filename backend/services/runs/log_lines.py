"""Splits a task's log, which Airflow sends as newline-delimited JSON, into lines and removes its preamble."""

import json
from collections.abc import AsyncIterator

LONGEST = 2**20
"""Bytes of the longest line that is passed on, so that no line can fill the memory."""

_PREAMBLE = "::group::Log message source details"
_PREAMBLE_END = "::endgroup::"
_PREAMBLE_LINES = 100


async def split_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield, for each piece of a stream of bytes, the lines that end in it, without their line ends.

    A line that is too long is replaced with one that says so.
    """
    kept: list[bytes] = []
    size = 0
    async for piece in pieces:
        first, *others = piece.split(b"\n")
        size += len(first)
        kept = [*kept, first] if size <= LONGEST else []
        if not others:
            continue
        lines = [b"".join(kept) if size <= LONGEST else _omitted(size)]
        lines += [line if len(line) <= LONGEST else _omitted(len(line)) for line in others[:-1]]
        kept, size = [others[-1]], len(others[-1])
        yield lines
    if size:
        yield [b"".join(kept) if size <= LONGEST else _omitted(size)]


class TaskLines:
    """Yields the lines that a task wrote, without the preamble in which Airflow says where it read them."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._lines = split_lines(pieces)
        self._preamble: bool | None = None
        self.sources: list[bytes] = []
        """The lines of the preamble, once the log has been read. If there are no others, they say why."""

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        async for lines in self._lines:
            own = lines if self._preamble is False else [line for line in lines if self._is_own(line)]
            if own:
                yield own

    def _is_own(self, line: bytes) -> bool:
        if self._preamble is None:  # the first line
            self._preamble = _event(line) == _PREAMBLE
            return not self._preamble
        if not self._preamble:
            return True
        if _event(line) == _PREAMBLE_END or len(self.sources) == _PREAMBLE_LINES:
            self._preamble = False
        else:
            self.sources.append(line)
        return False


def _omitted(size: int) -> bytes:
    entry = {"event": f"A line of {size} bytes was omitted.", "level": "warning"}
    return json.dumps(entry).encode()


def _event(line: bytes) -> str | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    event = entry.get("event") if isinstance(entry, dict) else None
    return event if isinstance(event, str) else None
