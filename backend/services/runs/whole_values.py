"""Makes the JSON text of a whole input or output of an agent or node: read, converted, redacted and cut into pieces.

That takes seconds for tens of megabytes, so it happens in a thread for small values, and for large ones in a process
of its own, which ends with it (`python -m backend.services.runs.whole_values`, see `main`).
"""

import asyncio
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Literal

from sqlalchemy import Connection

from backend.checkpoints.input_pictures import DIGEST, digest
from backend.checkpoints.plain_values import UnreadableValueError, folded, plain
from backend.core.child_process import FOLDER, bare_environment, module_command
from backend.core.jsonable import dumps, loads
from backend.core.problems import Gone, Unavailable
from backend.core.redaction import redact
from backend.db.engine import make_engine
from backend.db.rows import Row
from backend.db.runs import batch_items, node_values, value_text
from backend.db.runs.node_values import SENDS, NodeExecution
from backend.db.runs.traces import Place

log = logging.getLogger(__name__)

SECONDS = 120.0
"""How long a process may take for one value."""

INCOMPLETE = "A part of it is not in its checkpoint: the graph doesn't keep it there, or only what changed."
UNKNOWN_INPUT = "Its checkpoints don't keep this kind of input."

_PICTURE = re.compile(rf"({DIGEST.pattern}) *")

Side = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class ValueSource:
    """Where an input or output is, of which the row of `agent_traces` has an `excerpt`; `parts` are its names.

    One of these: what the node `execution` with the id `task` read or wrote, without such an id the whole state at a
    checkpoint, the input of the graph on the threads `agents`, the output of a batch's `item`, or that of `agent` in
    the text of an XCom.
    """

    side: Side
    parts: list[str]
    excerpt: Any
    execution: NodeExecution | None = None
    task: str = ""
    agents: tuple[str, ...] = ()
    item: tuple[str, Place] | None = None
    """The id of the execution, and the place of the item."""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class WholeText:
    """The size and hash of a text; a longer one than a piece is not `whole`, but in `value_pieces`."""

    size: int
    sha256: str
    whole: bytes | None


def make_text(connection: Connection, source: ValueSource, xcom: bytes = b"") -> WholeText:
    """Make the text of a value, and cut it into pieces if it is long. Raises `Gone` when the value isn't there."""
    try:
        value = _read(connection, source, xcom)
    except UnreadableValueError as error:
        raise Gone(f"The whole value can't be shown: {error}.") from None
    made = _PICTURE.sub(r"\1", dumps(redact(value))).encode()
    name = sha256(made).hexdigest()
    if len(made) <= value_text.PIECE:
        return WholeText(len(made), name, made)
    value_text.keep(connection, name, made)
    return WholeText(len(made), name, None)


def _read(connection: Connection, source: ValueSource, xcom: bytes) -> Any:
    if source.item is not None:
        return batch_items.read_output(connection, *source.item)
    if source.execution is not None and not source.task:
        return _state(connection, source.execution)
    if source.execution is not None and source.side == "output":
        writes = node_values.read_writes(connection, source.execution, source.task)
        shown = [(row["channel"], _value(row)) for row in writes if _is_own(row["channel"], source.parts)]
        return _complete(folded(shown), source)
    if source.execution is not None:
        return _node_input(connection, source.execution, source)
    if source.agents:
        starts = [_value(row) for row in node_values.read_start(connection, source.agents)]
        if len(starts) != 1:
            raise Gone("Its checkpoints have several inputs of this agent, or none any more.")
        return _only(starts[0], source)
    return _of_agent(loads(xcom)["value"], source.agent)


def _state(connection: Connection, found: NodeExecution) -> dict[str, Any]:
    """All channels of a state. One whose form isn't read has the reason in its place."""
    shown, rows = node_values.read_state(connection, found, [])
    state = {name: value for name, value in shown.items() if _is_own(name, [])}
    for row in rows:
        if _is_own(row["channel"], []):
            try:
                state[row["channel"]] = plain(row["type"], row["blob"], digest)
            except UnreadableValueError as error:
                state[row["channel"]] = f"[not shown: {error}]"
    return state


