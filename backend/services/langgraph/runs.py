"""Runs of LangGraph's protocol: each is a run of a workflow in Airflow, and a turn of a conversation."""

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from backend.core.problems import Conflict, FieldError, Forbidden, Invalid, NotFound, Problem, pointer
from backend.core.redaction import redact
from backend.core.roles import Principal
from backend.core.turns import TURN, Protocol, Turn
from backend.db.conversations import conversations, frames, turns
from backend.db.conversations.turns import NewTurn
from backend.db.engine import Database
from backend.db.rows import Row
from backend.services.langgraph.assistants import Assistant, Assistants
from backend.services.langgraph.conversations import Conversations, check_may_change
from backend.services.questions import Questions
from backend.services.runs.control import Runs
from backend.services.triggering.request import TriggerRequest
from backend.services.triggering.trigger import Triggers

log = logging.getLogger(__name__)

TEMPORARY_MINUTES = 60
"""How long the thread of a stateless run is kept after it was made, so that whoever waits can read its result."""

MODES = (
    *("values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events"),
    *("tools", "lifecycle"),
)

STATUS = {
    "pending": "pending",
    "running": "running",
    "paused": "interrupted",
    "success": "success",
    "error": "error",
    "cancelled": "interrupted",
}
"""The words for a turn's states."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a client asks of a run, in the words of LangGraph's protocol."""

    assistant_id: str
    input: Any = None
    command: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    context: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    checkpoint: Mapping[str, Any] | None = None
    stream_mode: Sequence[str] = ("values",)
    stream_subgraphs: bool = False
    interrupt_before: Any = None
    interrupt_after: Any = None
    multitask_strategy: str = "enqueue"
    if_not_exists: str = "reject"
    durability: str | None = None
    after_seconds: float | None = None
    delete_after: bool = False
    protocol: Protocol = 1
    update: Mapping[str, Any] | None = None


