"""Checkpoints and forks over HTTP: what is shown of a state, what isn't, and what a client is told."""

from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from backend.pictures.inline import data_url
from backend.runtime.batch.plan import parse_plan
from backend.runtime.batch.run import run_batch
from backend.runtime.specs import parse_agent
from tests.kit.airflow import FakeAirflow
from tests.kit.application import sign_in
from tests.kit.fixtures.forks import DAG, ForkableRuns
from tests.kit.openai.server import OpenAIServer
from tests.kit.pictures import encode, photo

GRAPH = "tests.kit.graphs.forked"


@pytest.fixture
def runs(forkable: ForkableRuns) -> ForkableRuns:
    return forkable


async def finished(runs: ForkableRuns, given: dict[str, Any], graph: str = "routed", **options: Any) -> str:
    """A run of one agent, which has succeeded."""
    run = await runs.start(given)
    await runs.run(run, parse_agent(None, given, graph=f"{GRAPH}:{graph}"), **options)
    return run


def url(run: str, task: str = "task", *more: str) -> str:
    return "/".join([f"/workflows/{DAG}/runs/{run}/tasks/{task}/checkpoints", *more])


async def test_a_state_shows_no_secret_and_no_picture(runs: ForkableRuns) -> None:
    picture = data_url("image/png", encode(photo(), "PNG"))
    given = {"topic": picture, "log": ["Bearer abcdefgh12345678"]}
    run = await finished(runs, given)
    for one in await runs.checkpoints(run):
        shown = await runs.http.get(one["url"])
        whole = await runs.http.get(url(run, "task", one["checkpoint_id"], "values"))
        assert (shown.status_code, whole.status_code) == (200, 200)
        for body in (shown.text, whole.text):
            assert "abcdefgh12345678" not in body
            assert picture[40:80] not in body
        if one["next"] == ["choose"]:
            digest = sha256(picture.encode()).hexdigest()
            assert shown.json()["values"]["topic"] == f"[picture, sha256 {digest}]"


