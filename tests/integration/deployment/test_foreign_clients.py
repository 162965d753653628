"""Clients that others wrote follow runs through nginx while the backend is killed, restarted and started again."""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
import pytest

from backend.core.events import NewEvent
from backend.db.runs import events
from backend.db.runs.executions import RunState
from backend.stack.frontend import Frontend
from tests.kit.airflow import FakeAirflow
from tests.kit.application import sign_in
from tests.kit.processes.backend import BackendProcess, environment
from tests.kit.processes.log_writer import LogWriter
from tests.kit.processes.nginx import NGINX, nginx, nginx_files
from tests.kit.processes.stack import ROOT
from tests.kit.servers.airflow import AirflowServer
from tests.kit.waiting import eventually

pytestmark = [
    pytest.mark.timeout(300),  # the first run installs the packages
    pytest.mark.skipif(NGINX is None, reason="nginx isn't installed"),
]

DAG = "visual_ai_workflow"
RUNS = ["first", "second"]
ONE = f"/workflow-status/stream/{DAG}/first?last_event_id=0"
SEVERAL = f"/workflow-status/streams?run={DAG}/first&run={DAG}/second&last_event_id=0,0"
PAUSE = 0.02
"""Seconds between two events."""


@pytest.fixture
def backend(pg: Any) -> Iterator[BackendProcess]:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    airflow.fail("/dags/~/")  # the runs here are not Airflow's
    with AirflowServer(airflow) as server, BackendProcess(environment(pg.backend_url, server.url)) as backend:
        yield backend


@pytest.fixture
def proxy(backend: BackendProcess) -> Iterator[str]:
    with nginx_files() as folder, nginx(folder, backend.url) as url:
        yield url


@pytest.fixture
def writer(database_url: str) -> Iterator[LogWriter]:
    with LogWriter(database_url) as writer:
        yield writer


@dataclass
class Follower:
    """What one client has received of a stream, by run."""

    path: str
    ids: list[list[int]] = field(default_factory=lambda: [[], []])
    ended: int = 0

    @property
    def runs(self) -> int:
        """How many runs it follows."""
        return len(RUNS) if self.path == SEVERAL else 1

    @property
    def count(self) -> int:
        """How many events it has received."""
        return sum(map(len, self.ids))

    def take(self, event_id: str, event: str) -> None:
        """Note an event."""
        position, _, cursors = event_id.rpartition(";")
        run = int(position or 0)
        self.ids[run].append(int(cursors.split(",")[run].rstrip("-")))
        self.ended += event == "end"


async def node(client: str, url: str, token: str, follower: Follower) -> None:
    """Follow with a package from npm."""
    nodejs = Frontend(ROOT).install()
    process = await asyncio.create_subprocess_exec(
        nodejs.program, "scripts/follow-stream.mjs", client, url + follower.path, token, str(follower.runs),
        cwd=ROOT / "frontend", stdout=asyncio.subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            found = json.loads(line)
            follower.take(found["id"], found["event"])
        assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()


async def read_lines(url: str, token: str, follower: Follower) -> None:
    """Follow with aiohttp's line reader. As long as a response is complete, it takes its end for that of the run."""
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
        cursor, fields = "", dict[str, str]()
        while True:
            resumed = {"Last-Event-ID": cursor} if cursor else {}
            try:
                async with session.get(url + follower.path, headers=resumed) as response:
                    async for line in response.content:
                        name, _, value = line.decode().rstrip("\n").partition(": ")
                        if name:
                            fields[name] = value
                            continue
                        if "data" in fields:
                            json.loads(fields["data"])
                            cursor = fields.get("id", cursor)
                            follower.take(fields.get("id", ""), fields["event"])
                        fields = {}
                    return
            except aiohttp.ClientError:
                fields = {}
                await asyncio.sleep(0.3)


def work(writer: LogWriter, ids: list[str], stopped: threading.Event) -> None:
    """Append events to the runs until stopped, each tenth a long one that isn't ASCII; then end the runs."""
    place = {"task_id": "task", "map_index": -1, "try_number": 1, "agent": "a", "node": "n"}
    for number in itertools.count(1):
        text = "ü\u2028" * 8_000 if number % 10 == 0 else str(number)
        for execution_id in ids:
            writer.run(events.append, execution_id, [NewEvent("token", {**place, "text": text})])
        if stopped.wait(PAUSE):
            break
    for run in RUNS:
        writer.observe(RunState(DAG, run, "success"))


async def more(followers: list[Follower]) -> None:
    """Wait until all have received more."""
    before = [one.count for one in followers]
    await eventually(lambda: all(one.count > count + 10 for one, count in zip(followers, before, strict=True)), 20)


async def test_every_event_arrives_once_whatever_happens_to_the_backend(
    backend: BackendProcess, proxy: str, writer: LogWriter
) -> None:
    ids = [writer.observe(RunState(DAG, run, "running")) for run in RUNS]
    async with httpx.AsyncClient(base_url=proxy, trust_env=False) as http:
        token = (await sign_in(http, "anna"))["Authorization"].removeprefix("Bearer ")
    followers, stopped = [Follower(path) for path in (ONE, SEVERAL) * 3], threading.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(work, writer, ids, stopped))
        for client, one in zip(["eventsource"] * 2 + ["fetch-event-source"] * 2, followers, strict=False):
            group.create_task(node(client, proxy, token, one))
        for one in followers[4:]:
            group.create_task(read_lines(proxy, token, one))
        try:
            await more(followers)
            backend.kill()
            await asyncio.sleep(1)  # some attempts fail
            await asyncio.to_thread(backend.start)
            await more(followers)
            backend.terminate()
            await asyncio.to_thread(backend.ended, timeout=10)
            await asyncio.to_thread(backend.start)
            await more(followers)
        finally:
            stopped.set()
    logs = [writer.run(events.read_after, execution_id, 0, limit=100_000) for execution_id in ids]
    for one in followers:
        assert one.ids[: one.runs] == [[event.seq for event in log] for log in logs[: one.runs]]
        assert one.ended == one.runs
