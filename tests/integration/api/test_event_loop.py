"""Nothing that a client sends, or that a run has, holds up the backend's event loop: all other clients would wait."""

import asyncio
import base64
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.kit.airflow import MULTI_AGENT_PARAMS, FakeAirflow
from tests.kit.application import PRODUCTION, application, served, sign_in
from tests.kit.pictures import encode
from tests.kit.servers.airflow import AirflowServer
from tests.kit.slow_callbacks import Callbacks, measured_callbacks

ALLOWED = 0.1
"""Seconds of CPU time that one callback may take. The goal is 5 ms on an idle machine; before large values were moved
off the loop, the cases below took between 0.1 and 8 s."""

SIZE = 4_900_000
"""Bytes of a large body; 5 MB are allowed."""


def rows(count: int) -> list[dict[str, Any]]:
    return [{"a": index, "b": "x", "c": None} for index in range(count)]


def nested(levels: int, leaf: Any) -> Any:
    for _ in range(levels):
        leaf = {"n": leaf}
    return leaf


def forget(airflow: FakeAirflow) -> None:
    airflow.runs.clear()
    airflow.triggers.clear()


INPUTS: dict[str, Callable[[], Any]] = {
    "long ASCII text": lambda: {"text": "a word " * (SIZE // 7)},
    "long text without spaces": lambda: {"text": "aB3" * (SIZE // 3)},
    "long text with other letters": lambda: {"text": "ein Wört " * (SIZE // 10)},
    "long text with line breaks of other kinds": lambda: {"text": "\u2028 \\u0000" * (SIZE // 44)},
    "many small objects": lambda: {"rows": rows(130_000)},
    "many keys": lambda: {f"key{index}": index for index in range(200_000)},
    "many integers": lambda: {"numbers": list(range(200_000))},
    "many fractions": lambda: {"numbers": [index / 7 for index in range(60_000)]},
    "many secrets": lambda: {"rows": [{"token": f"sk-{index:020}"} for index in range(30_000)]},
    "many empty lists": lambda: {"lists": [[] for _ in range(250_000)]},
    "deep nests": lambda: {"nests": [nested(60, "x") for _ in range(2_000)]},
    "a wrong type in a list of the schema": lambda: {"options": {"sizes": ["x"] * 900_000}},
    "a list that the schema describes": lambda: {"options": {"sizes": [1] * 900_000}},
    "an integer beyond 64 bits": lambda: {"numbers": [*range(100_000), 2**70]},
    "NaN": lambda: {"numbers": [*range(100_000), float("nan")]},
}


@dataclass
class Backend:
    """The application behind a real server, on a loop and in a thread of its own."""

    address: str
    callbacks: Callbacks
    loop: asyncio.AbstractEventLoop

    def measured(self) -> str:
        return str(self.callbacks)


@asynccontextmanager
async def backend(database_url: str, airflow: AirflowServer, **changes: Any) -> AsyncIterator[Backend]:
    settings = {**PRODUCTION, **changes}
    ready: asyncio.Future[Backend] = asyncio.get_running_loop().create_future()
    outer = asyncio.get_running_loop()
    stop: list[asyncio.Event] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        app_of = application(database_url, airflow.airflow, airflow_url=airflow.url, **settings)
        async with app_of as app, served(app) as address:
            with measured_callbacks(loop, ALLOWED) as callbacks:
                stop.append(asyncio.Event())
                outer.call_soon_threadsafe(ready.set_result, Backend(address, callbacks, loop))
                await stop[0].wait()

    thread = Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    running = await asyncio.wait_for(ready, 90)
    try:
        yield running
    finally:
        running.loop.call_soon_threadsafe(stop[0].set)
        await asyncio.to_thread(thread.join, 30)


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[tuple[Backend, httpx.AsyncClient, AirflowServer]]:
    """A backend that has served each kind of request once, and a client of ulla's."""
    airflow = FakeAirflow()
    airflow.add_dag("visual_ai_workflow")
    airflow.add_dag("multi_agent_workflow", params=MULTI_AGENT_PARAMS)
    with AirflowServer(airflow) as server:
        async with (
            backend(database_url, server, reconcile_interval=0.5) as served_backend,
            httpx.AsyncClient(
                base_url=served_backend.address, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)
            ) as http,
        ):
            http.headers.update(await sign_in(http, "ulla"))
            small = {"dag_id": "visual_ai_workflow", "input_data": {"query": "?", "image_url": "sample://invoice"}}
            assert (await post(http, "/workflows/trigger", small, key="warm")).status_code == 202
            assert (await post(http, "/workflows/trigger", small, key="warm")).status_code == 202
            batch = {"dag_id": "visual_ai_workflow", "inputs": [small["input_data"]]}
            assert (await post(http, "/workflows/trigger/batch", batch)).status_code == 202
            assert (await http.post("/workflows/trigger", json={"dag_id": 1})).status_code == 422
            assert (await http.post("/templates", json={})).status_code == 422
            await asyncio.sleep(1)
            served_backend.callbacks.clear()
            gc.disable()  # this process has more objects than a backend, among them all that were sent
            yield served_backend, http, server
            gc.enable()


async def post(http: httpx.AsyncClient, path: str, body: Any, key: str | None = None) -> httpx.Response:
    content = await asyncio.to_thread(json.dumps, body, ensure_ascii=False)
    return await post_text(http, path, content, key)


async def post_text(http: httpx.AsyncClient, path: str, content: str, key: str | None = None) -> httpx.Response:
    headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
    return await http.post(path, content=await asyncio.to_thread(content.encode), headers=headers)


async def test_a_large_input_does_not_hold_up_the_event_loop(
    running: tuple[Backend, httpx.AsyncClient, AirflowServer],
) -> None:
    backend, http, airflow = running
    problems = []
    for name, make in INPUTS.items():
        body = {"dag_id": "visual_ai_workflow", "input_data": {"image_url": "sample://invoice", **make()}}
        response = await post(http, "/workflows/trigger", body, key=name)
        if response.status_code == 202:
            repeated = await post(http, "/workflows/trigger", body, key=name)
            assert repeated.json()["dag_run_id"] == response.json()["dag_run_id"], name
        await asyncio.sleep(1)  # the reconciler reads the run
        airflow.call(forget)
        if backend.callbacks.slow:
            problems.append(f"{name} ({response.status_code}):\n{backend.measured()}")
            backend.callbacks.clear()
    assert not problems, "\n\n".join(problems)


BODIES: dict[str, tuple[str, int, Callable[[], str]]] = {
    "a batch of many inputs": (
        "/workflows/trigger/batch",
        202,
        lambda: json.dumps(
            {
                "dag_id": "visual_ai_workflow",
                "inputs": [{"image_url": "sample://invoice", "query": "a word " * 60, "n": n} for n in range(300)],
            }
        ),
    ),
    "a batch of too many inputs": (
        "/workflows/trigger/batch",
        422,
        lambda: '{"dag_id": "visual_ai_workflow", "inputs": [' + ",".join(["{}"] * 400_000) + "]}",
    ),
    "a batch of what are no inputs": (
        "/workflows/trigger/batch",
        422,
        lambda: '{"dag_id": "visual_ai_workflow", "inputs": [' + ",".join(["1"] * 600_000) + "]}",
    ),
    "unknown fields": (
        "/workflows/trigger",
        422,
        lambda: json.dumps({f"key{index}": index for index in range(200_000)}),
    ),
    "a team of many agents": (
        "/workflows/trigger",
        422,
        lambda: json.dumps(
            {"dag_id": "multi_agent_workflow", "input_data": {"text": "t", "agents": [{"name": "a"}] * 60_000}}
        ),
    ),
    "no JSON": ("/workflows/trigger", 422, lambda: '{"dag_id": "' + "x" * SIZE),
    "no object": ("/workflows/trigger", 422, lambda: "[" + ",".join(["{}"] * 400_000) + "]"),
    "a template": (
        "/templates",
        422,
        lambda: json.dumps({"name": "big", "dag_id": "multi_agent_workflow", "input_data": {"rows": rows(50_000)}}),
    ),
    "a template with many agents": (
        "/templates",
        422,
        lambda: json.dumps({"name": "big", "dag_id": "multi_agent_workflow", "agents": [{"x": 1}] * 60_000}),
    ),
    "a sign-in": ("/auth/token", 422, lambda: json.dumps({"username": "x" * SIZE, "password": "y"})),
}


async def test_no_request_body_holds_up_the_event_loop(
    running: tuple[Backend, httpx.AsyncClient, AirflowServer],
) -> None:
    backend, http, airflow = running
    problems = []
    for name, (path, status, make) in BODIES.items():
        response = await post_text(http, path, await asyncio.to_thread(make))
        if response.status_code != status:
            problems.append(f"{name}: {response.status_code} {response.text[:300]}")
        if len(response.content) > 500_000:
            problems.append(f"{name}: a response of {len(response.content)} bytes")
        airflow.call(forget)
        if backend.callbacks.slow:
            problems.append(f"{name} ({response.status_code}):\n{backend.measured()}")
            backend.callbacks.clear()
    assert not problems, "\n\n".join(problems)


async def test_large_pictures_do_not_hold_up_the_event_loop(
    running: tuple[Backend, httpx.AsyncClient, AirflowServer],
) -> None:
    backend, http, _ = running
    noise = np.random.default_rng(1).integers(0, 255, (1_400, 1_400, 3), dtype=np.uint8)
    picture = encode(Image.fromarray(noise), "BMP")
    inline = f"data:image/png;base64,{base64.b64encode(encode(Image.fromarray(noise[:1_000]))[:3_500_000]).decode()}"
    for _ in range(2):  # the first time modules are imported
        backend.callbacks.clear()
        uploaded = await http.post("/images", files={"file": ("picture.bmp", picture)})
        assert uploaded.status_code == 201
        assert (await http.get(uploaded.headers["location"])).content == picture
        body = {"dag_id": "visual_ai_workflow", "input_data": {"image_url": inline}}
        assert (await post(http, "/workflows/trigger", body)).status_code == 422  # it is cut short
    assert not backend.callbacks.slow, backend.measured()
