"""Agents and nodes one by one: their rows, excerpts of what they were given and returned, and the whole values."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from langgraph.types import Durability
from sqlalchemy import Engine, text

from backend.checkpoints.prune import prune_checkpoints, thin_checkpoints
from backend.core.settings import Settings, get_settings
from backend.db.engine import Database
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_team
from backend.runtime.team.run import run_team
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in
from tests.kit.graphs import heavy, kept, loops
from tests.kit.recorded_runs import RecordedRun
from tests.kit.servers.postgres import Postgres

DAG, RUN = "dag", "run"
PATH = f"/workflow-status/{DAG}/{RUN}"
CONF = {"query": "What happened?", "_visual_ai": {"user_id": "ulla", "triggered_by": "ulla"}}
KEPT, LOOPS, HEAVY = (f"tests.kit.graphs.{name}" for name in ("kept", "loops", "heavy"))

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.fail("/dags/~/")
    airflow.add_run(DAG, RUN, "success")
    return airflow


@pytest.fixture
async def http(database_url: str, airflow: FakeAirflow) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the rights of a User, to a backend with the rights of its own database role."""
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app) as http:
        http.headers.update(await sign_in(http, "ulla"))
        yield http


class Work:
    """Runs agents as tasks of the one run, and gives Airflow what they return."""

    def __init__(self, settings: Settings, database: Database, engine: Engine, airflow: FakeAirflow) -> None:
        self._settings = settings
        self._database = database
        self._airflow = airflow
        self._run = RecordedRun(engine, DAG, RUN)

    def runner(self, task: str, try_number: int = 1, durability: Durability | None = "async") -> AgentRunner:
        context = TaskContext(DAG, RUN, task, -1, try_number, CONF)
        return AgentRunner(self._settings, self._database, context, durability=durability)

    async def graph(self, graph: str, given: Any, *, task: str = "task", **options: Any) -> Any:
        async with self.runner(task, **options) as runner:
            return await self.returned(task, await run_single(runner, parse_agent(None, given, graph=graph)))

    async def returned(self, task: str, result: Any) -> Any:
        self._airflow.runs[DAG, RUN].xcoms[task, -1] = result
        await asyncio.to_thread(self._run.task, task, "success")
        return result

    async def ends(self, state: str = "success") -> None:
        await asyncio.to_thread(self._run.is_now, state)


@pytest.fixture
def work(task_settings: Settings, database: Database, engine: Engine, airflow: FakeAirflow) -> Iterator[Work]:
    loops.steps.clear()
    loops.failures.clear()
    yield Work(task_settings, database, engine, airflow)
    get_settings.cache_clear()