class TurnRuns:
    """Starts, finds and cancels runs.

    Starting one costs what a trigger costs, and three or four small transactions.
    """

    def __init__(
        self,
        database: Database,
        assistants: Assistants,
        conversations: Conversations,
        triggers: Triggers,
        runs: Runs,
        questions: Questions,
    ) -> None:
        self._database = database
        self._assistants = assistants
        self._conversations = conversations
        self._triggers = triggers
        self._runs = runs
        self._questions = questions

    async def start(self, who: Principal, conversation_id: str | None, asked: RunRequest) -> Row:
        """Start a run in a conversation, or in one that is made for it and deleted later; returns its turn.

        An answer to what a run of the conversation has asked goes on with that run. Raises what `Triggers.trigger`
        raises, `NotFound` for an unknown thread or assistant, `Conflict` when the thread is busy and the strategy is
        `reject`, and `Invalid` naming the field. What is refused leaves the runs under way as they are: those that the
        strategy ends are cancelled when the new one, which waits for them, is started.
        """
        check_request(asked)
        assistant = await self._assistants.resolve(who, asked.assistant_id)
        row = await self._conversation(who, conversation_id, assistant, asked)
        key = str(row["id"])
        active = await self._conversations.active(key)
        paused = [turn for turn in active if turn["state"] == "paused"]
        busy = [turn for turn in active if turn["state"] != "paused"]
        if paused and not busy:
            answer = asked
            if await self._is_answer(assistant, asked):
                answer = replace(asked, input=None, command={"resume": asked.input})
            if (answered := await self._answer(who, row, paused[-1], answer)) is not None:
                return answered
        ended = paused  # nobody will answer any more
        if asked.multitask_strategy in ("interrupt", "rollback"):
            ended = [*busy, *paused]
        for turn in ended:
            if not who.may_stop(turn["dag_id"], turn["user_id"], None):
                raise Forbidden("Another run of the thread would have to be cancelled, which you may not do.")
        started = await self._trigger(who, key, assistant, asked)
        for turn in ended:
            await self._end_for(who, turn, roll_back=asked.multitask_strategy == "rollback" and turn in busy)
        return started

    async def _end_for(self, who: Principal, turn: Row, *, roll_back: bool) -> None:
        """Cancel a turn for the sake of one that is started and waits for it, as it does without this."""
        if roll_back:  # before the other one begins
            await self._database.run(turns.roll_back, turn["id"])
        try:
            await self.cancel(who, turn, roll_back=False)
        except Problem as problem:
            log.warning("the run %s could not be cancelled for another one: %s", turn["dag_run_id"], problem.detail)

    async def get(self, conversation_id: str, turn_id: str) -> Row:
        """A turn. Raises `NotFound`."""
        row = await self._database.run_autocommit(turns.get, conversation_id, turn_id)
        if row is None or row["rolled_back"]:
            raise NotFound(f"There is no run {turn_id}.")
        return row

    async def list_page(self, conversation_id: str, *, status: str | None, limit: int, offset: int) -> list[Row]:
        """The turns of a conversation, newest first."""
        states = None if status is None else [state for state, word in STATUS.items() if word == status]
        return await self._database.run_autocommit(
            turns.list_page, conversation_id, states=states, limit=limit, offset=offset
        )

    async def cancel(self, who: Principal, turn: Row, *, roll_back: bool) -> None:
        """Cancel a turn's run if it is not over, and with `roll_back` undo what it has done to the conversation.

        Raises what `Runs.cancel` raises, but nothing for a run that has ended meanwhile.
        """
        if turn["dag_run_id"] is not None and turn["ended_at"] is None:
            try:
                await self._runs.cancel(who, turn["dag_id"], turn["dag_run_id"])
            except Conflict:
                if not roll_back and turn["run_state"] in (None, "queued", "running", "awaiting_input"):
                    await self._database.run(_end, turn["id"], turn["conversation_id"])
        elif turn["dag_run_id"] is None:
            await self._database.run(_end, turn["id"], turn["conversation_id"])
        if roll_back:
            await self._database.run(turns.roll_back, turn["id"])

    async def delete(self, turn: Row) -> None:
        """Delete a turn that is over. Raises `Conflict`."""
        if turn["ended_at"] is None and turn["run_state"] in ("queued", "running", "awaiting_input"):
            raise Conflict("The run is not over; cancel it first.")
        await self._database.run(turns.delete, turn["id"])

    async def _conversation(
        self, who: Principal, conversation_id: str | None, assistant: Assistant, asked: RunRequest
    ) -> Row:
        graph = assistant.graph
        names = {"graph_id": graph.graph_id, "assistant_id": assistant.id}
        if conversation_id is None:
            return await self._conversations.create(
                who,
                metadata=names,
                temporary=True,
                ttl=TEMPORARY_MINUTES if asked.delete_after else None,
                dag_id=graph.dag_id,
                graph_id=graph.graph_id,
            )
        row = await self._conversations.find(who, conversation_id)
        if row is None:
            if asked.if_not_exists != "create":
                raise NotFound(f"There is no thread {conversation_id}.")
            return await self._conversations.create(
                who, conversation_id=conversation_id, metadata=names, dag_id=graph.dag_id, graph_id=graph.graph_id
            )
        check_may_change(who, row)
        config = dict(asked.config or {})
        await self._database.run(
            conversations.update,
            conversation_id,
            metadata=names,
            config=redact(config) or None,
            dag_id=graph.dag_id,
            graph_id=graph.graph_id,
        )
        return row

    async def _is_answer(self, assistant: Assistant, asked: RunRequest) -> bool:
        """Whether what is called the input is an answer: in the newer protocol `RemoteGraph` sends that of a `Command`
        in its place. It is if the graph's input is an object and this is none, or one without any of its fields."""
        given = asked.input
        if asked.protocol == 1 or given is None or asked.command is not None:
            return False
        schema = (await self._assistants.shown(assistant.graph)).get("schemas", {}).get("input_schema") or {}
        fields: Mapping[str, Any] = schema.get("properties") or {}
        if not isinstance(given, Mapping):
            return bool(fields)
        return bool(fields) and bool(given) and not fields.keys() & given.keys()

    async def _answer(self, who: Principal, row: Row, turn: Row, asked: RunRequest) -> Row | None:
        """Answer what the paused turn has asked, if the request does nothing else; returns the turn that goes on."""
        key, execution_id = str(row["id"]), turn["execution_id"]
        open_questions = await self._database.run(turns.asked, key, execution_id) if execution_id is not None else []
        values = _answers(open_questions, asked)
        if values is None:
            return None
        new = NewTurn(
            str(uuid.uuid4()),
            key,
            turn["dag_id"],
            who.username,
            assistant_id=turn["assistant_id"],
            metadata=asked.metadata,
            request=_request_json(asked),
            execution_id=execution_id,
            dag_run_id=turn["dag_run_id"],
            after_seq=row["last_seq"],
        )

        def go_on(connection: Connection) -> None:
            turns.close(connection, turn["id"])
            turns.add(connection, new)

        await self._questions.resume(who, values, go_on)
        return await self.get(key, new.id)

    async def _trigger(self, who: Principal, key: str, assistant: Assistant, asked: RunRequest) -> Row:
        graph, turn_id = assistant.graph, str(uuid.uuid4())
        turn = turn_of(assistant, asked, conversation=key, turn_id=turn_id)
        new = NewTurn(
            turn_id,
            key,
            graph.dag_id,
            who.username,
            assistant_id=assistant.id,
            strategy=asked.multitask_strategy,
            metadata=_metadata(assistant, asked),
            request={**_request_json(asked), "plain": not graph.is_graph},
        )
        if not await self._database.run(turns.announce, new, alone=asked.multitask_strategy == "reject"):
            raise Conflict("The thread is busy with another run, and multitask_strategy is `reject`.")
        later = datetime.now(UTC) + timedelta(seconds=asked.after_seconds) if asked.after_seconds else None
        request = TriggerRequest(graph.dag_id, given_input(asked), run_after=later, template=assistant.reference)

        async def source() -> tuple[TriggerRequest, dict[str, Any]]:
            return request, {TURN: turn.to_json()}

        try:
            started = await self._triggers.trigger(who, request, source=source)
        except BaseException:
            await self._database.run(turns.delete, turn_id)
            raise
        await self._database.run(turns.started, turn_id, started.execution_id, started.dag_run_id)
        return await self.get(key, turn_id)


