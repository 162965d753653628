"""Task logs: access, tries, memory, following, and an Airflow that becomes unreachable."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from backend.clients.airflow import LOG_CONNECTIONS
from backend.services.runs import logs
from backend.services.runs.log_lines import LONGEST
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, served, sign_in
from tests.kit.servers.airflow import AirflowServer
from tests.kit.waiting import eventually

DAG = "visual_ai_workflow"
RUN = "scheduled__1"
TASK = "analyse_image"
LOGS = f"/workflow-status/{DAG}/{RUN}/tasks/{TASK}/logs"
NDJSON = {"Accept": "application/x-ndjson"}
Headers = Mapping[str, str]
SlowReaders = Callable[[int, int], Awaitable[httpx.AsyncClient]]
"""Starts this many readings, and returns when this many of them have reached Airflow."""

SAID: list[dict[str, Any] | bytes] = [
    {"timestamp": "2026-11-22T10:00:00Z", "level": "info", "logger": "task", "event": "It begins.", "agent": "vision"},
    {"event": "::group::Pre Execute", "ti_id": "1", "dag_id": "d", "run_id": "r", "task_id": "t", "try_number": 1},
    {"event": "::endgroup::", "ti_id": "1"},
    {"level": "info", "event": "It says: Done.\r\n2026-11-22T10:00:00Z ERROR task All is lost.\n"},
    {"timestamp": "2026-11-22T10:00:01Z", "level": "warning", "event": "zwölf\u2028Boote\x85", "lineno": 7},
    {
        "timestamp": "2026-11-22T10:00:02Z",
        "level": "error",
        "event": "Task failed",
        "error_detail": [
            {
                "exc_type": "ValueError",
                "exc_value": "no picture",
                "frames": [{"filename": "/app/a.py", "lineno": 3, "name": "look"}],
            }
        ],
    },
]


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    airflow.add_run(DAG, RUN, "failed", {"validate_input": "success", TASK: "failed"}, triggering_user_name="ulla")
    airflow.set_log(DAG, RUN, TASK, SAID)
    return airflow


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs that are followed are read a hundred times as often."""
    monkeypatch.setattr(logs, "PAUSE", 0.01)


def entries(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.content.split(b"\n") if line]


async def test_a_log_is_returned_as_airflow_has_it(http: httpx.AsyncClient, ulla: Headers) -> None:
    response = await http.get(LOGS, headers={**ulla, **NDJSON})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["x-try-number"] == "1"
    assert entries(response) == SAID
    assert entries(await http.get(LOGS, params={"after": 2}, headers={**ulla, **NDJSON})) == SAID[2:]
    assert not (await http.get(LOGS, params={"after": len(SAID)}, headers={**ulla, **NDJSON})).content


async def test_a_log_is_returned_as_text_by_default(http: httpx.AsyncClient, ulla: Headers) -> None:
    response = await http.get(LOGS, headers=ulla)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text.split("\n") == [
        "2026-11-22T10:00:00Z INFO task It begins. agent=vision",
        "Pre Execute",
        "INFO It says: Done.",
        "    2026-11-22T10:00:00Z ERROR task All is lost.",
        "2026-11-22T10:00:01Z WARNING zwölf\u2028Boote\x85",
        "2026-11-22T10:00:02Z ERROR Task failed",
        "  File '/app/a.py', line 3, in look",
        "ValueError: no picture",
        "",
    ]


