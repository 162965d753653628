"""Time travel: the states of agents as a list, and runs that go on from one of them without paying for it again."""

import asyncio
from functools import partial
from typing import Any

import pytest

from backend.core.asking.terms import QuestionTerms
from backend.core.errors.input_error import InputError
from backend.core.settings import get_settings
from backend.db import questions
from backend.db.questions import Given
from backend.pictures.inline import data_url
from backend.runtime import triggerer_resources
from backend.runtime.runner import AgentRunner, AgentsWaiting
from backend.runtime.specs import AgentSpec, parse_agent, parse_supervisor, parse_team
from backend.runtime.team.run import run_team
from tests.kit.airflow import FakeAirflow
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.forks import DAG, ForkableRuns
from tests.kit.graphs import asking
from tests.kit.openai.server import OpenAIServer
from tests.kit.pictures import encode, photo
from tests.kit.servers.postgres import Postgres
from visual_ai_triggers import AgentTrigger

GRAPHS = "tests.kit.graphs.forked"
ASKING = "tests.kit.graphs.asking"


@pytest.fixture
def runs(forkable: ForkableRuns) -> ForkableRuns:
    return forkable


def essay(topic: str = "boats", graph: str = "essay") -> AgentSpec:
    return parse_agent(None, {"topic": topic}, graph=f"{GRAPHS}:{graph}")


def asked(server: OpenAIServer, start: int = 0) -> list[str]:
    """What the models were asked: the last line of each prompt."""
    return [request.prompt.rpartition("\n")[2] for request in server.requests[start:]]


async def test_the_states_of_an_agent_are_listed(runs: ForkableRuns) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay())
    found = await runs.checkpoints(run)
    assert [(one["nodes"], one["next"]) for one in found] == [
        (["review"], []),
        (["write"], ["review"]),
        (["plan"], ["write"]),
        (["__start__"], ["plan"]),
        ([], ["__start__"]),
    ]
    assert {one["agent"] for one in found} == {"essay"}
    assert [one["parent_checkpoint_id"] for one in found] == [*(one["checkpoint_id"] for one in found[1:]), None]
    assert all(one["bytes"] > 0 and one["created_at"] for one in found)
    state = (await runs.http.get(found[2]["url"])).json()
    assert state["values"]["topic"] == "boats"
    assert state["values"]["log"] == ["plan"]
    assert "draft" not in state["values"]
    pages = []
    cursor = None
    while True:
        more: dict[str, Any] = {"cursor": cursor} if cursor else {}
        url = f"/workflows/{DAG}/runs/{run}/tasks/task/checkpoints"
        page = (await runs.http.get(url, params={"limit": 2, **more})).json()
        pages += page["checkpoints"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == found


async def test_a_fork_pays_only_for_what_follows(runs: ForkableRuns, openai_server: OpenAIServer) -> None:
    run = await runs.start({"topic": "boats"})
    before = await runs.run(run, essay())
    assert len(openai_server.requests) == 3
    new = await runs.fork(run, node="write")
    result = await runs.run(new, essay())
    assert len(openai_server.requests) == 5
    assert result["output"]["log"] == ["plan", "write", "review"]
    assert result["output"]["outline"] == before["output"]["outline"]
    snapshot = (await runs.http.get(f"/workflow-status/{DAG}/{new}")).json()
    found = await runs.checkpoints(run)
    assert snapshot["forked_from"] == {
        "dag_id": DAG, "dag_run_id": run, "task_id": "task", "map_index": -1, "agent": "essay",
        "checkpoint_id": found[2]["checkpoint_id"], "node": "write",
    }  # fmt: skip
    assert snapshot["input_data"] == {"topic": "boats"}
    listed = (await runs.http.get("/workflow-status", params={"forked_from": run})).json()["executions"]
    assert [one["dag_run_id"] for one in listed] == [new]
    # The source stays as it was, and a retry of the fork goes on from its own states.
    assert await runs.checkpoints(run) == found
    await runs.run(new, essay(), try_number=2)


@pytest.mark.parametrize(("at", "calls"), [(0, 0), (1, 1), (3, 3), (4, 3)])
async def test_a_fork_goes_on_from_any_state(
    runs: ForkableRuns, openai_server: OpenAIServer, at: int, calls: int
) -> None:
    run = await runs.start({"topic": "boats"})
    before = await runs.run(run, essay())
    new = await runs.fork(run, checkpoint_id=(await runs.checkpoints(run))[at]["checkpoint_id"])
    result = await runs.run(new, essay())
    assert len(openai_server.requests) == 3 + calls
    assert result["output"]["log"] == before["output"]["log"]


async def test_values_are_changed_as_the_graph_does(runs: ForkableRuns, openai_server: OpenAIServer) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay())
    new = await runs.fork(run, node="write", values={"outline": "Only sails.", "log": ["a person"]})
    result = await runs.run(new, essay())
    assert asked(openai_server, 3)[0] == "write: Only sails."
    assert result["output"]["log"] == ["plan", "a person", "write", "review"]
    as_node = await runs.fork(run, node="write", values={"draft": "Mine."}, as_node="write")
    result = await runs.run(as_node, essay())
    assert asked(openai_server, 5) == ["review: Mine."]


