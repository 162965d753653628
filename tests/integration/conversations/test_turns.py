"""Turns of conversations: states that outlive a run, one turn after another, and what is streamed."""

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from sqlalchemy import text

from backend.core.errors.input_error import InputError
from backend.core.run_envelope import SYSTEM_KEY, signed
from backend.core.settings import Settings
from backend.core.turns import TURN, Frame, Turn, conversation_id_of
from backend.core.workflow_error_handler import AgentFailure
from backend.db.conversations.frames import append, read_after
from backend.db.engine import Database
from backend.db.run_keys import run_key
from backend.runtime.runner import AgentRunner, AgentsWaiting, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from backend.runtime.turns.chunks import ChunkFrames
from tests.kit.graphs import talking
from tests.kit.servers.postgres import Postgres

GRAPHS = "tests.kit.graphs.talking"
Run = Callable[..., Any]


@pytest.fixture
def run(pg: Postgres, database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a graph in a run of its own."""
    monkeypatch.setattr("backend.runtime.runner.HOLD_SECONDS", 0.0)

    async def run(
        graph: str,
        input_data: Any,
        *,
        turn: Turn | None = None,
        run_id: str | None = None,
        try_number: int = 1,
        **kw: Any,
    ) -> Any:
        run_id = run_id or uuid.uuid4().hex
        conf = dict(input_data or {})
        if turn is not None:
            turn = replace(turn, names=tuple(conf))
            key = await database.run(run_key)
            conf[SYSTEM_KEY] = signed(key, "dag", run_id, {TURN: turn.to_json()})
        task = TaskContext("dag", run_id, "task", -1, try_number, conf, user="ann")
        settings = Settings(database_url_override=pg.worker_url)
        async with AgentRunner(settings, database, await task.verified(database)) as runner:
            return await run_single(runner, parse_agent(None, input_data, graph=f"{GRAPHS}:{graph}", **kw))

    return run


async def rows(database: Database, query: str, **values: Any) -> list[Any]:
    async with database.engine.begin() as connection:
        return [*await connection.execute(text(query), values)]


async def frames(database: Database, conversation: str) -> list[tuple[str, Any]]:
    query = "SELECT mode, data FROM visual_ai.conversation_frames WHERE conversation_id = :id ORDER BY seq"
    return [(row.mode, json.loads(row.data)) for row in await rows(database, query, id=conversation)]


def said(result: Any) -> list[str]:
    return [message["content"] for message in result["output"]["messages"]]


async def test_a_named_conversation_goes_on_in_the_next_run(run: Run) -> None:
    name = f"ann {uuid.uuid4()}"
    await run("plain", {"messages": "Hello"}, thread=name)
    result = await run("plain", {"messages": "And now?"}, thread=name)
    assert said(result) == ["Hello", "reply after 1 messages", "And now?", "reply after 3 messages"]
    other = await run("plain", {"messages": "Hello"}, thread=f"{name}, another one")
    assert said(other) == ["Hello", "reply after 1 messages"]


async def test_a_task_takes_no_part_in_somebody_elses_conversation(run: Run, database: Database) -> None:
    """The name may be a part of the run's input, and so the id of a thread that its owner alone talks in."""
    for owner, dag_id in (("bob", "dag"), ("ann", "another"), (None, None)):
        name = str(uuid.uuid4())
        query = "INSERT INTO visual_ai.conversations (id, user_id, dag_id, graph_id) VALUES (:id, :user, :dag, 'g')"
        async with database.engine.begin() as connection:
            await connection.execute(text(query), {"id": name, "user": owner, "dag": dag_id})
        with pytest.raises(InputError, match="belongs to another user or another DAG"):
            await run("plain", {"messages": "Hello"}, thread=name)
        assert not await rows(database, "SELECT FROM visual_ai.conversation_turns WHERE conversation_id = :id", id=name)


async def test_turns_run_one_after_another(run: Run, database: Database) -> None:
    name = str(uuid.uuid4())
    await asyncio.gather(*(run("plain", {"messages": f"message {index}"}, thread=name) for index in range(4)))
    result = await run("plain", {"messages": "last"}, thread=name)
    assert len(said(result)) == 10
    assert said(result)[1::2] == [f"reply after {index} messages" for index in (1, 3, 5, 7, 9)]
    states = await rows(database, "SELECT state FROM visual_ai.conversation_turns WHERE conversation_id = :id", id=name)
    assert [row.state for row in states] == ["success"] * 5


async def test_a_try_goes_on_with_its_own_turn(run: Run) -> None:
    """The state from which it resumes is its own turn's, not that of the turn before."""
    name, run_id = str(uuid.uuid4()), uuid.uuid4().hex
    await run("plain", {"messages": "Hello"}, thread=name)
    talking.failures.append("the reply is lost")
    with pytest.raises(Exception, match="the reply is lost"):
        await run("plain", {"messages": "And now?"}, thread=name, run_id=run_id)
    result = await run("plain", {"messages": "And now?"}, thread=name, run_id=run_id, try_number=2)
    assert said(result) == ["Hello", "reply after 1 messages", "And now?", "reply after 3 messages"]


async def test_a_turn_streams_what_its_client_asked_for(run: Run, database: Database) -> None:
    conversation, turn = str(uuid.uuid4()), str(uuid.uuid4())
    modes = ("values", "messages-tuple", "updates", "custom", "tasks")
    await run("plain", {"messages": "Hello"}, turn=Turn(conversation, turn, modes=modes))
    found = await frames(database, conversation)
    assert found[0] == ("metadata", {"run_id": turn, "attempt": 1})
    assert found[-1] == ("lifecycle", {"event": "completed"})
    kinds = [mode for mode, _ in found]
    assert {"values", "messages", "updates", "custom", "tasks"} <= set(kinds)
    assert "checkpoints" not in kinds
    tokens = [data[0]["content"] for mode, data in found if mode == "messages"]
    assert "".join(tokens).startswith("reply after 1 messages")
    [last] = [data for mode, data in found if mode == "values"][-1:]
    assert [message["type"] for message in last["messages"]] == ["human", "ai"]


async def test_a_turn_streams_the_protocols_events(run: Run, database: Database) -> None:
    conversation, turn = str(uuid.uuid4()), str(uuid.uuid4())
    await run("plain", {"messages": "Hello"}, turn=Turn(conversation, turn, protocol=2))
    found = await frames(database, conversation)
    events = [data for mode, data in found if mode == "messages"]
    assert [data["event"] for data in events if not data["event"].startswith("content")] == [
        "message-start",
        "message-finish",
    ]
    assert "".join(one["delta"]["text"] for one in events if one["event"] == "content-block-delta") == (
        "reply after 1 messages"
    )
    assert len({data["message_id"] for data in events}) == 1
    assert {"values", "updates", "tasks", "custom", "checkpoints"} <= {mode for mode, _ in found}


async def test_a_question_pauses_the_turn_and_an_answer_goes_on(run: Run, database: Database) -> None:
    conversation, turn = str(uuid.uuid4()), str(uuid.uuid4())
    with pytest.raises(AgentsWaiting):
        await run("asking", {"messages": "Hello"}, turn=Turn(conversation, turn, protocol=2))
    found = await frames(database, conversation)
    assert found[-1] == ("lifecycle", {"event": "interrupted"})
    [asked] = [data for mode, data in found if mode == "input.requested"]
    assert asked["value"] == "Go on?"
    [state] = await rows(
        database,
        "SELECT next FROM visual_ai.conversation_states WHERE conversation_id = :id ORDER BY checkpoint_id "
        "DESC LIMIT 1",
        id=conversation,
    )
    assert state.next == ["ask"]
    command = {"resume": "yes"}
    await rows(
        database, "UPDATE visual_ai.workflow_executions SET state = 'cancelled' WHERE dag_id = 'dag' RETURNING 1"
    )
    result = await run("asking", None, turn=Turn(conversation, str(uuid.uuid4()), source="turn", command=command))
    assert result["output"]["items"] == ["replied", "asked: yes"]


async def test_states_can_be_written_and_gone_on_from(run: Run, database: Database) -> None:
    conversation = conversation_id_of("dag", "states")
    await run("plain", {"messages": "Hello"}, turn=Turn(conversation, str(uuid.uuid4())))
    [first] = await rows(
        database,
        "SELECT checkpoint_id FROM visual_ai.checkpoints WHERE thread_id = :id ORDER BY checkpoint_id DESC LIMIT 1",
        id=conversation,
    )
    update = {"values": {"items": ["written"]}, "as_node": "reply"}
    result = await run("plain", None, turn=Turn(conversation, str(uuid.uuid4()), source="turn", update=update))
    assert result["output"]["items"] == ["replied", "written"]
    branch = Turn(conversation, str(uuid.uuid4()), checkpoint_id=first.checkpoint_id)
    result = await run("plain", {"messages": "Another way"}, turn=branch)
    assert result["output"]["items"] == ["replied", "replied"]


async def test_a_bug_ends_a_turn_at_once_and_is_named(run: Run, database: Database) -> None:
    conversation = str(uuid.uuid4())
    wrong = {"messages": [{"role": "wizard", "content": "?"}]}
    with pytest.raises(AgentFailure, match="wizard") as raised:
        await run("plain", wrong, turn=Turn(conversation, str(uuid.uuid4())))
    assert raised.value.classified.final
    found = await frames(database, conversation)
    assert [mode for mode, _ in found][-2:] == ["error", "lifecycle"]
    assert found[-2][1]["error"] == "ValueError"
    assert "wizard" in found[-2][1]["message"]
    assert found[-1][1]["event"] == "failed"


def test_a_long_message_is_not_written_once_for_each_token() -> None:
    made = ChunkFrames(["messages"], subgraphs=False)
    found: list[Frame] = []
    for number in range(2_000):
        found += made.of(
            (), "messages", (AIMessageChunk(content=f"word {number} ", id="one"), {"langgraph_node": "talk"})
        )
    found += made.of((), "checkpoints", {})
    assert found[0].mode == "messages/metadata"
    assert {frame.mode for frame in found[1:]} == {"messages/partial"}
    assert len(found) < 200
    [last] = json.loads(found[-1].data)
    assert last["content"].endswith("word 1999 ")


async def test_large_frames_are_read_a_few_at_a_time(run: Run, database: Database) -> None:
    conversation, turn = str(uuid.uuid4()), str(uuid.uuid4())
    await run("plain", {"messages": "Hello"}, turn=Turn(conversation, turn))
    text = json.dumps("x" * 700_000)
    [found] = await rows(database, "SELECT last_seq FROM visual_ai.conversations WHERE id = :id", id=conversation)
    await database.run(append, conversation, turn, [Frame("custom", (), text)] * 5)
    after, lengths = found.last_seq, []
    while batch := await database.run(read_after, {conversation: after}, per_conversation=500):
        lengths.append(len(batch))
        after = batch[-1].seq
    assert lengths == [2, 2, 1]