@pytest.mark.parametrize("size", [40_000, 700_000])
async def test_a_large_state_stands_there_by_reference(runs: ForkableRuns, size: int) -> None:
    run = await finished(runs, {"topic": "a boat " * (size // 7)})
    one = (await runs.checkpoints(run))[0]
    shown = (await runs.http.get(one["url"])).json()["values"]
    assert (shown["truncated"], shown["media_type"]) == (True, "application/json")
    whole = await runs.http.get(shown["url"])
    assert len(whole.content) == shown["bytes"] > size
    assert whole.text.startswith(shown["excerpt"])
    assert whole.json()["topic"].startswith("a boat ")
    part = await runs.http.get(shown["url"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])


async def test_why_there_are_none(runs: ForkableRuns, engine: Engine, database_url: str) -> None:
    async def note(run: str, task: str = "task") -> str:
        answer = await runs.http.get(url(run, task))
        assert (answer.status_code, answer.json()["checkpoints"]) == (200, [])
        return str(answer.json()["note"])

    run = await runs.start({"topic": "x"})
    assert (await runs.http.get(url(run))).status_code == 404
    without = await finished(runs, {"topic": "x"}, durability=None)
    kept = await finished(runs, {"topic": "x"})
    await runs.prune(kept)
    for one in (without, kept):
        await runs.end(one)
    assert "without keeping checkpoints" in await note(without)
    assert "VISUAL_AI_CHECKPOINT_RETENTION_DAYS" in await note(kept)
    assert (await runs.ask(kept, node="answer")).status_code == 422
    assert (await runs.ask(kept, checkpoint_id="gone")).status_code == 404
    assert (await runs.ask(kept, input_data={"topic": "y"})).status_code == 202


async def test_bad_requests(runs: ForkableRuns, airflow: FakeAirflow, http: httpx.AsyncClient) -> None:
    run = await finished(runs, {"topic": "x"})
    found = await runs.checkpoints(run)
    unknown = await runs.ask(run, checkpoint_id="1f1ec702-230e-653c-bfff-e00632a62dc8")
    assert unknown.status_code == 404
    assert (await runs.http.get(url(run, "task", "nothing"))).status_code == 404
    assert (await runs.http.get(url(run, "nothing"))).status_code == 404
    assert (await runs.ask(run, "nothing")).status_code == 404
    assert (await runs.ask("nothing")).status_code == 404
    node = await runs.ask(run, node="nobody")
    assert (node.status_code, node.json()["errors"][0]["pointer"]) == (422, "/node")
    assert "answer, choose" in node.json()["detail"]
    other = await runs.ask(run, node="choose", checkpoint_id=found[0]["checkpoint_id"])
    assert other.status_code == 422
    agent = await runs.ask(run, agent="nobody")
    assert (agent.status_code, "routed" in agent.json()["detail"]) == (422, True)
    assert (await runs.ask(run, as_node="choose")).status_code == 422
    assert (await runs.ask(run, values={"a": "\x00"})).status_code == 422
    assert (await runs.ask(run, values=[1])).status_code == 422
    assert (await runs.ask(run, unknown=1)).status_code == 422
    assert (await runs.http.get(url(run), params={"cursor": "x"})).status_code == 422
    airflow.add_dag(DAG, params={"topic": {"value": "x", "schema": {"type": "string", "minLength": 1}}})
    invalid = await runs.ask(run, input_data={"topic": ""})
    assert (invalid.status_code, invalid.json()["errors"][0]["pointer"]) == (422, "/input_data/topic")
    airflow.add_dag(DAG, params={}, is_paused=True)
    assert (await runs.ask(run)).status_code == 409


async def test_a_fork_is_started_once_for_a_key(runs: ForkableRuns, engine: Engine) -> None:
    run = await finished(runs, {"topic": "x"})
    body: dict[str, Any] = {"node": "answer", "values": {"outline": "Y"}}
    first, again = [await runs.ask(run, key="k", **body) for _ in range(2)]
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["dag_run_id"] == again.json()["dag_run_id"]
    assert (await runs.ask(run, key="k", node="answer")).status_code == 409
    short = await runs.http.post(f"/workflows/{DAG}/runs/{run}/fork", json={"task_id": "task", "node": "answer"})
    assert short.status_code == 202
    with engine.connect() as connection:
        entries = connection.execute(text("SELECT object FROM visual_ai.audit_log WHERE action = 'run.fork'")).scalars()
        assert f"{DAG}/{first.json()['dag_run_id']}" in list(entries)


async def test_who_may_fork(runs: ForkableRuns, http: httpx.AsyncClient) -> None:
    run = await finished(runs, {"topic": "x"})
    for user, status in {"uwe": 404, "victor": 403, "otto": 202}.items():
        headers = await sign_in(http, user)
        answer = await http.post(f"/workflows/{DAG}/runs/{run}/tasks/task/fork", json={}, headers=headers)
        assert answer.status_code == status, user
        listed = await http.get(url(run), headers=headers)
        assert listed.status_code == {"uwe": 404}.get(user, 200)


async def test_a_copied_conf_is_no_fork(runs: ForkableRuns, airflow: FakeAirflow, openai_server: OpenAIServer) -> None:
    """Whoever may start runs in Airflow writes their confs; a fork's is signed for one run."""
    run = await finished(runs, {"topic": "x"})
    new = await runs.fork(run, node="answer")
    conf = airflow.runs[DAG, new].shown["conf"]
    airflow.add_run(DAG, "copied", "running", conf=conf, triggering_user_name="ulla")
    await runs.run("copied", parse_agent(None, {"topic": "other"}, graph=f"{GRAPH}:routed"))
    found = await runs.checkpoints("copied")
    assert len(found) == 4
    assert (await runs.http.get(f"/workflow-status/{DAG}/copied")).json()["forked_from"] is None


async def test_items_of_a_batch(runs: ForkableRuns, openai_server: OpenAIServer) -> None:
    spec = parse_agent(None, {}, graph=f"{GRAPH}:essay")
    inputs = [{"topic": f"topic {index}"} for index in range(3)]

    async def work(runner: Any) -> dict[str, Any]:
        return await run_batch(runner, spec, inputs, parse_plan(3, "fail"))

    run = await runs.start({})
    await runs.run(run, work)
    assert len(openai_server.requests) == 9
    found = await runs.checkpoints(run)
    assert {one["item"] for one in found} == {0, 1, 2}
    assert {one["item"] for one in await runs.checkpoints(run, item=1)} == {1}
    assert (await runs.ask(run, node="review")).json()["errors"][0]["pointer"] == "/item"
    new = await runs.fork(run, node="review", item=1, values={"draft": "Mine."})
    result = await runs.run(new, work)
    assert len(openai_server.requests) == 10
    assert openai_server.requests[-1].prompt.endswith("review: Mine.")
    assert result["batch"]["succeeded"] == 3
    assert result["results"][1]["draft"] == "Mine."