async def agents(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """All rows of the run, in the order in which they were started, agents first."""
    answer = (await http.get(f"{PATH}/agents")).json()
    assert answer["next_cursor"] is None
    rows: list[dict[str, Any]] = answer["agents"][::-1]
    return sorted(rows, key=lambda row: row["node"] is not None)


async def detail(http: httpx.AsyncClient, row: dict[str, Any]) -> dict[str, Any]:
    answer = await http.get(f"{PATH}/traces/{row['id']}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def whole(http: httpx.AsyncClient, value: Any) -> Any:
    """The value that a detail shows, whole: itself, or what its address returns."""
    if not (isinstance(value, dict) and value.get("truncated")):
        return value
    assert value["reason"] is None
    answer = await http.get(value["url"])
    assert answer.status_code == 200, answer.text
    assert len(answer.content) == value["bytes"] == int(answer.headers["content-length"])
    assert answer.headers["etag"] == f'"{sha256(answer.content).hexdigest()}"'
    json.loads(value["excerpt"])
    return json.loads(answer.content)


async def refusal(http: httpx.AsyncClient, row: dict[str, Any], side: str) -> tuple[int, str]:
    """The status and reason with which the whole value is refused; the detail gives the same reason."""
    answer = await http.get(f"{PATH}/traces/{row['id']}/{side}")
    assert answer.headers["content-type"] == "application/problem+json"
    shown = (await detail(http, row))[side]
    if answer.status_code == 410:
        assert (shown["bytes"], shown["reason"]) == (None, answer.json()["detail"])
        assert shown["url"].endswith(f"/traces/{row['id']}/{side}")
    return answer.status_code, answer.json()["detail"]


async def test_each_step_of_a_loop_is_whole(http: httpx.AsyncClient, work: Work) -> None:
    result = await work.graph(f"{LOOPS}:whole", {"rounds": 12, "size": 2_000, "messages": []})
    await work.ends()
    messages = result["output"]["messages"]
    agent, *nodes = await agents(http)
    assert len(nodes) == 12
    cut = 0
    for number, row in enumerate(nodes):
        found = await detail(http, row)
        assert {name: found[name] for name in row} == row
        cut += bool(isinstance(found["input"], dict) and found["input"].get("truncated"))
        given = await whole(http, found["input"])
        assert given == {"rounds": 12, "size": 2_000, "messages": messages[:number]}
        assert await whole(http, found["output"]) == {"messages": [messages[number]]}
        assert json.loads((await http.get(f"{PATH}/traces/{row['id']}/input")).content) == given
    assert cut > 3
    found = await detail(http, agent)
    assert found["node"] is None
    assert await whole(http, found["output"]) == result["output"]
    assert found["input"] == {"rounds": 12, "size": 2_000, "messages": []}


async def test_values_of_megabytes_are_streamed_in_parts(http: httpx.AsyncClient, work: Work) -> None:
    result = await work.graph(f"{HEAVY}:chain", {"kind": "words", "size": 1_000_000, "steps": []})
    await work.ends()
    payload = heavy.made("words", 1_000_000)
    agent, first, second, *_ = await agents(http)
    assert result["output"] == {"payload": payload}
    for row in (first, agent):
        assert (await whole(http, (await detail(http, row))["output"]))["payload"] == payload
    assert (await whole(http, (await detail(http, second))["input"]))["payload"] == payload
    url = f"{PATH}/traces/{first['id']}/output"
    content = (await http.get(url)).content
    head = await http.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(content)))
    middle = len(content) // 2
    given = {"Range": f"bytes={middle}-{middle + 99_999}", "If-Range": head.headers["etag"]}
    part = await http.get(url, headers=given)
    assert (part.status_code, part.content) == (206, content[middle : middle + 100_000])
    assert (await http.get(url, headers={"If-None-Match": head.headers["etag"]})).status_code == 304


async def test_objects_are_shown_without_making_them(http: httpx.AsyncClient, work: Work) -> None:
    await work.graph(f"{KEPT}:kinds", {"text": "x"})
    await work.ends()
    kept.made.clear()
    _, produce, consume = await agents(http)
    returned = await whole(http, (await detail(http, produce))["output"])
    given = await whole(http, (await detail(http, consume))["input"])
    assert given["found"] == returned["found"]
    message = returned["found"].pop("message")
    assert (message["content"], message["type"]) == ("Hello.", "ai")
    assert returned["found"] == kept.PLAIN
    assert [message["content"] for message in given["said"]] == [kept.LONG]
    assert (returned["count"], given["count"], given["text"]) == (1, 1, "x")
    assert kept.made == []


async def test_whole_values_have_no_secrets_and_no_pictures(http: httpx.AsyncClient, work: Work) -> None:
    await work.graph(f"{KEPT}:secrets", {"text": f"{kept.LONG} {kept.SECRET}. {kept.PICTURE}"})
    await work.ends()
    for row in await agents(http):
        for side in ("input", "output"):
            answer = await http.get(f"{PATH}/traces/{row['id']}/{side}")
            assert answer.status_code == 200, answer.text
            assert kept.LONG in answer.text or side == "output"
            assert kept.SECRET not in answer.text
            assert "hunter2" not in answer.text
            assert "iVBORw0KGgo" not in answer.text
    node = (await agents(http))[1]
    found = (await whole(http, (await detail(http, node))["output"]))["found"]
    assert (found["password"], found["told"]) == ("[redacted]", "My key is [redacted].")
    assert found["picture"].startswith("data:image/png;base64,[82500 bytes")


