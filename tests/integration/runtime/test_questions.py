"""Graphs that ask people: what they ask is stored, and each goes on from there, once, with what was answered."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest.mock import AsyncMock

import pytest

from backend.core.asking.questions import Asked, resume_value
from backend.core.asking.terms import QuestionTerms
from backend.core.settings import Settings
from backend.db import questions
from backend.db.questions import Given
from backend.observation.recording.recorder import Recorder
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, AgentsWaiting
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_team
from backend.runtime.team.run import run_team
from backend.runtime.waiting import TaskQuestions
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.tasks import MakeRunner
from tests.kit.graphs import asking
from tests.kit.openai.server import OpenAIServer

HERE = "tests.kit.graphs.asking"
Answer = Callable[[dict[str, Any]], Any]


@pytest.fixture(autouse=True)
def own_models(openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    asking.RAN.clear()


async def open_questions(runner: AgentRunner) -> list[dict[str, Any]]:
    task = runner.task
    look = partial(questions.open_of_task, task_id=task.task_id, map_index=task.map_index)
    return [dict(row) for row in await runner.database.run(look, task.dag_id, task.dag_run_id)]


async def give(runner: AgentRunner, question: Mapping[str, Any], answer: Any) -> None:
    asked = Asked(question["kind"], question["subject"], question["content"], question["answer_schema"])
    decision = answer if answer in ("approve", "reject") and asked.kind != "question" else None
    value = resume_value(asked, decision=decision, answer=answer, given=decision is None)
    assert await runner.database.run(questions.answer, str(question["id"]), Given(value, decision, "ulla", "api"))


class Asking:
    """A task that is run again each time its questions are answered."""

    def __init__(self, make: MakeRunner, graph: str, given: dict[str, Any], **options: Any) -> None:
        self.make = make
        self.spec = parse_agent(None, given, graph=f"{HERE}:{graph}", **options)
        self.subjects: list[list[str]] = []
        self.parked = 0

    async def run(self, *answers: Any, try_number: int = 1) -> dict[str, Any]:
        """Run it, with one answer for each question, or a function of it; returns the task's result."""
        left = list(answers)
        while True:
            runner = self.make(try_number)
            try:
                async with runner:
                    result = await run_single(runner, self.spec)
            except AgentsWaiting:
                self.parked += 1
                found = await open_questions(runner)
                self.subjects.append([question["subject"] for question in found])
                for question in found:
                    await give(runner, question, left.pop(0))
                continue
            assert not left
            return result


async def test_a_person_edits_a_draft(make_runner: MakeRunner) -> None:
    task = Asking(make_runner, "editing", {"topic": "boats"})
    result = await task.run("A better draft.")
    assert result["output"] == {"topic": "boats", "draft": "A better draft."}
    assert task.subjects == [["Review and edit this draft"]]
    # LangGraph runs the node that asked once more, and no other.
    assert asking.RAN == ["write", "review", "review"]


@pytest.mark.parametrize(("answer", "status"), [(True, "approved"), (False, "rejected")])
async def test_a_person_approves(make_runner: MakeRunner, answer: bool, status: str) -> None:
    result = await Asking(make_runner, "approving", {"topic": "x"}).run(answer)
    assert result["output"]["status"] == status


async def test_a_node_asks_until_the_answer_is_valid(make_runner: MakeRunner) -> None:
    task = Asking(make_runner, "looping", {"age": 0})
    result = await task.run("old", -3, 42, "Nora")
    assert result["output"] == {"age": 42, "name": "Nora"}
    assert [subjects[0][:20] for subjects in task.subjects] == [
        "What is your age?", "'old' is not a valid", "'-3' is not a valid ", "And your name?",
    ]  # fmt: skip


async def test_branches_ask_at_once_and_the_others_go_on(make_runner: MakeRunner) -> None:
    task = Asking(make_runner, "parallel", {"votes": []})
    result = await task.run("yes", "no", "maybe")
    assert sorted(result["output"]["votes"]) == ["a: yes", "b: no", "c: maybe", "d"]
    assert task.parked == 1
    assert asking.RAN == ["works"]


@pytest.mark.parametrize("graph", ["nested", "called"])
async def test_a_subgraph_asks(make_runner: MakeRunner, graph: str) -> None:
    task = Asking(make_runner, graph, {"topic": "boats"})
    result = await task.run("Edited.")
    assert result["output"]["draft"] == "Edited."
    assert asking.RAN.count("write") == 1