async def test_values_of_the_input(runs: ForkableRuns, openai_server: OpenAIServer) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay())
    last = (await runs.checkpoints(run))[-1]
    new = await runs.fork(run, checkpoint_id=last["checkpoint_id"], values={"log": ["a person"]})
    result = await runs.run(new, essay())
    assert asked(openai_server, 3)[0] == "plan: boats"
    assert result["output"]["log"] == ["a person", "plan", "write", "review"]
    anew = await runs.fork(run, values={"topic": "trains"})
    await runs.run(anew, essay())
    assert asked(openai_server, 6)[0] == "plan: trains"


async def test_values_of_a_state_that_no_edge_leads_to(runs: ForkableRuns) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay(graph="routed"))
    new = await runs.fork(run, node="answer", values={"outline": "SAILS"})
    assert (await runs.run(new, essay(graph="routed")))["output"]["draft"] == "About SAILS."


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"values": {"nothing": 1}}, "'nothing'"),
        ({"values": {"draft": "x"}, "as_node": "nobody"}, "nobody"),
        ({"values": {"log": 3}}, "can't be written"),
    ],
)
async def test_wrong_values_fail_the_run_with_the_reason(
    runs: ForkableRuns, openai_server: OpenAIServer, body: dict[str, Any], reason: str
) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay())
    new = await runs.fork(run, node="write", **body)
    with raises_failure(InputError, match=reason):
        await runs.run(new, essay())
    assert len(openai_server.requests) == 3


async def test_another_model_and_prompt(runs: ForkableRuns, openai_server: OpenAIServer) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay())
    new = await runs.fork(run, node="review", model="openai:gpt-4.1", system_prompt="You doubt.")
    await runs.run(new, essay())
    (request,) = openai_server.requests[3:]
    assert request.model == "gpt-4.1"
    assert "You doubt." in request.prompt
    built_in = parse_agent({"type": "text", "system_prompt": "Be kind."}, {"text": "Boats.", "query": "q"})
    run = await runs.start({"text": "Boats."}, model="openai:gpt-4.1-mini")
    await runs.run(run, built_in)
    for body in ({"node": "analyse"}, {}):
        new = await runs.fork(run, model="openai:gpt-4.1", system_prompt="Be strict.", **body)
        result = await runs.run(new, built_in)
        assert result["model"] == "openai:gpt-4.1"
        assert "Be strict." in openai_server.requests[-1].prompt
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay(graph="routed"))
    refused = await runs.fork(run, model="openai:gpt-4.1")
    with raises_failure(InputError, match="context"):
        await runs.run(refused, essay(graph="routed"))


async def test_another_input(runs: ForkableRuns, openai_server: OpenAIServer) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay())
    new = await runs.fork(run, input_data={"topic": "trains"})
    await runs.run(new, essay("trains"))
    assert asked(openai_server, 3)[0] == "plan: trains"
    later = await runs.fork(run, node="review", input_data={"topic": "trains"})
    result = await runs.run(later, essay("trains"))
    assert result["output"]["topic"] == "trains"
    assert len(openai_server.requests) == 7