async def test_what_is_sent_to_nodes_and_done_in_subgraphs_is_whole(http: httpx.AsyncClient, work: Work) -> None:
    await work.graph(f"{KEPT}:sending", {"text": "x"})
    await work.graph(f"{KEPT}:outer", {"text": kept.LONG}, task="second")
    await work.ends()
    by_node: dict[str, list[dict[str, Any]]] = {}
    for row in await agents(http):
        by_node.setdefault(row["node"], []).append(await detail(http, row))
    for found in by_node["part"]:
        given = await whole(http, found["input"])
        assert given["text"] == f"{given['number']} {kept.LONG}"
        assert await whole(http, found["output"]) == {"parts": [f"of {given['text']}"]}
    for node in ("group", "group/inner"):
        (found,) = by_node[node]
        assert (await whole(http, found["input"]))["text"] == kept.LONG
        assert (await whole(http, found["output"]))["text"] == f"inner {kept.LONG}"
    (agent,) = (found for found in by_node[None] if found["task_id"] == "second")  # type: ignore[index]  # an agent's node
    assert await whole(http, agent["input"]) == {"text": kept.LONG}


async def test_a_member_of_a_team_and_an_item_of_a_batch_have_their_own(http: httpx.AsyncClient, work: Work) -> None:
    inputs = {name: {"text": f"{name} {kept.LONG}"} for name in ("ann", "bob")}
    members = [{"name": name, "graph": f"{KEPT}:outer", "input_data": given} for name, given in inputs.items()]
    async with work.runner("team") as runner:
        result = await run_team(runner, parse_team(members, "parallel"), "parallel", synthesis=None)
    await work.returned("team", result)
    async with work.runner("batch") as runner:
        spec = parse_agent(None, {}, graph=f"{KEPT}:outer")
        await run_batch(runner, spec, [{"text": f"{number} {kept.LONG}"} for number in range(2)], BatchPlan())
    await work.ends()
    for row in await agents(http):
        found = await detail(http, row)
        if row["node"] is None:
            name = row["agent"].split("[")[-1].rstrip("]")
            assert (await whole(http, found["input"]))["text"] == f"{name} {kept.LONG}"
        assert (await whole(http, found["output"]))["text"] == f"inner {kept.LONG}"


@pytest.mark.parametrize("durability", [None, "exit"])
async def test_steps_that_were_never_kept_say_so(
    http: httpx.AsyncClient, work: Work, durability: Durability | None
) -> None:
    result = await work.graph(f"{KEPT}:outer", {"text": kept.LONG}, durability=durability)
    await work.ends()
    agent, group, _ = await agents(http)
    for side in ("input", "output"):
        status, reason = await refusal(http, group, side)
        assert (status, "checkpoint=False, durability='exit'" in reason) == (410, True)
    assert await whole(http, (await detail(http, agent))["output"]) == result["output"]


async def sql(database: Database, statement: str) -> None:
    await database.run(lambda connection: connection.execute(text(statement)))


