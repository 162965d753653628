"""Lines of a task's log as Airflow sends them: newline-delimited JSON with a preamble."""

import json
from collections.abc import AsyncIterator

LONGEST = 2**20
"""A longer line, in bytes, is left out: no line may fill the memory."""

_PREAMBLE = "::group::Log message source details"
_PREAMBLE_END = "::endgroup::"
_PREAMBLE_LINES = 100


async def split_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines in a stream of bytes, without their ends, holding one at a time.

    In place of one that is too long comes a line that says so.
    """
    kept: list[bytes] = []
    size = 0
    async for piece in pieces:
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            size += end - start
            yield b"".join([*kept, piece[start:end]]) if size <= LONGEST else _left_out(size)
            kept, size, start = [], 0, end + 1
        size += len(piece) - start
        kept = [*kept, piece[start:]] if size <= LONGEST else []
    if size:
        yield b"".join(kept) if size <= LONGEST else _left_out(size)


class TaskLines:
    """The lines that a task wrote, without the preamble in which Airflow tells where it read them."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._lines = split_lines(pieces)
        self.sources: list[bytes] = []
        """The lines of the preamble, once the log was read. When there are no others, they say why."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        first, inside = True, False
        async for line in self._lines:
            if first and _event(line) == _PREAMBLE:
                inside = True
            elif inside:
                inside = _event(line) != _PREAMBLE_END and len(self.sources) < _PREAMBLE_LINES
                if inside:
                    self.sources.append(line)
            else:
                yield line
            first = False


def _left_out(size: int) -> bytes:
    entry = {"event": f"A line of {size} bytes was left out.", "level": "warning"}
    return json.dumps(entry).encode()


def _event(line: bytes) -> str | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    event = entry.get("event") if isinstance(entry, dict) else None
    return event if isinstance(event, str) else None