async def test_an_interrupt_asks_again(runs: ForkableRuns) -> None:
    async def answered(run: str, answer: str) -> dict[str, Any]:
        spec = parse_agent(None, {"topic": "boats"}, graph=f"{ASKING}:editing")
        with pytest.raises(AgentsWaiting):
            await runs.run(run, spec)
        (question,) = await runs.database.run(partial(questions.open_of_task, task_id="task", map_index=-1), DAG, run)
        given = Given(answer, None, "ulla", "api")
        assert await runs.database.run(questions.answer, str(question["id"]), given)
        return await runs.run(run, spec)

    run = await runs.start({"topic": "boats"})
    assert (await answered(run, "One."))["output"]["draft"] == "One."
    found = await runs.checkpoints(run)
    assert [one["asks"] for one in found] == [False, True, False, False]
    new = await runs.fork(run, node="review")
    assert (await answered(new, "Two."))["output"]["draft"] == "Two."
    assert asking.RAN.count("write") == 1


async def test_no_fork_passes_a_question_that_its_user_may_not_answer(runs: ForkableRuns) -> None:
    spec = parse_agent(None, {"topic": "boats"}, graph=f"{ASKING}:editing")
    run = await runs.start({"topic": "boats"})
    with pytest.raises(AgentsWaiting):
        await runs.run(run, spec, terms=QuestionTerms(four_eyes=True))
    for body in ({"node": "review", "values": {"draft": "Mine."}, "as_node": "review"}, {"node": "review"}):
        refused = await runs.ask(run, **body)
        assert refused.status_code == 403, refused.text
        assert "Somebody else has to answer this question: the run is yours." in refused.json()["detail"]
    assert await runs.fork(run), "it begins anew and asks again"


async def test_a_node_of_a_subgraph(runs: ForkableRuns, openai_server: OpenAIServer) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay(graph="nested"))
    new = await runs.fork(run, node="review")
    result = await runs.run(new, essay(graph="nested"))
    assert len(openai_server.requests) == 4
    assert result["output"]["log"] == ["plan", "write", "review"]
    changed = await runs.fork(run, node="review", values={"draft": "Mine."})
    await runs.run(changed, essay(graph="nested"))
    assert asked(openai_server, 4) == ["review: Mine."]


TEAM = [
    {"name": name, "type": "text", "input_data": {"text": "Boats.", "query": f"inquiry {name}"}}
    for name in ("one", "two", "three")
]


@pytest.mark.parametrize(("mode", "calls"), [("parallel", 1), ("sequential", 2), ("graph", 2)])
async def test_an_agent_of_a_team(runs: ForkableRuns, openai_server: OpenAIServer, mode: str, calls: int) -> None:
    agents = [{**one, "depends_on": ["two"]} if (mode, one["name"]) == ("graph", "three") else one for one in TEAM]
    specs = parse_team(agents, mode)

    def work(runner: AgentRunner) -> Any:
        return run_team(runner, specs, mode, synthesis=None)

    run = await runs.start({"query": "x"}, model="openai:gpt-4.1-mini")
    before = await runs.run(run, work)
    assert len(openai_server.requests) == 3
    assert {one["agent"] for one in await runs.checkpoints(run)} == {"one", "two", "three"}
    assert {one["agent"] for one in await runs.checkpoints(run, agent="two")} == {"two"}
    unclear = await runs.ask(run, node="analyse")
    assert (unclear.status_code, unclear.json()["errors"][0]["pointer"]) == (422, "/agent")
    new = await runs.fork(run, node="analyse", agent="two", model="openai:gpt-4.1")
    result = await runs.run(new, work)
    assert len(openai_server.requests) == 3 + calls
    assert result["agents"]["two"]["model"] == "openai:gpt-4.1"
    assert result["results"]["one"] == before["results"]["one"]


async def test_an_agent_that_a_supervisor_called(runs: ForkableRuns, openai_server: OpenAIServer) -> None:
    specs = parse_team([{**one, "model": "openai:gpt-4.1-mini"} for one in TEAM], "supervisor")
    lead = parse_supervisor({"model": "local:text"})

    def work(runner: AgentRunner) -> Any:
        return run_team(runner, specs, "supervisor", synthesis=None, supervisor=lead)

    run = await runs.start({"query": "x"})
    await runs.run(run, work)
    assert len(openai_server.requests) == 3
    new = await runs.fork(run, node="analyse", agent="two")
    result = await runs.run(new, work)
    assert len(openai_server.requests) == 5
    assert result["results"].keys() == {"one", "two", "three"}