async def test_airflow_is_called_with_the_callers_own_rights(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    assert (await http.get(LOGS, headers=ulla)).is_success
    assert {who for who, call in airflow.askers if f"/taskInstances/{TASK}" in call} == {"ulla"}
    airflow.users["ulla"].forbidden = True
    response = await http.get(LOGS, headers=ulla)
    assert (response.status_code, response.json()["title"]) == (403, "Forbidden")


@pytest.mark.usefixtures("no_reconciler")  # which reads the log of a failed run, to say why it failed
@pytest.mark.parametrize(
    ("username", "status"), [("ulla", 200), ("uwe", 404), ("victor", 200), ("otto", 200), ("anna", 200)]
)
async def test_another_users_log_is_not_found(
    http: httpx.AsyncClient, airflow: FakeAirflow, username: str, status: int
) -> None:
    headers = await sign_in(http, username)
    response = await http.get(LOGS, headers=headers)
    assert response.status_code == status
    if status == 404:
        unknown = await http.get(LOGS.replace(RUN, "none"), headers=headers)
        assert unknown.json() == response.json(), "the response is that for an unknown run"
        assert not any("/logs/" in call for call in airflow.log)


@pytest.mark.parametrize(
    ("task", "query", "named"),
    [
        ("anlayse", {}, "no task 'anlayse'; it has validate_input, analyse_image, looks, late"),
        (TASK, {"try_number": 2}, "no try 2; its latest is 1"),
        (TASK, {"map_index": 0}, "'analyse_image' is not mapped: omit map_index"),
        ("looks", {}, "'looks' is mapped: add map_index, 0 to 2"),
        ("looks", {"map_index": 7}, "no map_index 7; it has 0 to 2"),
        ("late", {}, "'late' has no log: it has not started"),
        ("never", {"follow": True}, "'never' has no log: it has not started (upstream_failed)"),
    ],
)
async def test_an_error_names_what_does_not_exist(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, task: str, query: dict[str, Any], named: str
) -> None:
    for index in range(3):
        airflow.set_task(DAG, RUN, "looks", "success", map_index=index)
    airflow.set_task(DAG, RUN, "late", None, try_number=0)
    airflow.set_task(DAG, RUN, "never", "upstream_failed", try_number=0)
    response = await http.get(LOGS.replace(TASK, task), params=query, headers=ulla)
    assert response.status_code == 404, response.text
    assert named in response.json()["detail"]


@pytest.mark.parametrize(
    "query",
    [
        {"try_number": "0"},
        {"try_number": "x"},
        {"map_index": "-2"},
        {"after": "-1"},
        {"map_index": str(2**31)},
        {"try_number": str(2**31)},
        {"follow": "perhaps"},
    ],
)
async def test_an_error_names_the_invalid_parameter(
    http: httpx.AsyncClient, ulla: Headers, query: dict[str, str]
) -> None:
    response = await http.get(LOGS, params=query, headers=ulla)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == f"?{next(iter(query))}"


@pytest.mark.parametrize("where", ["/taskInstances/", "/logs/"])
@pytest.mark.parametrize("status", [None, 503])
async def test_logs_while_airflow_is_down(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, where: str, status: int | None
) -> None:
    await http.get(f"/workflow-status/{DAG}/{RUN}", headers=ulla)
    airflow.fail(where, status)
    response = await http.get(LOGS, headers=ulla)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert "10.9.8.7" not in response.text


async def test_the_log_of_an_earlier_try_is_available(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    airflow.set_task(DAG, RUN, TASK, "success", try_number=2)
    airflow.set_log(DAG, RUN, TASK, [{"event": "again"}], try_number=2)
    latest = await http.get(LOGS, headers={**ulla, **NDJSON})
    assert (latest.headers["x-try-number"], entries(latest)) == ("2", [{"event": "again"}])
    assert entries(await http.get(LOGS, params={"try_number": 1}, headers={**ulla, **NDJSON})) == SAID


async def test_an_empty_log_says_where_airflow_looked(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    airflow.set_log(DAG, RUN, TASK, [])
    assert (await http.get(LOGS, headers=ulla)).text == "/airflow/logs/attempt.log\n"


async def test_a_broken_connection_to_airflow_is_recovered(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, quickly: None
) -> None:
    airflow.fail("/logs/", times=1, cut_after=7)
    airflow.fail("/logs/", times=1, cut_after=4)
    airflow.fail("/logs/", times=1, status=500)
    assert entries(await http.get(LOGS, headers={**ulla, **NDJSON})) == SAID


async def test_lines_that_are_not_json_or_too_long(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    airflow.set_log(DAG, RUN, TASK, [b"plain \xff text", b'"x"', b"y" * (LONGEST + 1), b"z" * LONGEST, {"event": "e"}])
    lines = (await http.get(LOGS, headers=ulla)).text.split("\n")
    assert lines[:2] == ["plain \ufffd text", '"x"']
    assert lines[2] == f"WARNING A line of {LONGEST + 1} bytes was omitted."
    assert lines[3:] == ["z" * LONGEST, "e", ""]


@pytest.fixture
async def address(database_url: str, airflow: FakeAirflow) -> AsyncIterator[str]:
    """A served backend that calls Airflow over real connections."""
    with AirflowServer(airflow) as server:
        async with (
            application(database_url, airflow, airflow_url=server.url, **PRODUCTION) as app,
            served(app) as address,
        ):
            yield address


async def test_a_large_log_is_never_in_memory_as_a_whole(address: str, airflow: FakeAirflow) -> None:
    made = 0

    def lines() -> Iterator[bytes]:
        nonlocal made
        for _ in range(100_000):
            made += 1
            yield b'{"event": "%s"}' % (b"x" * 1_000)

    airflow.add_run(DAG, "whole", "success", {TASK: "success"}, triggering_user_name="ulla")
    airflow.set_log(DAG, "whole", TASK, lines())
    async with httpx.AsyncClient(base_url=address) as http:
        headers = {**await sign_in(http, "ulla"), **NDJSON}
        async with http.stream("GET", LOGS.replace(RUN, "whole"), headers=headers) as response:
            size, pieces = 0, response.aiter_bytes()
            size += len(await anext(pieces))
            assert made < 50_000, "the log was read further than its client had read"
            async for piece in pieces:
                size += len(piece)
    assert made == 100_000
    assert size == 100_000 * len(b'{"event": ""}\n') + 100_000 * 1_000


@pytest.fixture
async def slow_readers(address: str, airflow: FakeAirflow) -> AsyncIterator[SlowReaders]:
    """Start many readings of a long log of ulla's and complete none of them."""
    airflow.set_log(DAG, RUN, TASK, [b"x" * 1_000_000] * 30)
    limits = httpx.Limits(max_connections=None)
    readers: list[asyncio.Task[httpx.Response]] = []
    async with httpx.AsyncClient(base_url=address, limits=limits) as http:
        headers = await sign_in(http, "ulla")

        async def begin(count: int, reached: int) -> httpx.AsyncClient:
            for _ in range(count):
                request = http.build_request("GET", LOGS, headers=headers)
                readers.append(asyncio.create_task(http.send(request, stream=True)))
            await eventually(lambda: readings(airflow) >= reached)
            return http

        yield begin
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)


def readings(airflow: FakeAirflow) -> int:
    return sum("/logs/" in call for call in airflow.log)


async def test_many_slow_readers_do_not_block_other_calls_to_airflow(
    slow_readers: SlowReaders, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "READINGS_PER_USER", 1_000)
    http = await slow_readers(60, LOG_CONNECTIONS)
    async with asyncio.timeout(5):
        headers = await sign_in(http, "otto")
        assert (await http.get(f"/workflows/{DAG}", headers=headers)).status_code == 200
    assert readings(airflow) == LOG_CONNECTIONS


async def test_a_slow_reader_does_not_block_other_users_logs(
    slow_readers: SlowReaders, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = await slow_readers(LOG_CONNECTIONS, logs.READINGS_PER_USER)
    async with asyncio.timeout(5):
        assert (await http.get(LOGS, headers=await sign_in(http, "otto"))).status_code == 200
        monkeypatch.setattr(logs, "TURN_TIMEOUT", 0.1)
        refused = await http.get(LOGS, headers=await sign_in(http, "ulla"))
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1


async def follow(http: httpx.AsyncClient, headers: Headers, said: list[Any], **query: Any) -> httpx.Response:
    async with http.stream("GET", LOGS, params={"follow": True, **query}, headers={**headers, **NDJSON}) as response:
        if response.is_error:
            await response.aread()
            return response
        rest = b""
        async for piece in response.aiter_bytes():
            *lines, rest = (rest + piece).split(b"\n")
            said.extend(json.loads(line) for line in lines if line)
        return response


async def test_following_returns_new_lines_until_the_try_ends(
    app: FastAPI, airflow: FakeAirflow, quickly: None
) -> None:
    airflow.set_run(DAG, RUN, "running")
    airflow.set_task(DAG, RUN, TASK, "running")
    airflow.set_log(DAG, RUN, TASK, SAID[:1])
    said: list[Any] = []
    async with served(app) as address, httpx.AsyncClient(base_url=address) as http:
        following = asyncio.create_task(follow(http, await sign_in(http, "ulla"), said))
        await eventually(lambda: said == SAID[:1])
        airflow.fail("/taskInstances/", times=5)
        airflow.set_log(DAG, RUN, TASK, SAID[:2])
        await eventually(lambda: said == SAID[:2])
        airflow.set_task(DAG, RUN, TASK, "failed")
        calls = len(airflow.log)
        await eventually(lambda: sum("/logs/" in call for call in airflow.log[calls:]) == 1)
        airflow.set_log(DAG, RUN, TASK, SAID)  # the last lines come after the state
        await following
    assert said == SAID


async def test_following_waits_for_a_task_that_has_not_started(
    app: FastAPI, airflow: FakeAirflow, quickly: None
) -> None:
    airflow.set_run(DAG, RUN, "running")
    airflow.set_task(DAG, RUN, TASK, None, try_number=0)
    said: list[Any] = []
    async with served(app) as address, httpx.AsyncClient(base_url=address) as http:
        following = asyncio.create_task(follow(http, await sign_in(http, "ulla"), said))
        await eventually(lambda: sum("/taskInstances/" in call for call in airflow.log) > 3)
        airflow.set_task(DAG, RUN, TASK, "success")
        await following
        assert said == SAID
        airflow.set_task(DAG, RUN, TASK, "scheduled", try_number=0)
        skipped = asyncio.create_task(follow(http, await sign_in(http, "ulla"), said))
        calls = len(airflow.log)
        await eventually(lambda: sum("/taskInstances/" in call for call in airflow.log[calls:]) > 1)
        airflow.set_task(DAG, RUN, TASK, "skipped", try_number=0)
        assert (await skipped).headers["x-try-number"] == "1"


@pytest.mark.parametrize("kind", ["application/x-ndjson", "text/plain"])
async def test_following_sends_heartbeats_and_ends_when_the_token_expires(
    database_url: str, airflow: FakeAirflow, quickly: None, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(logs, "HEARTBEAT", 0.1)
    airflow.set_run(DAG, RUN, "running")
    airflow.set_task(DAG, RUN, TASK, "running")
    async with (
        application(database_url, airflow, token_lifetime=2) as app,
        served(app) as address,
        httpx.AsyncClient(base_url=address) as http,
    ):
        headers = {**await sign_in(http, "ulla"), "Accept": kind}
        got = b""
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012  # it breaks while it is read
            async with http.stream("GET", LOGS, params={"follow": True, "after": 9}, headers=headers) as response:
                async for piece in response.aiter_bytes():
                    got += piece
        assert set(got) == set(b"\n")
        assert (await http.get(LOGS, headers=headers)).status_code == 401
