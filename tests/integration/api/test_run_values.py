"""Inputs and results of any size: by reference in snapshots and streams, whole and in parts on request."""

import asyncio
import json
import time
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from backend.db.runs import observations, value_text
from backend.db.runs.executions import RunState
from tests.kit.application import sign_in
from tests.kit.recorded_runs import RecordedRun

DAG = "visual_ai_workflow"
RUN = f"/workflow-status/{DAG}/run"
RESULT, INPUT = f"{RUN}/result", f"{RUN}/input"

SMALL = {"output": "ü" * 100, "exact": 2**63 + 1}
LARGE = {"output": {"texts": ["ü" * 999, '\\"\n\u2028'] * 1_000}, "exact": 2**63 + 1}
"""2 MB, with what JSON escapes."""


def text_of(value: Any) -> bytes:
    """The JSON text of a value as PostgreSQL writes it; its keys must be in PostgreSQL's order."""
    return json.dumps(value, ensure_ascii=False).encode()


def finished(engine: Engine, result: Any, state: str = "success") -> RecordedRun:
    run = RecordedRun(engine, DAG)
    run.is_now("running")
    run.returns(result)
    run.is_now(state)
    return run


def mapped(engine: Engine, values: list[Any], state: str = "success") -> RecordedRun:
    """A run whose last agent task is mapped, with an instance that failed where a value is None."""
    run = RecordedRun(engine, DAG)
    run.is_now("running")
    run.returns({"of": "the task before"}, "before")
    for index in reversed(range(len(values))):  # in any order
        run.task("each", "failed" if values[index] is None else "success", map_index=index)
        if values[index] is not None:
            run.returns(values[index], "each", index)
    run.is_now(state)
    return run