async def test_values_that_are_gone_say_why(
    http: httpx.AsyncClient,
    work: Work,
    airflow: FakeAirflow,
    database: Database,
    pg: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", pg.worker_url)
    get_settings.cache_clear()
    await work.graph(f"{LOOPS}:whole", {"rounds": 15, "size": 30_000, "messages": []})
    await work.ends()
    agent, first, *_ = await agents(http)
    assert (await http.get(f"{PATH}/traces/{first['id']}/output")).status_code == 200
    past = "UPDATE visual_ai.workflow_executions SET finished_at = clock_timestamp() - interval '2 days'"
    await sql(database, past)
    assert await asyncio.to_thread(thin_checkpoints, 1) == 1
    status, reason = await refusal(http, first, "output")
    assert (status, "VISUAL_AI_CHECKPOINT_HISTORY_DAYS" in reason) == (410, True)
    assert await asyncio.to_thread(prune_checkpoints, 1) == 1
    status, reason = await refusal(http, first, "output")
    assert (status, "VISUAL_AI_CHECKPOINT_RETENTION_DAYS" in reason) == (410, True)
    airflow.runs[DAG, RUN].xcoms.clear()
    assert await refusal(http, agent, "output") == (410, "Airflow has deleted what the task returned.")


async def test_a_later_try_replaces_what_earlier_ones_returned(http: httpx.AsyncClient, work: Work) -> None:
    await work.graph(f"{KEPT}:outer", {"text": kept.LONG})
    await work.graph(f"{KEPT}:outer", {"text": f"again {kept.LONG}"}, try_number=2)
    await work.ends()
    rows = [row for row in await agents(http) if row["node"] is not None or row["try_number"] == 1]
    for row in rows:
        if row["try_number"] == 1:
            status, reason = await refusal(http, row, "output")
            assert (status, "again" in reason) == (410, True)
        else:
            assert (await whole(http, (await detail(http, row))["output"]))["text"] == f"inner {kept.LONG}"


async def test_what_runs_has_no_output_yet(http: httpx.AsyncClient, engine: Engine) -> None:
    run = RecordedRun(engine, DAG, RUN)
    run.is_now("running")
    run.agent("task", "text", "running")
    run.agent("task", "text", "failed", "node")
    for row in await agents(http):
        answer = await http.get(f"{PATH}/traces/{row['id']}/output")
        if row["state"] == "running":
            assert (answer.status_code, answer.headers["retry-after"]) == (409, "2")
        else:
            assert (answer.status_code, answer.content) == (200, b"null")
        assert (await detail(http, row))["output"] is None


async def test_rows_are_shown_to_those_who_may_see_the_run(http: httpx.AsyncClient, engine: Engine) -> None:
    run = RecordedRun(engine, DAG, RUN)
    run.agent("task", "text", "success")
    other = RecordedRun(engine, DAG, "other")
    other.agent("task", "text", "success")
    (row,) = await agents(http)
    url = f"{PATH}/traces/{row['id']}"
    victor, anna = await sign_in(http, "victor"), await sign_in(http, "anna")
    for leaf in ("", "/input", "/output"):
        assert (await http.get(url + leaf)).status_code == 200
        assert (await http.get(url + leaf, headers=anna)).status_code == 200
        for path in (
            f"/workflow-status/{DAG}/other/traces/{row['id']}{leaf}",
            f"{PATH}/traces/{uuid.uuid4()}{leaf}",
            f"/workflow-status/{DAG}/none/traces/{row['id']}{leaf}",
        ):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
        malformed = await http.get(f"{PATH}/traces/nothing{leaf}")
        assert (malformed.status_code, malformed.json()["errors"][0]["pointer"]) == (422, "/trace_id")
    hidden = RecordedRun(engine, DAG, "hidden", user="somebody")
    hidden.agent("task", "text", "success")
    listed = (await http.get(f"/workflow-status/{DAG}/hidden/agents", headers=anna)).json()["agents"]
    address = f"/workflow-status/{DAG}/hidden/traces/{listed[0]['id']}"
    assert (await http.get(address)).status_code == 404
    assert (await http.get(address, headers=anna)).status_code == 200
    assert (await http.get(address, headers=victor)).status_code == 200


async def test_the_snapshot_and_events_have_the_ids(http: httpx.AsyncClient, work: Work) -> None:
    await work.graph(f"{KEPT}:outer", {"text": "x"})
    await work.ends()
    ids = {row["id"] for row in await agents(http)}
    snapshot = (await http.get(PATH)).json()
    assert {row["id"] for row in snapshot["agents"]} == ids
    async with http.stream("GET", f"/workflow-status/stream/{DAG}/{RUN}?last_event_id=0") as stream:
        body = (await stream.aread()).decode()
    events = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: ")]
    assert {event["id"] for event in events if "node" in event} == ids
