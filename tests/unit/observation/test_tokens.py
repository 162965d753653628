"""Tokens are reported together: at most 20 events a second for each agent."""

import asyncio
from itertools import pairwise
from typing import Any, cast

import pytest

from backend.core.events import NewEvent
from backend.core.jsonable import dumps
from backend.db.runs.traces import Place
from backend.models.attempts import ATTEMPT_KEY, CALL_KEY
from backend.observation.recording.observer import AgentObserver
from backend.observation.recording.recorder import Recorder
from backend.observation.recording.records import Events, Record, TraceRow
from backend.observation.recording.tokens import PIECE, TOKEN_INTERVAL, TokenStream
from tests.kit.waiting import eventually

NODES = ("draft", "check", "polish")


def of(node: str, execution: str = "") -> dict[str, Any]:
    """The metadata of a model call in a node, as LangGraph gives them."""
    return {"langgraph_node": node, "langgraph_checkpoint_ns": f"{node}:{execution}"}


class Kept:
    """Stands for the recorder: keeps what it is to write, and when it was given."""

    def __init__(self) -> None:
        self.events: list[tuple[float, NewEvent]] = []

    def put(self, record: Record) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(record, TraceRow):
            new = [record.event] if record.event is not None else []
        else:
            assert isinstance(record, Events)
            new = list(record.events)
        self.events += [(now, event) for event in new]

    def tokens(self) -> list[tuple[float, dict[str, Any]]]:
        return [(at, event.payload) for at, event in self.events if event.type == "token"]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def observer(kept: Kept) -> AgentObserver:
    place = Place("dag", "run", "task", 3, 1, "writer", "text")
    return AgentObserver(cast(Recorder, kept), place, model="openai:gpt-4.1-mini", trace_id="t")


async def test_concurrent_nodes_share_the_agents_token_rate(observer: AgentObserver, kept: Kept) -> None:
    loop = asyncio.get_running_loop()
    began, expected = loop.time(), dict.fromkeys(NODES, "")
    number = 0
    while loop.time() < began + 1:
        for node in NODES:
            observer.token(of(node), f"{number} ")
            expected[node] += f"{number} "
        number += 1
        await asyncio.sleep(0.002)
    observer.finish("success", None)
    lasted = loop.time() - began
    tokens = kept.tokens()
    assert {node: "".join(data["text"] for _, data in tokens if data["node"] == node) for node in NODES} == expected
    assert len(tokens) <= lasted / TOKEN_INTERVAL + len(NODES), "what was left when the agent ended comes on top"
    assert len(tokens) >= 5
    assert {(data["task_id"], data["map_index"], data["try_number"], data["agent"]) for _, data in tokens} == {
        ("task", 3, 1, "writer")
    }
    for earlier, later in pairwise(tokens[: -len(NODES)]):
        assert later[0] - earlier[0] >= TOKEN_INTERVAL * 0.9


async def test_a_nodes_last_tokens_precede_its_end(observer: AgentObserver, kept: Kept) -> None:
    observer.node_started("1", "draft", None)
    observer.node_started("2", "check", None)
    observer.token(of("draft", "1"), "the ")
    observer.token(of("check", "2"), "hm")
    observer.token(of("draft", "1"), "end")
    observer.node_finished("1", None, None)
    reported = [(event.type, event.payload["node"], event.payload.get("state") or event.payload["text"])
            for _, event in kept.events]  # fmt: skip
    assert reported[2:] == [("token", "draft", "the end"), ("agent_update", "draft", "success")]
    early = kept.tokens()[0][0]
    await eventually(lambda: len(kept.tokens()) == 2)
    at, data = kept.tokens()[1]
    assert (data["node"], data["text"]) == ("check", "hm")
    assert at - early >= TOKEN_INTERVAL * 0.9, "an early event is made up for"


@pytest.mark.parametrize("seen_before_the_failure", [True, False])
async def test_late_tokens_of_a_failed_attempt_are_not_taken_for_the_next_one(seen_before_the_failure: bool) -> None:
    """LangGraph delivers tokens through a queue, so some arrive after the failure of their attempt was reported."""
    events: list[NewEvent] = []
    tokens = TokenStream(events.extend, Place("dag", "run", "task", -1, 1, "writer", "text"))
    first, second = ({**of("draft", "1"), CALL_KEY: "call", ATTEMPT_KEY: number} for number in (1, 2))
    if seen_before_the_failure:
        tokens.add(first, "half an ")
    tokens.supersede_call(first)
    tokens.add(first, "answer")
    tokens.add(second, "the answer")
    tokens.flush()
    reset = [(2, "")] if seen_before_the_failure else []
    assert [(event.payload["attempt"], event.payload["text"]) for event in events] == [*reset, (2, "the answer")]


async def test_an_answer_that_comes_at_once_becomes_several_events(observer: AgentObserver, kept: Kept) -> None:
    answer = "x" * (PIECE - 1) + "\ud83d\ude00" + "ü" * 3 * PIECE
    observer.token(of("draft"), answer)
    await eventually(lambda: kept.tokens())
    texts = [payload["text"] for _, payload in kept.tokens()]
    assert "".join(texts) == answer
    assert len(texts) == 4
    assert all(len(dumps(text).encode()) < 64 * 1024 for text in texts)
    assert texts[0].endswith("\ud83d\ude00"), "a pair stays together"