def _node_input(connection: Connection, found: NodeExecution, source: ValueSource) -> Any:
    if found.sent is not None:
        _, rows = node_values.read_state(connection, found, [SENDS])
        sends = _value(rows[0]) if rows else []
        if not isinstance(sends, list) or len(sends) <= found.sent:
            raise Gone(UNKNOWN_INPUT)
        return sends[found.sent]["arg"]
    if not isinstance(source.excerpt, dict):
        raise Gone(UNKNOWN_INPUT)
    shown, rows = node_values.read_state(connection, found, source.parts)
    state = {name: value for name, value in shown.items() if _is_own(name, source.parts)}
    state |= {row["channel"]: _value(row) for row in rows if _is_own(row["channel"], source.parts)}
    return _complete(state, source)


def _complete(found: dict[str, Any], source: ValueSource) -> dict[str, Any]:
    """The parts in the order of the original. A channel that nothing was written to has its default, which is short
    and therefore in the excerpt. Raises `Gone` if anything else is missing."""
    shown = source.excerpt if isinstance(source.excerpt, dict) else {}
    for name in source.parts:
        if name not in found:
            if name not in shown or shown[name]:
                raise Gone(INCOMPLETE)
            found[name] = shown[name]
    return {name: found[name] for name in source.parts or found}


def _only(value: Any, source: ValueSource) -> Any:
    return {name: value[name] for name in source.parts if name in value} if isinstance(value, dict) else value


def _of_agent(result: Any, agent: str) -> Any:
    """The output of an agent in what its task returned."""
    if not isinstance(result, dict):
        raise Gone("Its task returned something else.")
    if "agents" not in result:
        return result.get("output")
    if agent not in result.get("results", {}):
        raise Gone("It is not in what its task returned.")
    return result["results"][agent]


def _value(row: Row) -> Any:
    return plain(row["type"], row["blob"])


def _is_own(channel: str, parts: list[str]) -> bool:
    """Whether a channel is the graph's own; LangGraph's are for its control flow."""
    return channel in parts if parts else not channel.startswith(("__", "branch:", "join:"))


async def make_text_in_process(database_url: str, source: ValueSource, xcom: bytes = b"") -> WholeText:
    """Do what `make_text` does in a process of its own. Raises `Gone`, and `Unavailable` when the process fails."""
    request = json.dumps({"database_url": database_url, "source": asdict(source)})
    process = await asyncio.create_subprocess_exec(
        *module_command("backend.services.runs.whole_values"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=FOLDER,
        env=bare_environment(),
    )
    try:
        async with asyncio.timeout(SECONDS):
            answer, _ = await process.communicate(request.encode() + b"\n" + xcom)
    except TimeoutError:
        raise Unavailable("The value takes too long to read.", retry_after=60) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        log.error("a value could not be read: its process ended with %s", process.returncode)
        raise Unavailable("The value could not be read.", retry_after=5)
    found = json.loads(answer)
    if "gone" in found:
        raise Gone(found["gone"])
    return WholeText(found["size"], found["sha256"], found["whole"].encode() if found["whole"] is not None else None)


def main() -> None:
    """Make one text. Standard input has the request as a line of JSON, then the XCom; the text's size and hash, or
    why it is gone, is written to standard output."""
    os.nice(5)  # whoever waits for this must not slow down everybody else
    request = json.loads(sys.stdin.buffer.readline())
    engine = make_engine(request["database_url"], application="visual_ai_backend", pool_size=1)
    try:
        with engine.begin() as connection:
            made = make_text(connection, _source(request["source"]), sys.stdin.buffer.read())
            answer = {**asdict(made), "whole": made.whole.decode() if made.whole is not None else None}
    except Gone as gone:
        answer = {"gone": gone.detail}
    finally:
        engine.dispose()
    sys.stdout.write(json.dumps(answer))


def _source(fields: Mapping[str, Any]) -> ValueSource:
    execution = NodeExecution(**fields["execution"]) if fields["execution"] is not None else None
    item = (fields["item"][0], Place(**fields["item"][1])) if fields["item"] is not None else None
    return ValueSource(**{**fields, "execution": execution, "agents": tuple(fields["agents"]), "item": item})


if __name__ == "__main__":
    main()
