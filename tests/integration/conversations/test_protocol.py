"""LangGraph's protocol over HTTP: who may talk where, what is refused and why, and streams that are resumed."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
import websockets
from fastapi import FastAPI
from httpx_sse import EventSource
from sqlalchemy import Engine, create_engine

from backend.core.turns import Frame, conversation_id_of
from backend.db.conversations import assistants, frames, turns
from backend.db.conversations.turns import NewTurn
from backend.services.langgraph import streams
from tests.kit.airflow import PASSWORD, FakeAirflow, User
from tests.kit.application import client_of, served, sign_in
from tests.kit.servers.postgres import Postgres

DAG = "talks.agent"
Headers = Mapping[str, str]


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.users["felix"] = User(PASSWORD, ["User"])
    airflow.add_dag(DAG, params={})
    airflow.add_dag("other", params={"query": {"value": None, "description": None, "schema": {"type": "string"}}})
    return airflow


@pytest.fixture(autouse=True)
def graph(pg: Postgres, engine: Engine) -> None:  # the database is empty then
    """The DAG is that of a graph, as whoever parses DAG files has recorded."""
    shown: dict[str, Any] = {"graph": {"nodes": [], "edges": []}, "graph_xray": {}, "schemas": {}, "subgraphs": {}}
    worker = create_engine(pg.worker_url)
    with worker.begin() as connection:
        assistants.keep_graphs(connection, [{"dag_id": DAG, "graph_id": "agent", "shown": shown}])
    worker.dispose()


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, base_url="http://api.test/langgraph/") as client:
        yield client


async def thread_of(api: httpx.AsyncClient, who: Headers, **body: Any) -> str:
    made = await api.post("threads", json=body, headers=dict(who))
    assert made.status_code == 200, made.text
    return str(made.json()["thread_id"])


async def test_nobody_talks_without_a_token(api: httpx.AsyncClient) -> None:
    assert (await api.get("ok")).json() == {"ok": True}
    for method, path in (("POST", "threads"), ("POST", "runs"), ("POST", "assistants"), ("PUT", "store/items")):
        refused = await api.request(method, path, json={})
        assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")


async def test_a_key_of_ours_is_a_token_and_another_is_none(api: httpx.AsyncClient, ulla: Headers) -> None:
    token = ulla["Authorization"].removeprefix("Bearer ")
    assert (await api.post("threads", json={}, headers={"X-Api-Key": token})).status_code == 200
    assert (await api.post("threads", json={}, headers={"X-Api-Key": "lsv2_pt_of_langsmith"})).status_code == 401


async def test_a_thread_is_its_owners(api: httpx.AsyncClient, ulla: Headers, app: FastAPI) -> None:
    async with client_of(app) as plain:
        felix, otto = await sign_in(plain, "felix"), await sign_in(plain, "otto")
        victor = await sign_in(plain, "victor")
    thread = await thread_of(api, ulla, metadata={"of": "ulla"})
    for path in (f"threads/{thread}", f"threads/{thread}/state", f"threads/{thread}/runs"):
        assert (await api.get(path, headers=dict(felix))).status_code == 404
        assert (await api.get(path, headers=dict(otto))).status_code == 200
    for who, found in ((ulla, 1), (felix, 0), (otto, 1)):
        searched = await api.post("threads/search", json={"metadata": {"of": "ulla"}}, headers=dict(who))
        assert len(searched.json()) == found
        assert (await api.post("threads/count", json={}, headers=dict(who))).json() == found
    assert (await api.delete(f"threads/{thread}", headers=dict(felix))).status_code == 404
    for path in ("threads", "assistants", "runs"):
        refused = await api.post(path, json={"assistant_id": "agent", "graph_id": "agent"}, headers=dict(victor))
        assert refused.status_code == 403
    assert (await api.delete(f"threads/{thread}", headers=dict(ulla))).status_code == 204
    assert (await api.get(f"threads/{thread}", headers=dict(ulla))).status_code == 404


async def test_the_store_has_places_of_its_own_for_users(api: httpx.AsyncClient, ulla: Headers, app: FastAPI) -> None:
    async with client_of(app) as plain:
        otto = await sign_in(plain, "otto")
    item = {"namespace": ["everybody"], "key": "a", "value": {"n": 1}}
    assert (await api.put("store/items", json=item, headers=dict(ulla))).status_code == 403
    assert (await api.put("store/items", json=item, headers=dict(otto))).status_code == 204
    own = {**item, "namespace": ["memories", "ulla"]}
    assert (await api.put("store/items", json=own, headers=dict(ulla))).status_code == 204
    found = await api.get("store/items", params={"namespace": "memories.ulla", "key": "a"}, headers=dict(ulla))
    assert found.json()["value"] == {"n": 1}
    listed = await api.post("store/namespaces", json={}, headers=dict(ulla))
    assert listed.json() == {"namespaces": [["memories", "ulla"]]}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"assistant_id": "nothing"}, 404, "no assistant or graph 'nothing'"),
        ({"assistant_id": str(uuid.uuid4())}, 404, "no assistant"),
        ({}, 422, "/assistant_id"),
        ({"assistant_id": "agent", "stream_mode": "wild"}, 422, "/stream_mode/0"),
        ({"assistant_id": "agent", "multitask_strategy": "both"}, 422, "/multitask_strategy"),
        ({"assistant_id": "agent", "input": {}, "command": {"resume": 1}}, 422, "/command"),
        ({"assistant_id": "agent", "command": {"jump": 1}}, 422, "/command/jump"),
        ({"assistant_id": "agent", "config": {"callbacks": []}}, 422, "/config/callbacks"),
        ({"assistant_id": "other", "input": {"query": 7}}, 422, "/input_data/query"),
        ({"assistant_id": "agent", "input": {"_visual_ai": {}}}, 422, "_visual_ai"),
    ],
)
async def test_what_is_wrong_with_a_run_is_named(
    api: httpx.AsyncClient, ulla: Headers, body: dict[str, Any], status: int, said: str
) -> None:
    thread = await thread_of(api, ulla)
    for path in (f"threads/{thread}/runs", "runs/wait", f"threads/{thread}/runs/stream"):
        refused = await api.post(path, json=body, headers=dict(ulla))
        assert refused.status_code == status, refused.text
        assert said in refused.text
    assert (await api.get(f"threads/{thread}/runs", headers=dict(ulla))).json() == []
    assert (await api.post("threads/search", json={"limit": 100}, headers=dict(ulla))).json()[1:] == []


async def test_bad_places_are_refused(api: httpx.AsyncClient, ulla: Headers) -> None:
    assert (await api.get("threads/no-uuid", headers=dict(ulla))).status_code == 422
    of_a_dag = await api.post("threads", json={"thread_id": conversation_id_of(DAG, "ulla")}, headers=dict(ulla))
    assert (of_a_dag.status_code, "/thread_id" in of_a_dag.text) == (422, True)
    missing = str(uuid.uuid4())
    assert (await api.get(f"threads/{missing}/state", headers=dict(ulla))).status_code == 404
    run = {"assistant_id": "agent", "input": {}}
    assert (await api.post(f"threads/{missing}/runs", json=run, headers=dict(ulla))).status_code == 404
    thread = await thread_of(api, ulla)
    assert (await api.get(f"threads/{thread}/runs/{missing}", headers=dict(ulla))).status_code == 404
    assert (await api.get(f"threads/{thread}/state/{missing}", headers=dict(ulla))).status_code == 404
    assert (await api.post("threads", json={"ttl": -1}, headers=dict(ulla))).status_code == 422
    again = {"thread_id": thread}
    assert (await api.post("threads", json=again, headers=dict(ulla))).status_code == 409
    kept = await api.post("threads", json={**again, "if_exists": "do_nothing"}, headers=dict(ulla))
    assert kept.json()["thread_id"] == thread


async def test_a_run_that_airflow_refuses_leaves_nothing(
    api: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    thread = await thread_of(api, ulla)
    airflow.fail(status=503)
    refused = await api.post(f"threads/{thread}/runs", json={"assistant_id": "agent", "input": {}}, headers=dict(ulla))
    assert refused.status_code == 503
    airflow.heal()
    assert (await api.get(f"threads/{thread}/runs", headers=dict(ulla))).json() == []
    assert (await api.get(f"threads/{thread}", headers=dict(ulla))).json()["status"] == "idle"


async def test_a_run_is_a_run_in_airflow(api: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    thread = await thread_of(api, ulla)
    asked = {"assistant_id": "agent", "input": {"messages": "Hello"}, "metadata": {"why": "test"}}
    made = await api.post(f"threads/{thread}/runs", json=asked, headers=dict(ulla))
    run = made.json()
    assert made.headers["content-location"] == f"/threads/{thread}/runs/{run['run_id']}"
    assert (run["status"], run["metadata"]["why"], run["metadata"]["dag_id"]) == ("pending", "test", DAG)
    conf = airflow.runs[DAG, run["metadata"]["dag_run_id"]].shown["conf"]
    assert conf["messages"] == "Hello"
    assert conf["_visual_ai"]["turn"]["conversation"] == thread
    assert (await api.get(f"threads/{thread}", headers=dict(ulla))).json()["status"] == "busy"
    idle = await thread_of(api, ulla)
    for status, expected in (("busy", [thread]), ("interrupted", []), ("idle", [idle]), (None, [idle, thread])):
        wanted = {"status": status, "sort_by": "state_updated_at"}
        found = await api.post("threads/search", json=wanted, headers=dict(ulla))
        assert [one["thread_id"] for one in found.json()] == expected
        assert (await api.post("threads/count", json=wanted, headers=dict(ulla))).json() == len(expected)
    busy = {**asked, "multitask_strategy": "reject"}
    assert (await api.post(f"threads/{thread}/runs", json=busy, headers=dict(ulla))).status_code == 409
    cancelled = await api.post(f"threads/{thread}/runs/{run['run_id']}/cancel", headers=dict(ulla))
    assert cancelled.status_code == 202
    [listed] = (await api.get(f"threads/{thread}/runs", headers=dict(ulla))).json()
    assert listed["status"] == "interrupted"
    assert (await api.get(f"threads/{thread}", headers=dict(ulla))).json()["status"] == "idle"


async def test_what_is_refused_ends_no_other_run(api: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    thread = await thread_of(api, ulla)
    first = (await api.post(f"threads/{thread}/runs", json={"assistant_id": "agent"}, headers=dict(ulla))).json()
    wrong = {"assistant_id": "other", "input": {"query": 7}, "multitask_strategy": "rollback"}
    assert (await api.post(f"threads/{thread}/runs", json=wrong, headers=dict(ulla))).status_code == 422
    [listed] = (await api.get(f"threads/{thread}/runs", headers=dict(ulla))).json()
    assert (listed["run_id"], listed["status"]) == (first["run_id"], "pending")
    right = {**wrong, "input": {"query": "x"}}
    assert (await api.post(f"threads/{thread}/runs", json=right, headers=dict(ulla))).status_code == 200
    assert airflow.runs[DAG, first["metadata"]["dag_run_id"]].shown["state"] == "failed"
    [listed] = (await api.get(f"threads/{thread}/runs?limit=1", headers=dict(ulla))).json()
    assert listed["metadata"]["dag_id"] == "other"


async def test_only_one_of_several_runs_is_started_in_an_idle_thread(api: httpx.AsyncClient, ulla: Headers) -> None:
    thread = await thread_of(api, ulla)
    body = {"assistant_id": "agent", "multitask_strategy": "reject"}
    asked = [api.post(f"threads/{thread}/runs", json=body, headers=dict(ulla)) for _ in range(6)]
    assert sorted([one.status_code for one in await asyncio.gather(*asked)]) == [200] + 5 * [409]


async def test_runs_are_listed_by_their_status(api: httpx.AsyncClient, ulla: Headers, engine: Engine) -> None:
    thread = await thread_of(api, ulla)
    for state in ("success", "error", "success", "error", "error"):
        with engine.begin() as connection:
            turns.add(connection, NewTurn(str(uuid.uuid4()), thread, DAG, "ulla", state=state))
    found = await api.get(f"threads/{thread}/runs?status=success&limit=2", headers=dict(ulla))
    assert [run["status"] for run in found.json()] == ["success", "success"]


def recorded_turn(engine: Engine, thread: str) -> str:
    """A turn that is under way."""
    turn = str(uuid.uuid4())
    with engine.begin() as connection:
        turns.add(connection, NewTurn(turn, thread, DAG, "ulla", state="running", after_seq=0))
    return turn


def streamed(engine: Engine, thread: str, turn: str, *new: Frame) -> None:
    with engine.begin() as connection:
        frames.append(connection, thread, turn, new)


def custom(number: int) -> Frame:
    return Frame("custom", (), json.dumps({"name": "step", "number": number}))


END = Frame("lifecycle", (), '{"event": "completed"}')


async def events_of(response: httpx.Response) -> list[tuple[str, str, Any]]:
    return [(event.event, event.id, json.loads(event.data)) async for event in EventSource(response).aiter_sse()]


async def test_a_stream_is_sent_as_it_comes_and_resumed(
    app: FastAPI, api: httpx.AsyncClient, ulla: Headers, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "IDLE", 0.1)
    thread = await thread_of(api, ulla)
    turn = recorded_turn(engine, thread)
    streamed(engine, thread, turn, custom(1), custom(2))

    async def later() -> None:
        for number in range(3, 6):
            await asyncio.sleep(0.05)
            await asyncio.to_thread(streamed, engine, thread, turn, custom(number))
        await asyncio.to_thread(streamed, engine, thread, turn, END)

    async with served(app) as address, httpx.AsyncClient(base_url=address, headers=dict(ulla)) as http:
        path = f"/langgraph/threads/{thread}/runs/{turn}/stream"
        more = asyncio.create_task(later())
        async with http.stream("GET", path) as response:
            found = await events_of(response)
        await more
        assert [data["number"] for event, _, data in found if event == "custom"] == [1, 2, 3, 4, 5]
        async with http.stream("GET", path, headers={"Last-Event-ID": found[2][1]}) as response:
            rest = await events_of(response)
        assert [data["number"] for event, _, data in rest if event == "custom"] == [3, 4, 5]
        asked = {"channels": ["custom:step", "lifecycle"], "since": 3}
        async with http.stream("POST", f"/langgraph/threads/{thread}/stream/events", json=asked) as response:
            sent = []
            async for event in EventSource(response).aiter_sse():
                sent.append(event.json())
                if len(sent) == 3:
                    break
        assert [one["params"]["data"].get("number") for one in sent] == [4, 5, None]
        assert [one["seq"] for one in sent] == [4, 5, 6]


async def test_commands_say_what_is_wrong(api: httpx.AsyncClient, ulla: Headers) -> None:
    thread = await thread_of(api, ulla)
    for method, params, code in (
        ("run.begin", {}, "unknown_command"),
        ("run.start", {}, "invalid_argument"),
        ("run.start", {"assistant_id": "nothing"}, "no_such_run"),
        ("run.start", {"assistant_id": "agent", "multitask_strategy": "both"}, "invalid_argument"),
        ("input.respond", {"responses": "yes"}, "invalid_argument"),
        ("input.respond", {}, "no_such_interrupt"),
        ("input.respond", {"interrupt_id": "x", "response": 1}, "no_such_interrupt"),
        ("subscription.subscribe", {"channels": ["values"]}, "not_supported"),
    ):
        answer = await api.post(
            f"threads/{thread}/commands", json={"id": 7, "method": method, "params": params}, headers=dict(ulla)
        )
        assert (answer.json()["type"], answer.json()["error"], answer.json()["id"]) == ("error", code, 7)
    wrong = await api.post(f"threads/{thread}/stream/events", json={"channels": ["wild"]}, headers=dict(ulla))
    assert wrong.status_code == 422
    assert "/channels/0" in wrong.text


async def test_a_service_token_does_what_its_scopes_say(
    app: FastAPI, api: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    thread = await thread_of(api, ulla)
    start = {"id": 1, "method": "run.start", "params": {"assistant_id": "agent", "input": {}}}
    async with client_of(app) as plain:
        for scope, code in (("read", "permission_denied"), ("trigger", None)):
            made = await plain.post("/tokens", json={"name": scope, "scopes": [scope]}, headers=dict(ulla))
            token = {"Authorization": f"Bearer {made.json()['token']}"}
            answer = await api.post(f"threads/{thread}/commands", json=start, headers=token)
            assert answer.json().get("error") == code, answer.text
            if scope == "trigger":
                assert (await api.get(f"threads/{thread}", headers=token)).status_code == 403
    assert len(airflow.runs) == 1


async def test_a_websocket_lasts_as_long_as_its_session(app: FastAPI, api: httpx.AsyncClient, ulla: Headers) -> None:
    thread = await thread_of(api, ulla)
    subscribe = {"id": 1, "method": "subscription.subscribe", "params": {"channels": ["values"]}}
    async with served(app) as address:
        url = f"{address.replace('http', 'ws', 1)}/langgraph/threads/{thread}/stream/events"
        async with websockets.connect(url, additional_headers=dict(ulla), proxy=None) as socket:
            await socket.send(json.dumps(subscribe))
            assert json.loads(await socket.recv())["type"] == "success"
            async with client_of(app) as plain:
                await plain.post("/auth/logout", headers=dict(ulla))
            await socket.send(json.dumps({**subscribe, "id": 2}))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), 10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401


async def test_all_subscriptions_of_a_websocket_are_served_in_one_order(
    app: FastAPI, api: httpx.AsyncClient, ulla: Headers, engine: Engine
) -> None:
    thread = await thread_of(api, ulla)
    turn = recorded_turn(engine, thread)
    streamed(engine, thread, turn, *(custom(number) for number in range(3)))

    async def received(socket: Any, count: int) -> list[int]:
        found: list[int] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                message = json.loads(await socket.recv())
                if message["type"] == "event":
                    found.append(message["seq"])
        return found

    async with served(app) as address:
        url = f"{address.replace('http', 'ws', 1)}/langgraph/threads/{thread}/stream/events"
        async with websockets.connect(url, additional_headers=dict(ulla), proxy=None) as socket:
            for number, channels in enumerate((["lifecycle", "custom"], ["custom"])):
                asked = {"channels": channels, "since": 0}
                await socket.send(json.dumps({"id": number, "method": "subscription.subscribe", "params": asked}))
                assert await received(socket, 3) == [1, 2, 3], "whoever begins to follow is told of all"
            streamed(engine, thread, turn, custom(3), END)
            assert await received(socket, 2) == [4, 5]
            later = {"id": 9, "method": "subscription.subscribe", "params": {"channels": ["lifecycle"], "since": 4}}
            await socket.send(json.dumps(later))
            assert await received(socket, 1) == [5]


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [(None, True), ("{own}", True), ("https://evil.example.com", False), ("http://localhost:4000", False)],
)
async def test_a_websocket_with_a_cookie_is_opened_by_pages_of_our_own(
    app: FastAPI, api: httpx.AsyncClient, ulla: Headers, origin: str | None, accepted: bool
) -> None:
    thread = await thread_of(api, ulla)
    cookie = {"Cookie": f"visual_ai_session={ulla['Authorization'].removeprefix('Bearer ')}"}
    subscribe = {"id": 1, "method": "subscription.subscribe", "params": {"channels": ["values"]}}
    async with served(app) as address:
        url = f"{address.replace('http', 'ws', 1)}/langgraph/threads/{thread}/stream/events"
        own: Any = None if origin is None else origin.format(own=address)
        async with websockets.connect(url, additional_headers=cookie, origin=own, proxy=None) as socket:
            if accepted:
                await socket.send(json.dumps(subscribe))
                assert json.loads(await socket.recv())["type"] == "success"
                return
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), 10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4403


async def test_a_run_goes_on_from_the_checkpoint_in_its_config(
    api: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    thread = await thread_of(api, ulla)
    config = {"configurable": {"checkpoint_id": "1ef-1", "thread_id": "another", "mark": "!"}}
    body = {"assistant_id": "agent", "input": {}, "config": config}
    run = (await api.post(f"threads/{thread}/runs", json=body, headers=dict(ulla))).json()
    turn = airflow.runs[DAG, run["metadata"]["dag_run_id"]].shown["conf"]["_visual_ai"]["turn"]
    assert (turn["checkpoint_id"], turn["config"]) == ("1ef-1", {"configurable": {"mark": "!"}})


async def test_assistants_are_their_makers(api: httpx.AsyncClient, ulla: Headers, app: FastAPI) -> None:
    async with client_of(app) as plain:
        felix = await sign_in(plain, "felix")
    made = await api.post("assistants", json={"graph_id": "agent", "name": "mine"}, headers=dict(ulla))
    assistant = made.json()["assistant_id"]
    change = {"name": "yours"}
    assert (await api.patch(f"assistants/{assistant}", json=change, headers=dict(felix))).status_code == 403
    assert (await api.delete(f"assistants/{assistant}", headers=dict(felix))).status_code == 403
    assert (await api.patch("assistants/agent", json=change, headers=dict(ulla))).status_code == 409
    assert (await api.patch(f"assistants/{assistant}", json=change, headers=dict(ulla))).json()["version"] == 2
    names = [one["name"] for one in (await api.post("assistants/search", json={}, headers=dict(felix))).json()]
    assert names == ["yours", "agent", "other"]


async def test_a_run_calls_no_address_of_its_own(api: httpx.AsyncClient, ulla: Headers) -> None:
    body = {"assistant_id": "agent", "input": {}, "webhook": "https://example.org/done"}
    refused = await api.post("runs", json=body, headers=dict(ulla))
    assert refused.status_code == 422
    assert "/users/me/preferences" in refused.json()["detail"]
    assert (await api.post("runs", json={**body, "webhook": None}, headers=dict(ulla))).status_code == 200


async def test_a_template_is_an_assistant(
    api: httpx.AsyncClient, ulla: Headers, app: FastAPI, airflow: FakeAirflow
) -> None:
    async with client_of(app) as plain:
        definition = {"dag_id": DAG, "description": "In verse.", "input_data": {"style": "verse", "topic": "boats"}}
        made = await plain.post("/templates", json={"name": "poems", "definition": definition}, headers=dict(ulla))
        assert made.status_code == 201, made.text
        second = {"definition": {**definition, "input_data": {"style": "haiku"}}}
        added = await plain.post("/templates/poems/versions", json=second, headers=dict(ulla))
        assert added.status_code == 201, added.text
    (shown,) = (await api.post("assistants/search", json={"name": "poems"}, headers=dict(ulla))).json()
    assert (shown["graph_id"], shown["description"], shown["version"]) == ("agent", "In verse.", 1)
    assert shown["metadata"]["template"] == "poems"
    path = f"assistants/{shown['assistant_id']}"
    assert (await api.get("assistants/poems", headers=dict(ulla))).json() == shown
    versions = (await api.post(f"{path}/versions", json={}, headers=dict(ulla))).json()
    assert [one["version"] for one in versions] == [2, 1]

    started = await api.post("runs", json={"assistant_id": "poems", "input": {"topic": "rain"}}, headers=dict(ulla))
    conf = airflow.runs[DAG, started.json()["metadata"]["dag_run_id"]].shown["conf"]
    assert {name: conf[name] for name in ("style", "topic")} == {"style": "verse", "topic": "rain"}
    turn = conf["_visual_ai"]["turn"]
    assert set(turn["names"]) == {"style", "topic"}, "the graph's input has the template's part"
    assert conf["_visual_ai"]["template"] == "poems"

    latest = await api.post(f"{path}/latest", json={"version": 2}, headers=dict(ulla))
    assert latest.json()["version"] == 2
    body = {"assistant_id": shown["assistant_id"], "schedule": "0 8 * * *", "input": {"topic": "snow"}}
    cron = await api.post("runs/crons", json=body, headers=dict(ulla))
    assert (cron.status_code, cron.json()["assistant_id"]) == (200, shown["assistant_id"]), cron.text
    for refused in (
        api.patch(path, json={"name": "prose"}, headers=dict(ulla)),
        api.delete(path, headers=dict(ulla)),
    ):
        answer = await refused
        assert (answer.status_code, "/templates" in answer.json()["detail"]) == (409, True)
    of_it = await api.post("assistants", json={"graph_id": "poems"}, headers=dict(ulla))
    assert of_it.status_code == 422
    async with client_of(app) as plain:
        await plain.post("/templates/poems/retire", headers=dict(ulla))
    assert [one["name"] for one in (await api.post("assistants/search", json={}, headers=dict(ulla))).json()] == [
        "agent", "other",
    ]  # fmt: skip
    late = await api.post("runs", json={"assistant_id": "poems"}, headers=dict(ulla))
    assert late.status_code == 409
    assert "is retired" in late.json()["detail"]


async def test_an_assistant_takes_no_workflows_place(api: httpx.AsyncClient, ulla: Headers, app: FastAPI) -> None:
    async with client_of(app) as plain:
        felix = await sign_in(plain, "felix")
    for name in ("agent", "other"):
        own = (await api.get(f"assistants/{name}", headers=dict(ulla))).json()["assistant_id"]
        body = {"assistant_id": own, "graph_id": "agent", "context": {"prompt": "Mine."}}
        await api.post("assistants", json=body, headers=dict(felix))
        shown = (await api.get(f"assistants/{own}", headers=dict(ulla))).json()
        assert (shown["graph_id"], shown["context"]) == (name, {})


async def test_an_assistant_is_made_once(api: httpx.AsyncClient, ulla: Headers) -> None:
    body = {"assistant_id": str(uuid.uuid4()), "graph_id": "agent", "if_exists": "do_nothing"}
    made = await asyncio.gather(*(api.post("assistants", json=body, headers=dict(ulla)) for _ in range(10)))
    assert [(one.status_code, one.json().get("version")) for one in made] == [(200, 1)] * 10
    change = {"description": "changed"}
    path = f"assistants/{body['assistant_id']}"
    changed = await asyncio.gather(*(api.patch(path, json=change, headers=dict(ulla)) for _ in range(5)))
    assert sorted(one.json()["version"] for one in changed) == [2, 3, 4, 5, 6]
    assert (await api.get(path, headers=dict(ulla))).json()["version"] == 6


async def test_threads_are_pruned_together_or_not_at_all(api: httpx.AsyncClient, ulla: Headers, app: FastAPI) -> None:
    async with client_of(app) as plain:
        felix, anna = await sign_in(plain, "felix"), await sign_in(plain, "anna")
    mine, theirs = await thread_of(api, ulla), await thread_of(api, felix)
    pruned = {"thread_ids": [mine, str(uuid.uuid4()), theirs]}
    assert (await api.post("threads/prune", json=pruned, headers=dict(ulla))).status_code == 404
    assert (await api.get(f"threads/{mine}", headers=dict(ulla))).status_code == 200
    assert (await api.post("threads/prune", json=pruned, headers=dict(anna))).json() == {"pruned_count": 2}
    assert (await api.get(f"threads/{mine}", headers=dict(ulla))).status_code == 404