async def test_a_fork_in_the_triggerer(
    runs: ForkableRuns, airflow: FakeAirflow, openai_server: OpenAIServer, pg: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", pg.worker_url)
    monkeypatch.setattr(triggerer_resources, "IDLE_SECONDS", 0.05)
    get_settings.cache_clear()
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay())
    new = await runs.fork(run, node="review")
    given = {"agent_config": None, "input_data": {"topic": "boats"}, "graph": f"{GRAPHS}:essay"}
    place = {"dag_id": DAG, "run_id": new, "task_id": "task", "map_index": -1, "try_number": 1, "id": "an-instance"}
    conf = airflow.runs[DAG, new].shown["conf"]
    trigger = AgentTrigger("LangGraphOperator", given, conf=conf, run_type="manual", user="ulla", place=place)
    try:
        [event] = [event async for event in trigger.run()]
    finally:
        await trigger.cleanup()
        keepers = [task for task in asyncio.all_tasks() if task.get_name() == triggerer_resources.KEEPER]
        await asyncio.gather(*keepers, return_exceptions=True)
        get_settings.cache_clear()
    assert event.payload["error"] is None
    assert event.payload["result"]["output"]["log"] == ["plan", "write", "review"]
    assert len(openai_server.requests) == 4


async def test_other_tasks_return_what_they_returned(runs: ForkableRuns, openai_server: OpenAIServer) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay(), "first")
    await runs.run(run, essay("ships"), "second")
    new = await runs.fork(run, "second", node="review")
    await runs.run(new, essay(), "first")
    await runs.run(new, essay("ships"), "second")
    assert len(openai_server.requests) == 7
    await runs.run(new, essay("trains"), "third")
    assert len(openai_server.requests) == 10


async def test_a_killed_try_of_a_fork_repeats_nothing(runs: ForkableRuns, openai_server: OpenAIServer) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay())
    new = await runs.fork(run, node="write", values={"outline": "Only sails."})
    openai_server.script("timeout", contains="review")
    trying = asyncio.create_task(runs.run(new, essay()))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.requests == 5)
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    openai_server.reset()
    result = await runs.run(new, essay(), try_number=2)
    assert len(openai_server.requests) == 1
    assert result["output"]["log"] == ["plan", "write", "review"]


async def test_a_fork_beside_its_source(runs: ForkableRuns) -> None:
    run = await runs.start({"topic": "boats"})
    await runs.run(run, essay())
    new = await runs.fork(run, node="write", input_data={"topic": "boats", "more": [1]}, values={"outline": "Mine."})
    await runs.run(new, essay())
    for one in (run, new):
        await runs.end(one)
    query = {"left": f"{DAG}/{run}", "right": f"{DAG}/{new}"}
    found = (await runs.http.get("/workflow-status/compare", params=query)).json()
    assert (found["left"]["dag_run_id"], found["right"]["forked_from"]["dag_run_id"]) == (run, run)
    (agent,) = found["agents"]
    assert (agent["agent"], agent["left"]["state"], agent["right"]["state"]) == ("essay", "success", "success")
    shown = [(node["node"], node["left"] is not None, node["right"] is not None) for node in agent["nodes"]]
    assert shown == [("plan", True, False), ("write", True, True), ("review", True, True)]
    assert not agent["nodes"][1]["same_output"]
    assert found["input_changes"] == [{"pointer": "/more", "left": None, "right": "[1]"}]
    assert {"/output/outline", "/output/draft"} <= {change["pointer"] for change in found["result_changes"]}
    assert not [change for change in found["result_changes"] if "trace" in change["pointer"]]
    assert not found["cut"]
    assert (await runs.http.get("/workflow-status/compare", params={**query, "right": "x/y"})).status_code == 404
    assert (await runs.http.get("/workflow-status/compare", params={**query, "right": "xyz"})).status_code == 422


async def test_a_fork_without_the_picture_of_its_source(runs: ForkableRuns, airflow: FakeAirflow) -> None:
    """The picture is cut from the checkpoint, and isn't in the new input."""
    picture = data_url("image/png", encode(photo(), "PNG"))
    run = await runs.start({"topic": picture})
    given = airflow.runs[DAG, run].shown["conf"]["topic"]
    assert given.startswith("upload://")
    await runs.run(run, essay(given, "routed"))
    (before, *_) = [one for one in await runs.checkpoints(run) if one["next"] == ["answer"]]
    same = await runs.fork(run, checkpoint_id=before["checkpoint_id"])
    assert (await runs.run(same, essay(given, "routed")))["output"]["topic"] == picture
    new = await runs.fork(run, node="answer", input_data={"topic": "trains"})
    assert (await runs.run(new, essay("trains", "routed")))["output"]["topic"] == "trains"
