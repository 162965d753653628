"""Begins a turn: waits until the conversation is free, and puts its states in order."""

import asyncio
import time
import uuid
from functools import partial

from sqlalchemy import Connection

from backend.core.errors.agent_errors import ConversationBusyError
from backend.core.errors.decision import Reschedule
from backend.core.errors.input_error import InputError
from backend.core.turns import TURN, Turn, conversation_id_of
from backend.core.workflow_error_handler import AgentFailure, classify
from backend.db.conversations import states, turns
from backend.db.conversations.turns import (
    Begun,
    ConversationDeletedError,
    ConversationMovedOnError,
    ConversationNotYoursError,
)
from backend.db.engine import Database
from backend.db.outage import retry_until_available
from backend.db.runs import forks
from backend.db.runs.threads import Claim
from backend.observation.recording.recorder import Recorder
from backend.observation.task_context import TaskContext
from backend.runtime.specs import AgentSpec
from backend.runtime.turns.live import LiveTurn

WAIT_SECONDS = 20.0
"""How long a task waits in its worker for the conversation's earlier turns."""

AWAY_SECONDS = 15.0
"""After how long it looks again when it has left the worker."""

_POLLS = (0.05, 0.1, 0.2, 0.3)
"""Seconds between two looks."""


def turn_of(task: TaskContext, spec: AgentSpec) -> Turn | None:
    """The turn that an agent's task runs, if it is one of a conversation."""
    found = task.system.get(TURN)
    if found is not None and spec.graph is not None:
        turn = Turn.of(found)
        return None if turn is None else turn.of_run(f"{task.dag_id}/{task.dag_run_id}")
    if spec.thread is None:
        return None
    conversation = conversation_id_of(task.dag_id, spec.thread)
    name = str(uuid.uuid5(uuid.UUID(conversation), task.thread_id))
    return Turn(conversation, name, source="task", metadata={"graph_id": spec.graph, "thread": spec.thread})


async def begin_turn(database: Database, task: TaskContext, turn: Turn, claim: Claim, recorder: Recorder) -> LiveTurn:
    """Take the conversation for the turn.

    Raises `AgentFailure` when it is busy for long (the task leaves its worker, and looks again later), and `InputError`
    when it is deleted or somebody else's, or has gone on without this turn.
    """
    execution_id = recorder.execution_id
    assert execution_id is not None  # noqa: S101  # the claim has been written
    attempt = partial(
        turns.begin,
        turn=turn,
        execution_id=execution_id,
        dag_id=task.dag_id,
        dag_run_id=task.dag_run_id,
        user=task.run_user,
        graph=str(turn.metadata.get("graph_id", "")),
    )
    started, looks = time.monotonic(), 0
    while (begun := await _begun(database, attempt)) is None:
        if time.monotonic() - started > WAIT_SECONDS:
            error = ConversationBusyError(f"the conversation {turn.conversation} is busy with an earlier turn")
            raise AgentFailure(error, classify(error), Reschedule(AWAY_SECONDS))
        await asyncio.sleep(_POLLS[min(looks, len(_POLLS) - 1)])
        looks += 1
    if begun.source is not None or begun.rolled_back:
        await retry_until_available(partial(database.run, _put_in_order, turn, claim, begun))
    live = LiveTurn(turn, begun.id, recorder, task.try_number)
    live.begin(begun.id)
    return live


async def _begun(database: Database, attempt: partial[Begun | None]) -> Begun | None:
    try:
        return await retry_until_available(partial(database.run, attempt))
    except (ConversationMovedOnError, ConversationDeletedError, ConversationNotYoursError) as error:
        raise InputError(str(error), field="thread") from None


def _put_in_order(connection: Connection, turn: Turn, claim: Claim, begun: Begun) -> None:
    """Delete the states of turns that were rolled back, and copy those that the conversation begins with."""
    if begun.rolled_back:
        states.roll_back(connection, turn.conversation, begun.rolled_back)
    if begun.source is not None:
        whole = {begun.source: turn.conversation}
        forks.copy(connection, claim, whole, last=begun.checkpoint, root=begun.checkpoint)
        turns.copied(connection, turn.conversation)