def given_input(asked: RunRequest) -> dict[str, Any]:
    """The input of the run in Airflow, which has to be an object; any other input is the turn's."""
    return asked.input if isinstance(asked.input, dict) else {}


def turn_of(assistant: Assistant, asked: RunRequest, *, conversation: str, turn_id: str) -> Turn:
    """What is asked of an assistant, as a turn; without ids it is one of each run of a schedule."""
    row = assistant.row or {}
    context = {**(row.get("context") or {}), **(asked.context or {})}
    names = {"graph_id": assistant.graph.graph_id, "assistant_id": assistant.id, "thread_id": conversation}
    is_object = isinstance(asked.input, dict)
    # `useStream`'s `forkFrom` and others name the checkpoint in the config.
    place = asked.checkpoint or (asked.config or {}).get("configurable") or {}
    return Turn(
        conversation,
        turn_id,
        source="run" if is_object else "turn",
        input=None if is_object else asked.input,
        command=asked.command,
        update=asked.update,
        checkpoint_id=place.get("checkpoint_id"),
        checkpoint_ns=place.get("checkpoint_ns") or "",
        config=_merged(row.get("config") or {}, asked.config or {}),
        context=context or None,
        interrupt_before=asked.interrupt_before,
        interrupt_after=asked.interrupt_after,
        durability=asked.durability,
        protocol=asked.protocol,
        modes=tuple(asked.stream_mode),
        subgraphs=asked.stream_subgraphs,
        metadata={**_metadata(assistant, asked), **{name: value for name, value in names.items() if value}},
        temporary=asked.delete_after,
    )