async def test_the_functional_api_asks(make_runner: MakeRunner) -> None:
    task = Asking(make_runner, "functional", {"topic": "boats"})
    result = await task.run(1, None, {"three": 3})
    assert result["output"] == {"answers": [1, None, {"three": 3}]}
    assert task.subjects == [["boats, one?"], ["Two?"], ["Three?"]]


BREAKPOINTS = {"before": 1, "after": 1, "nested_before": 1, "nested_after": 1, "nested_twice": 2}
"""How often each graph stops."""


@pytest.mark.parametrize("graph", BREAKPOINTS)
async def test_a_breakpoint_asks_to_go_on(make_runner: MakeRunner, graph: str) -> None:
    task = Asking(make_runner, graph, {"votes": []})
    result = await task.run(*["approve"] * BREAKPOINTS[graph])
    assert result["output"]["votes"] == asking.RAN == ["first", "second", "third"]
    assert task.parked == BREAKPOINTS[graph]


@pytest.mark.parametrize("graph", BREAKPOINTS)
async def test_no_try_passes_a_breakpoint_that_was_never_asked_about(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    """A worker was killed after the graph had stopped, and before its question was stored."""
    task = Asking(make_runner, graph, {"votes": []})
    with monkeypatch.context() as killed:
        killed.setattr(AgentRunner, "ask", AsyncMock(side_effect=ConnectionError))
        with pytest.raises(ConnectionError):
            async with make_runner(1) as runner:
                await run_single(runner, task.spec)
    ran = list(asking.RAN)
    result = await task.run(*["approve"] * BREAKPOINTS[graph], try_number=2)
    assert task.parked == BREAKPOINTS[graph]
    assert ran == asking.RAN[: len(ran)]
    assert result["output"]["votes"] == asking.RAN == ["first", "second", "third"]


async def test_a_breakpoint_that_is_rejected_fails_for_good(make_runner: MakeRunner) -> None:
    with pytest.raises(Exception, match="ulla decided not to go on with second") as failed:
        await Asking(make_runner, "before", {"votes": []}).run("reject")
    assert failed.value.classified.final  # type: ignore[attr-defined]
    assert asking.RAN == ["first"]


CALL = {"name": "send_email", "arguments": {"to": "ann@example.org", "body": "Hello"}}


@pytest.mark.parametrize(
    ("answer", "ran", "said"),
    [
        ("approve", ["send_email ann@example.org"], "Sent to ann@example.org: Hello"),
        ("reject", [], "rejected"),
        ({"decisions": [{"type": "reject", "message": "Not today."}]}, [], "Not today."),
        (
            {
                "decisions": [
                    {
                        "type": "edit",
                        "edited_action": {"name": "send_email", "args": {"to": "bo@example.org", "body": "Hi"}},
                    }
                ]
            },
            ["send_email bo@example.org"],
            "Sent to bo@example.org: Hi",
        ),
    ],
)
async def test_langchains_middleware_asks(
    make_runner: MakeRunner, openai_server: OpenAIServer, answer: Any, ran: list[str], said: str
) -> None:
    openai_server.script(tool_calls=[CALL], times=1)
    task = Asking(make_runner, "middleware", {"messages": [{"role": "user", "content": "Write to Ann."}]})
    result = await task.run(answer)
    assert task.subjects == [["Approve send_email?"]]
    assert ran == asking.RAN
    (told,) = [one["content"] for one in result["output"]["messages"] if one["type"] == "tool"]
    assert said in told
    assert len(openai_server.requests) == 2, "no model call was repeated"


@pytest.mark.parametrize(("answer", "ran"), [("approve", True), ({"type": "reject", "message": "No."}, False)])
async def test_the_middleware_asks_call_by_call(
    make_runner: MakeRunner, openai_server: OpenAIServer, answer: Any, ran: bool
) -> None:
    second = {"name": "send_email", "arguments": {"to": "bo@example.org", "body": "Hi"}}
    openai_server.script(tool_calls=[CALL, second], times=1)
    given = {"messages": [{"role": "user", "content": "Write to Ann and Bo."}]}
    task = Asking(make_runner, "middleware_per_call", given)
    await task.run(answer, "approve")
    assert task.subjects == [["Approve send_email?", "Approve send_email?"]]
    assert sorted(asking.RAN) == [*(["send_email ann@example.org"] if ran else []), "send_email bo@example.org"]
    assert len(openai_server.requests) == 2


async def test_a_model_called_before_the_question_in_its_node_is_called_again(
    make_runner: MakeRunner, openai_server: OpenAIServer
) -> None:
    given = {"messages": [{"role": "user", "content": "What lies in the harbour?"}]}
    await Asking(make_runner, "messages", given).run("Yes.")
    asked = ["sum" if "Sum it up" in one.prompt else "think" for one in openai_server.requests]
    assert asked == ["think", "sum", "sum", "think"]


async def test_an_answer_has_to_fit_the_schema(make_runner: MakeRunner) -> None:
    task = Asking(make_runner, "with_schema", {"age": 0})
    with pytest.raises(ValueError, match="seats"):
        await task.run({"note": "x"})
    assert (await Asking(make_runner, "with_schema", {"age": 0}).run({"seats": 3, "note": "x"}))["output"] == {
        "age": 3, "name": "x",
    }  # fmt: skip


async def test_a_later_try_asks_nothing_again(make_runner: MakeRunner) -> None:
    """A worker was killed after the question was stored, and another after it was answered."""
    task = Asking(make_runner, "looping", {"age": 0})
    runner = make_runner(1)
    with pytest.raises(AgentsWaiting):
        async with runner:
            await run_single(runner, task.spec)
    (first,) = await open_questions(runner)
    again = make_runner(2)
    with pytest.raises(AgentsWaiting):
        async with again:
            await run_single(again, task.spec)
    assert [question["id"] for question in await open_questions(again)] == [first["id"]]
    await give(again, first, 42)
    result = await task.run("Nora", try_number=3)
    assert result["output"] == {"age": 42, "name": "Nora"}


@pytest.mark.parametrize("graph", ["breaking", "breaking_inside"])
async def test_an_answer_is_not_taken_for_that_to_the_next_question(make_runner: MakeRunner, graph: str) -> None:
    """The node fails after its first answer, which LangGraph keeps beside the interrupt."""
    task = Asking(make_runner, graph, {"name": "?"})
    asking.BREAKS.append("broken")
    with pytest.raises(Exception, match="broken"):
        await task.run(42)
    result = await task.run("Nora", try_number=2)
    assert result["output"] == {"age": 42, "name": "Nora"}
    assert task.subjects == [["Age?"], ["Name?"]]


async def test_what_nobody_answered_in_time_is_asked_again_by_the_next_try(make_runner: MakeRunner) -> None:
    task = Asking(make_runner, "approving", {"topic": "x"})
    runner = make_runner(1)
    with pytest.raises(AgentsWaiting):
        async with runner:
            await run_single(runner, task.spec)
    (question,) = await open_questions(runner)
    await runner.database.run(questions.close, [str(question["id"])], "nobody answered in time")
    result = await task.run(True, try_number=2)
    assert (result["output"]["status"], task.parked) == ("approved", 1)


async def test_without_a_database_at_first_a_later_try_asks(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try runs without checkpoints then, and can't wait for anybody."""
    task = Asking(make_runner, "approving", {"topic": "x"})
    with monkeypatch.context() as away:
        away.setattr(Recorder, "take_thread", AsyncMock(side_effect=ConnectionError))
        with raises_failure(ConnectionError, match="was away when the agents began") as failed:
            async with make_runner(1) as runner:
                await run_single(runner, task.spec)
    assert not failed.value.classified.final
    assert (await task.run(True, try_number=2))["output"]["status"] == "approved"


async def test_in_a_team_one_waits_and_those_that_can_go_on(
    make_runner: MakeRunner, openai_server: OpenAIServer
) -> None:
    agents = [
        {"name": "asker", "graph": f"{HERE}:editing", "input_data": {"topic": "boats"}},
        {"name": "reader", "type": "text", "input_data": {"text": "Two ships lay at anchor."}},
        {"name": "last", "type": "text", "input_data": {}, "depends_on": ["asker"]},
    ]
    specs = parse_team(agents, "graph")

    async def run(runner: AgentRunner) -> dict[str, Any]:
        async with runner:
            return await run_team(runner, specs, "graph", synthesis=None)

    runner = make_runner(1)
    with pytest.raises(AgentsWaiting):
        await run(runner)
    assert len(openai_server.requests) == 1, "the reader has worked"
    (question,) = await open_questions(runner)
    await give(runner, question, "Edited.")
    result = await run(make_runner(1))
    assert result["results"]["asker"]["draft"] == "Edited."
    assert {name: agent["state"] for name, agent in result["agents"].items()} == dict.fromkeys(
        ("asker", "reader", "last"), "success"
    )
    assert len(openai_server.requests) == 2


async def test_items_of_a_batch_ask_and_the_others_come_to_their_end(
    make_runner: MakeRunner,
) -> None:
    spec = parse_agent(None, {}, graph=f"{HERE}:choosy")
    inputs = [{"topic": topic} for topic in ("boats", "secret", "trains", "private", "error")]

    async def run(try_number: int) -> dict[str, Any]:
        runner = make_runner(try_number)
        async with runner:
            return await run_batch(runner, spec, inputs, BatchPlan(2, "continue"))

    with pytest.raises(AgentsWaiting):
        await run(1)
    assert sorted(asking.RAN) == ["boats", "error", "private", "secret", "trains"]
    runner = make_runner(1)
    asked = await open_questions(runner)
    assert sorted((one["item_index"], one["subject"]) for one in asked) == [
        (1, "Publish secret?"),
        (3, "Publish private?"),
    ]
    by_item = {one["item_index"]: one for one in asked}
    await give(runner, by_item[1], "No.")
    with pytest.raises(AgentsWaiting):  # the other one is still open, and nothing is asked twice
        await run(1)
    await give(runner, by_item[3], "Yes.")
    asking.RAN.clear()
    result = await run(1)
    assert sorted(asking.RAN) == ["error", "private"]
    assert (result["batch"]["succeeded"], result["batch"]["failed"]) == (4, 1)
    assert [one and one["draft"] for one in result["results"]] == ["boats", "No.", "trains", "Yes.", None]


async def test_an_item_that_nobody_answered_in_time_fails_alone(
    make_runner: MakeRunner, task_settings: Settings
) -> None:
    spec = parse_agent(None, {}, graph=f"{HERE}:choosy")
    terms = QuestionTerms(timeout=1.0)

    async def run() -> dict[str, Any]:
        runner = make_runner(1, terms=terms)
        async with runner:
            return await run_batch(runner, spec, [{"topic": "secret"}, {"topic": "boats"}], BatchPlan(2, "continue"))

    with pytest.raises(AgentsWaiting):
        await run()
    parked = TaskQuestions(task_settings, make_runner(1).task, terms)
    await asyncio.sleep(1.2)
    await asyncio.to_thread(parked.expire)
    assert not await asyncio.to_thread(parked.any_open)
    result = await run()
    (failure,) = result["batch"]["failures"]
    assert (failure["index"], failure["category"], failure["error"]) == (0, "timeout", "nobody answered in time")
    assert result["batch"]["succeeded"] == 1


async def test_a_question_shows_no_secret(make_runner: MakeRunner) -> None:
    task = Asking(make_runner, "approving", {"topic": "Use the key test-key."})
    runner = make_runner(1)
    with pytest.raises(AgentsWaiting):
        async with runner:
            await run_single(runner, task.spec)
    (question,) = await open_questions(runner)
    assert "test-key" not in str(question)


async def test_other_input_closes_what_was_asked_about_the_first(make_runner: MakeRunner) -> None:
    runner = make_runner(1)
    with pytest.raises(AgentsWaiting):
        async with runner:
            await run_single(runner, Asking(make_runner, "editing", {"topic": "boats"}).spec)
    (first,) = await open_questions(runner)
    again = make_runner(2)
    with pytest.raises(AgentsWaiting):
        async with again:
            await run_single(again, Asking(make_runner, "editing", {"topic": "ships"}).spec)
    (second,) = await open_questions(again)
    assert second["id"] != first["id"]
    assert second["content"]["draft"] == "A draft about ships."


async def test_without_checkpoints_nobody_can_be_asked(make_runner: MakeRunner) -> None:
    spec = parse_agent(None, {"topic": "x"}, graph=f"{HERE}:editing")
    with pytest.raises(Exception, match="checkpoint: is off, but the graph stopped to ask a person"):
        async with make_runner(1, durability=None) as runner:
            await run_single(runner, spec)