async def test_a_small_result_and_input_stand_in_the_snapshot(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    with engine.begin() as connection:
        conf = {"text": "x" * 30_000}
        observations.observe(connection, RunState(DAG, "run", "running", conf=conf, user="ulla"))
    finished(engine, SMALL)
    snapshot = (await ulla_http.get(RUN)).json()
    assert snapshot["result"] == SMALL
    assert snapshot["input_data"] == {"text": "x" * 30_000}
    assert json.loads((await ulla_http.get(INPUT)).content) == snapshot["input_data"]


async def test_large_values_stand_in_the_snapshot_by_reference(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    conf = {"text": "x" * 4_000_000}
    with engine.begin() as connection:
        observations.observe(connection, RunState(DAG, "run", "running", conf=conf, user="ulla"))
    finished(engine, LARGE)
    answer = await ulla_http.get(RUN)
    assert len(answer.content) < 64_000
    snapshot = answer.json()
    for shown, whole in ((snapshot["result"], LARGE), (snapshot["input_data"], {"text": conf["text"]})):
        assert (shown["truncated"], shown["media_type"]) == (True, "application/json")
        full = await ulla_http.get(shown["url"])
        assert full.json() == whole
        assert len(full.content) == shown["bytes"] == int(full.headers["content-length"])
        assert full.text.startswith(shown["excerpt"])
        assert sha256(full.content).hexdigest() == shown["sha256"]
    async with ulla_http.stream("GET", f"/workflow-status/stream/{DAG}/run") as stream:
        body = (await stream.aread()).decode()
    updates = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: ")]
    assert updates[0]["result"] == snapshot["result"]
    assert max(map(len, body.split("\n"))) < 64_000


async def test_a_partial_results_address_says_so(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    finished(engine, LARGE, "failed")
    shown = (await ulla_http.get(RUN)).json()["result"]
    assert (await ulla_http.get(shown["url"])).json() == LARGE


@pytest.mark.parametrize("value", [SMALL, LARGE], ids=["small", "large"])
async def test_a_result_is_served_in_parts(ulla_http: httpx.AsyncClient, engine: Engine, value: Any) -> None:
    finished(engine, value)
    whole = await ulla_http.get(RESULT)
    assert (whole.status_code, json.loads(whole.content)) == (200, value)
    size, tag = len(whole.content), whole.headers["etag"]
    assert (whole.headers["accept-ranges"], whole.headers["content-length"]) == ("bytes", str(size))
    head = await ulla_http.head(RESULT)
    assert (head.status_code, head.content) == (200, b"")
    assert (head.headers["content-length"], head.headers["etag"]) == (str(size), tag)
    middle = size // 2
    for given, start, stop in (
        ("bytes=0-0", 0, 1),
        (f"bytes={middle}-{middle + 99}", middle, middle + 100),
        (f"bytes={middle}-", middle, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=-{2 * size}", 0, size),
        (f"bytes={size - 1}-{size + 100}", size - 1, size),
    ):
        part = await ulla_http.get(RESULT, headers={"Range": given, "If-Range": tag})
        assert part.status_code == 206, given
        assert part.content == whole.content[start:stop], given
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    beyond = await ulla_http.get(RESULT, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    for ignored in (
        {"Range": "bytes=0-1", "If-Range": '"of another text"'},
        {"Range": "bytes=0-1,5-6"},
        {"Range": "lines=0-1"},
        {"Range": "bytes=5-1"},
        {"If-None-Match": '"of another text"'},
    ):
        answer = await ulla_http.get(RESULT, headers=ignored)
        assert (answer.status_code, len(answer.content)) == (200, size), ignored
    for condition in (tag, f'"other", W/{tag}', "*"):
        same = await ulla_http.get(RESULT, headers={"If-None-Match": condition})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)


async def test_the_tag_changes_with_the_result(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    run = finished(engine, LARGE)
    before = await ulla_http.get(RESULT)
    run.returns({**LARGE, "exact": 1})
    after = await ulla_http.get(RESULT, headers={"If-None-Match": before.headers["etag"]})
    assert (after.status_code, after.json()["exact"]) == (200, 1)
    resumed = await ulla_http.get(RESULT, headers={"Range": "bytes=10-", "If-Range": before.headers["etag"]})
    assert (resumed.status_code, resumed.content) == (200, after.content), "parts of two texts are never mixed"


async def test_a_download_survives_that_its_pieces_are_forgotten(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    run = finished(engine, LARGE)
    async with ulla_http.stream("GET", RESULT) as download:
        whole = await download.aread()
    with engine.begin() as connection:
        stored = value_text.find_result(connection, run.id, after=-1, limit=None).text
        assert stored is not None
        assert value_text.read(connection, stored, 0) != b""
        connection.exec_driver_sql("DELETE FROM visual_ai.value_pieces WHERE start >= %s", (value_text.PIECE,))
    assert (await ulla_http.get(RESULT)).content == whole


async def test_many_download_a_large_result_at_once(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    finished(engine, LARGE)
    answers = await asyncio.gather(*(ulla_http.get(RESULT) for _ in range(8)))
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].json() == LARGE


@pytest.mark.parametrize("length", [5, 2_000, 300_000], ids=["small", "medium", "large"])
async def test_the_result_of_a_mapped_task_is_a_list_by_map_index(
    ulla_http: httpx.AsyncClient, engine: Engine, length: int
) -> None:
    values: list[Any] = [{"n": index, "text": "ü" * length} for index in range(30)]
    values[7] = None
    mapped(engine, values)
    answer = await ulla_http.get(RESULT)
    assert answer.json() == values
    assert answer.content == text_of(values)
    assert int(answer.headers["content-length"]) == len(answer.content)
    middle = len(answer.content) // 2
    part = await ulla_http.get(RESULT, headers={"Range": f"bytes={middle}-"})
    assert (part.status_code, part.content) == (206, answer.content[middle:])
    shown = (await ulla_http.get(RUN)).json()["result"]
    if length == 5:
        assert shown == values
    else:
        assert shown["bytes"] == len(answer.content)
        assert answer.text.startswith(shown["excerpt"])
        assert len(shown["excerpt"]) == 4_000


async def test_the_results_of_a_mapped_task_come_in_pages(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    values = [{"n": index} for index in range(25)]
    mapped(engine, values)
    found, address = [], f"{RESULT}?limit=10"
    while address:
        page = await ulla_http.get(address)
        assert page.headers["x-total-count"] == "25"
        found.append(page.json())
        address = page.links["next"]["url"] if "next" in page.links else ""
    assert [len(page) for page in found] == [10, 10, 5]
    assert [one for page in found for one in page] == values
    assert (await ulla_http.get(RESULT, params={"after": 24})).json() == []
    assert (await ulla_http.get(RESULT, params={"after": 22})).json() == values[23:]


async def test_the_task_that_ends_last_has_the_result(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    run = mapped(engine, [{"n": 0}, {"n": 1}], "running")
    assert (await ulla_http.get(RUN)).json()["result"] == [{"n": 0}, {"n": 1}]
    run.returns({"sum": 1}, "reduce")
    run.is_now("success")
    assert (await ulla_http.get(RESULT)).json() == {"sum": 1} == (await ulla_http.get(RUN)).json()["result"]


async def test_a_runs_input_is_its_owners(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    finished(engine, SMALL)
    assert (await ulla_http.get(INPUT)).status_code == 200
    uwe = await sign_in(ulla_http, "uwe")
    assert (await ulla_http.get(INPUT, headers=uwe)).status_code == 404


async def test_nobody_waits_while_a_large_result_is_polled_streamed_and_downloaded(
    ulla_http: httpx.AsyncClient, engine: Engine
) -> None:
    """Of 24 MB, not ASCII only. What the event loop's thread computes at a time is measured: seconds, if it reads all.
    The test's own client joins the parts that it receives."""
    finished(engine, {"output": "ü" * 12_000_000})
    pauses: list[float] = []

    async def measure() -> None:
        while True:
            begun = time.thread_time()
            await asyncio.sleep(0)
            pauses.append(time.thread_time() - begun)

    task = asyncio.create_task(measure())
    try:
        for _ in range(3):
            assert len((await ulla_http.get(RUN)).content) < 32_768
            async with ulla_http.stream("GET", f"/workflow-status/stream/{DAG}/run") as stream:
                assert len(await stream.aread()) < 32_768
        size = 0
        async with ulla_http.stream("GET", RESULT) as download:
            async for part in download.aiter_raw():
                size += len(part)
        assert size == 24_000_014
    finally:
        task.cancel()
    assert max(pauses) < 0.1