def _metadata(assistant: Assistant, asked: RunRequest) -> dict[str, Any]:
    return {**((assistant.row or {}).get("metadata") or {}), **(asked.metadata or {})}


def status_of(turn: Row) -> str:
    """A turn's state in the words of LangGraph's protocol."""
    return STATUS[turn["shown_state"]]


def run_json(turn: Row) -> dict[str, Any]:
    """A turn as clients know it."""
    return {
        "run_id": turn["id"],
        "thread_id": turn["conversation_id"],
        "assistant_id": turn["assistant_id"],
        "created_at": turn["created_at"],
        "updated_at": turn["updated_at"],
        "status": status_of(turn),
        "metadata": {**turn["metadata"], "dag_id": turn["dag_id"], "dag_run_id": turn["dag_run_id"]},
        "kwargs": turn["request"],
        "multitask_strategy": turn["strategy"],
        "cancel_reason": turn["reason"] if turn["run_state"] == "cancelled" else None,
    }


def _end(connection: Connection, turn_id: str, conversation_id: str) -> None:
    """End a turn whose run does not exist."""
    frames.append(connection, conversation_id, turn_id, turns.end_frames("cancelled"))
    turns.change(connection, turn_id, "cancelled")


def _answers(open_questions: Sequence[Row], asked: RunRequest) -> dict[str, Any] | None:
    """The values for the open questions, by their ids; None if the request is no answer to them."""
    command = dict(asked.command or {})
    other = (asked.input, asked.checkpoint, asked.update, asked.interrupt_before, asked.interrupt_after)
    if not open_questions or any(one is not None for one in other):
        return None
    interrupts = {row["pause"]: row["id"] for row in open_questions if row["kind"] != "breakpoint"}
    if not command:
        return {row["id"]: None for row in open_questions} if not interrupts else None
    if "resume" not in command or any(value for name, value in command.items() if name != "resume"):
        return None
    resume = command["resume"]
    if isinstance(resume, Mapping) and resume and interrupts.keys() >= set(resume):
        return {interrupts[pause]: value for pause, value in resume.items()}
    if len(interrupts) == 1 and len(open_questions) == 1:
        return {next(iter(interrupts.values())): resume}
    return None


def check_request(asked: RunRequest) -> None:
    """Raise `Invalid` naming a part of a request that has no effect, or contradicts another one."""
    for index, mode in enumerate(asked.stream_mode):
        if mode not in MODES:
            _refuse(("stream_mode", index), f"is {mode!r}; it has to be one of {', '.join(MODES)}")
    if asked.command is not None and asked.input is not None:
        _refuse(("command",), "can't be given together with an input")
    for name in asked.command or ():
        if name not in ("update", "resume", "goto"):
            _refuse(("command", name), "is no part of a command; there are update, resume and goto")
    unknown = set(asked.config or ()) - {"tags", "recursion_limit", "configurable", "metadata", "max_concurrency"}
    if unknown:
        _refuse(("config", min(unknown)), "has no effect; there are tags, recursion_limit, configurable and metadata")


def _refuse(path: Sequence[str | int], detail: str) -> None:
    place = pointer(*path)
    raise Invalid(f"{place}: {detail}", errors=[FieldError(place, detail)])


def _merged(own: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """An assistant's config with that of a request, which has no place of its own in the thread."""
    found = {**own, **asked}
    configurable = {**(own.get("configurable") or {}), **(asked.get("configurable") or {})}
    hidden = {"thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map"}
    found["configurable"] = {
        name: value for name, value in configurable.items() if name not in hidden and not name.startswith("__")
    }
    return found


def _request_json(asked: RunRequest) -> dict[str, Any]:
    """What is kept of a request, without secrets that its config or context may hold."""
    kept = replace(asked, input=None, command=None, update=None)
    names = ("config", "context", "stream_mode", "stream_subgraphs", "interrupt_before", "interrupt_after", "protocol")
    found = {name: getattr(kept, name) for name in names if getattr(kept, name) not in (None, (), False)}
    redacted: dict[str, Any] = redact(found)
    return redacted
