"""Watching runs from a shell: every event once and in order despite failures, and the exit codes."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, create_engine

from backend.core.jsonable import dumps
from backend.core.states import TaskState
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.application import PRODUCTION, application, served
from tests.kit.processes.command_line import CommandLine, Terminal
from tests.kit.processes.stack import free_port
from tests.kit.recorded_runs import RecordedRun
from tests.kit.waiting import eventually

DAG = "visual_ai_workflow"
WATCH = ("watch", DAG, "run")
HOW_TO_WATCH = f"The run continues. To watch it: python -m backend watch {DAG} run"


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    airflow.fail("/dags/~/")  # Airflow doesn't know these runs
    return airflow


@pytest.fixture
async def app(database_url: str, airflow: FakeAirflow) -> AsyncIterator[FastAPI]:
    async with application(database_url, airflow, stream_heartbeat=0.3) as app:
        yield app


@pytest.fixture
async def address(app: FastAPI) -> AsyncIterator[str]:
    async with served(app) as address:
        yield address


@pytest.fixture
def shell(tmp_path: Path, address: str) -> CommandLine:
    return CommandLine(tmp_path, VISUAL_AI_URL=address)


@pytest.fixture
def run(database_url: str) -> Iterator[RecordedRun]:
    engine: Engine = create_engine(database_url, json_serializer=dumps)
    yield RecordedRun(engine, DAG)
    engine.dispose()


def logged(run: RecordedRun, after: int = 0) -> list[dict[str, Any]]:
    """The recorded events as the program prints them."""
    return [{"id": event.seq, "event": event.type, "data": event.payload} for event in run.log() if event.seq > after]


def begin(run: RecordedRun) -> None:
    """A run in progress."""
    run.is_now("running")
    run.task("validate_input", "success")
    run.task("analyse_image", "running")
    run.agent("analyse_image", "vision", "running", model="openai:gpt-4.1")
    run.agent("analyse_image", "vision", "running", "analyse")
    run.say("analyse_image", "vision", "analyse", "The total is ")


def end(run: RecordedRun, state: str = "success") -> None:
    """The rest of the run."""
    run.say("analyse_image", "vision", "analyse", "79.50 EUR.")
    used: dict[str, Any] = {"model": "openai:gpt-4.1", "input_tokens": 1_200, "output_tokens": 34, "cost_usd": 0.0123}
    run.agent("analyse_image", "vision", "success", "analyse", latency_ms=1_500.0, **used)
    run.agent("analyse_image", "vision", "success", latency_ms=2_500.0, **used)
    run.task("analyse_image", "success" if state == "success" else "failed")
    run.returns({"output": {"answer": "79.50 EUR"}})
    run.is_now(state)


@pytest.mark.parametrize(("state", "code"), [("success", 0), ("failed", 1), ("cancelled", 3)])
async def test_the_exit_code_says_how_the_run_ended(
    shell: CommandLine, run: RecordedRun, state: str, code: int
) -> None:
    begin(run)
    async with shell.started(*WATCH) as watching:
        await watching.says("analyse_image  running")
        end(run, state)
        if state == "failed":
            await asyncio.sleep(0.5)
            run.explain("Task 'analyse_image' was marked\x1b[2J as failed in Airflow by anna.")
        live = await watching.done()
    assert live.code == code
    late = await shell.run(*WATCH)
    assert late.code == code
    for done in (live, late):
        assert f"\nend  {state}" in done.out
        reason = "Reason: Task 'analyse_image' was marked[2J as failed in Airflow by anna.\n"
        assert (reason in done.err) == (state == "failed")
        assert ("python -m backend result" in done.err) == (state == "success")
        assert ("python -m backend retry" in done.err) == (state != "success")
        assert "Traceback" not in done.err


async def test_without_a_terminal_each_change_is_a_line(shell: CommandLine, run: RecordedRun) -> None:
    async with shell.started(*WATCH) as watching:
        await watching.says("run  queued")
        begin(run)
        run.fault("analyse_image", "vision", category="rate_limit", message="slow\x1b[2J down", retry_in=2.0)
        run.agent("analyse_image", "vision", "running", "analyse")
        end(run)
        done = await watching.done()
    lines = [line[10:] for line in done.out.splitlines() if not line.startswith("end")]
    assert lines == [
        "run  queued  0 %  0/0 tasks",
        "run  running  0 %  0/0 tasks",
        "validate_input  success",
        "run  running  99 %  1/1 tasks",
        "analyse_image  running",
        "run  running  99 %  1/2 tasks",
        "analyse_image / vision  running",
        "analyse_image / vision / analyse  running",
        "analyse_image  error  vision: rate_limit: slow[2J down (retry in 2.0 s)",
        "analyse_image / vision / analyse  success  openai:gpt-4.1  1,234 tokens  $0.0123  1.5 s",
        "analyse_image / vision  success  openai:gpt-4.1  1,234 tokens  $0.0123  2.5 s",
        "analyse_image  success",
        "run  running  99 %  2/2 tasks",
        "run  success  100 %  2/2 tasks",
    ]
    assert "\x1b" not in done.out + done.err


async def test_json_has_all_events_unchanged(shell: CommandLine, run: RecordedRun) -> None:
    begin(run)
    async with shell.started(*WATCH, "--json", "--after", "0") as watching:
        await watching.says('"token"')
        run.say("analyse_image", "vision", "analyse", "ü\u2028\x85\x1b[31m")
        end(run)
        done = await watching.done()
    assert (done.code, done.err) == (0, "")
    assert done.events == json.loads(json.dumps(logged(run)))
    assert done.out.isascii()
    later = await shell.run(*WATCH, "--json", "--after", "5")
    assert later.events == done.events[5:]
    present = await shell.run(*WATCH, "--json")
    assert [event["event"] for event in present.events] == [
        "workflow_update", "task_update", "task_update", "agent_update", "agent_update", "end",
    ]  # fmt: skip


class Backend:
    """A backend that can be restarted at its address."""

    def __init__(self, database_url: str, airflow: FakeAirflow) -> None:
        self._database_url = database_url
        self._airflow = airflow
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    @asynccontextmanager
    async def up(self, **settings: Any) -> AsyncIterator[FastAPI]:
        """Run the backend."""
        async with application(self._database_url, self._airflow, **settings) as app, served(app, self._port):
            yield app


@pytest.fixture
def backend(database_url: str, airflow: FakeAirflow) -> Backend:
    return Backend(database_url, airflow)


def streams(app: FastAPI) -> int:
    """How many clients are connected."""
    return int(app.state.application.streams.open_streams)


async def test_a_restart_of_the_backend_loses_nothing(tmp_path: Path, backend: Backend, run: RecordedRun) -> None:
    shell = CommandLine(tmp_path, VISUAL_AI_URL=backend.url)
    begin(run)
    async with AsyncExitStack() as stack:
        async with backend.up():
            watching = await stack.enter_async_context(shell.started(*WATCH, "--json", "--after", "0"))
            await watching.says('"token"')
        await watching.says("retrying in", error=True)
        for _ in range(2):
            run.say("analyse_image", "vision", "analyse", "said while nobody was there")
            async with backend.up() as app:
                await eventually(lambda: streams(app) == 1)
                run.say("analyse_image", "vision", "analyse", "said while somebody was there")
                await eventually(lambda: watching.out.count(b"somebody") == watching.out.count(b"nobody"))
        async with backend.up():
            end(run)
            done = await watching.done()
    assert done.code == 0
    assert done.events == json.loads(json.dumps(logged(run)))


async def test_lost_events_are_reported_and_replaced_by_the_current_state(
    tmp_path: Path, backend: Backend, run: RecordedRun
) -> None:
    shell = CommandLine(tmp_path, VISUAL_AI_URL=backend.url)
    begin(run)
    seen = run.log()[-1].seq
    async with AsyncExitStack() as stack:
        async with backend.up():
            lines = await stack.enter_async_context(shell.started(*WATCH))
            raw = await stack.enter_async_context(shell.started(*WATCH, "--json"))
            await lines.says("analyse_image  running")
            await raw.says(f'"id": {seen}')
        run.task("analyse_image", "up_for_retry")
        run.task("analyse_image", "running", try_number=2)
        lost = run.log()[-1].seq
        run.prune(lost)
        async with backend.up():
            await lines.says(f"Events {seen + 1} to {lost} are no longer stored", error=True)
            await lines.says("analyse_image  running  try 2")
            await raw.says('"gap"')
            end(run)
            by_line, by_json = await lines.done(), await raw.done()
    assert (by_line.code, by_json.code) == (0, 0)
    assert "up_for_retry" not in by_line.out
    ids = [event["event"] for event in by_json.events]
    gap = by_json.events[ids.index("gap")]
    assert gap == {"id": lost, "event": "gap", "data": {"from": seen + 1, "to": lost}}
    assert by_json.events[ids.index("gap") + 1 :] == json.loads(json.dumps(logged(run)))


async def test_an_aborted_connection_is_reopened(tmp_path: Path, backend: Backend, run: RecordedRun) -> None:
    """The network between client and backend breaks."""
    begin(run)
    relay = Relay(backend.url)
    async with backend.up(), relay.up() as url:
        shell = CommandLine(tmp_path, VISUAL_AI_URL=url)
        async with shell.started(*WATCH, "--json", "--after", "0") as watching:
            await watching.says('"token"')
            relay.cut()
            end(run)
            done = await watching.done()
    assert done.code == 0
    assert "was lost" in done.err
    assert done.events == json.loads(json.dumps(logged(run)))


class Relay:
    """A network between client and backend that can break."""

    def __init__(self, url: str) -> None:
        self._target = httpx.URL(url)
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def up(self) -> AsyncIterator[str]:
        """Run the relay; yields its address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self.cut()

    def cut(self) -> None:
        """Abort all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._target.host, self._target.port)
        self._writers += [writer, back]
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(65_536):
            sink.write(piece)
            await sink.drain()
    sink.close()


async def test_watching_gives_up_after_a_while(tmp_path: Path, backend: Backend, run: RecordedRun) -> None:
    shell = CommandLine(tmp_path, VISUAL_AI_URL=backend.url)
    begin(run)
    async with AsyncExitStack() as stack:
        async with backend.up():
            watching = await stack.enter_async_context(shell.started(*WATCH, "--give-up-after", "0.1"))
            await watching.says("analyse_image  running")
        done = await watching.done()
    assert done.code == 4
    assert f"No response from {backend.url}" in done.err
    assert HOW_TO_WATCH in done.err


async def test_an_expired_token_of_the_own_stack_is_renewed(tmp_path: Path, backend: Backend, run: RecordedRun) -> None:
    port = backend.url.rpartition(":")[2]
    account = {"_AIRFLOW_WWW_USER_USERNAME": "ulla", "_AIRFLOW_WWW_USER_PASSWORD": PASSWORD}
    shell = CommandLine(tmp_path, VISUAL_AI_BACKEND_PORT=port, **account)
    begin(run)
    async with (
        backend.up(token_lifetime=2, stream_heartbeat=0.1, **PRODUCTION) as app,
        shell.started(*WATCH, "--json", "--after", "0") as watching,
    ):
        await watching.says("closed the stream", error=True)
        await eventually(lambda: streams(app) == 1)
        end(run)
        done = await watching.done()
    assert done.code == 0
    assert done.events == json.loads(json.dumps(logged(run)))


async def test_an_expired_token_from_the_environment_ends_the_watch(
    tmp_path: Path, backend: Backend, run: RecordedRun
) -> None:
    begin(run)
    async with backend.up(token_lifetime=6, stream_heartbeat=0.1):
        async with httpx.AsyncClient(base_url=backend.url) as http:
            body = {"username": "ulla", "password": PASSWORD}
            token = (await http.post("/auth/token", json=body)).json()["access_token"]
        shell = CommandLine(tmp_path, VISUAL_AI_URL=backend.url, VISUAL_AI_TOKEN=token)
        done = await shell.run(*WATCH)
    assert done.code == 2
    assert "analyse_image  running" in done.out
    assert "The token of --token or VISUAL_AI_TOKEN isn't accepted: The token has expired" in done.err
    assert HOW_TO_WATCH in done.err


async def test_an_expired_login_is_replaced_by_a_new_one(tmp_path: Path, backend: Backend, run: RecordedRun) -> None:
    shell = CommandLine(tmp_path, VISUAL_AI_URL=backend.url)
    login = ("login", "-u", "ulla", "--password-stdin")
    begin(run)
    async with AsyncExitStack() as stack:
        async with backend.up(**PRODUCTION):
            assert (await shell.run(*login, stdin=f"{PASSWORD}\n")).code == 0
            watching = await stack.enter_async_context(shell.started(*WATCH))
            await watching.says("analyse_image  running")
            watching.signal(signal.SIGSTOP)
        async with backend.up(**{**PRODUCTION, "jwt_secret": "t" * 32}):
            refused = await shell.run(*WATCH)
            assert (await shell.run(*login, stdin=f"{PASSWORD}\n")).code == 0
            watching.signal(signal.SIGCONT)
            end(run)
            assert (await watching.done()).code == 0
    assert refused.code == 4
    assert "The token is not valid" in refused.err
    assert "Sign in: python -m backend login" in refused.err


async def test_ctrl_c_does_not_stop_the_run(shell: CommandLine, run: RecordedRun) -> None:
    begin(run)
    async with shell.started(*WATCH) as watching:
        await watching.says("analyse_image  running")
        watching.signal(signal.SIGINT)
        done = await watching.done()
    assert done.code == 130
    assert done.err.strip() == HOW_TO_WATCH
    assert [event.type for event in run.log()].count("end") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("watch", DAG, "none"), 2, "Error: There is no such run, or it is not yours."),
        (("watch", DAG, "run", "--url", "http://127.0.0.1:1"), 4, "No response from http://127.0.0.1:1"),
        (("watch", DAG, "run", "--url", "localhost:8000"), 2, "'localhost:8000' is not a valid address"),
        (("watch", DAG, "run", "--after", "-1"), 2, "--after"),
        (("watch", DAG), 2, "DAG_RUN_ID"),
    ],
)
async def test_runs_that_cannot_be_watched(
    shell: CommandLine, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = await shell.run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err


async def test_a_server_that_is_not_the_backend(shell: CommandLine) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for arguments in (WATCH, ("list",), ("cancel", DAG, "run", "--token", "t")):
            done = await shell.run(*arguments, VISUAL_AI_URL=url)
            assert done.code == 4
            assert f"from {url} is not" if arguments == WATCH else f"server at {url} is not" in done.err
            assert "Traceback" not in done.err


async def test_a_terminal_shows_a_live_tree(shell: CommandLine, run: RecordedRun) -> None:
    async with shell.terminal(*WATCH) as terminal:
        await terminal.shows(f"{DAG}  run  connecting", f"{DAG}  run  queued", "0 %")
        begin(run)
        await terminal.shows(
            "✓ validate_input  success", "● analyse_image  running", "● vision  running  openai:gpt-4.1",
            "● analyse", "The total is",
        )  # fmt: skip
        terminal.forget()
        run.say("analyse_image", "vision", "analyse", "\x1b]0;title\x07\x1b[2J79")
        run.fault("analyse_image", "vision", category="rate_limit", message="slow down", retry_in=2.0)
        await terminal.shows("The total is ]0;title[2J79", "vision: rate_limit: slow down (retry in 2.0 s)")
        assert "\x1b[2J" not in terminal.raw, "what a model says must not steer the terminal"
        terminal.forget()
        end(run)
        await terminal.shows(
            "100 %   2/2 tasks", "1,234 tokens", "$0.0123", "✓ vision  success  openai:gpt-4.1  1,234 tokens",
            '\n79.50 EUR', "The whole result: python -m backend result",
        )  # fmt: skip
        assert await terminal.ended() == 0


async def test_of_a_large_result_its_beginning_is_shown(shell: CommandLine, run: RecordedRun) -> None:
    begin(run)
    end(run)
    run.returns({"output": "long " * 20_000})
    async with shell.terminal(*WATCH) as terminal:
        await terminal.shows(
            '{"output": "long long', "… the first of 100 KB", "The whole result: python -m backend result"
        )
        assert await terminal.ended() == 0


async def test_a_terminal_without_colours(shell: CommandLine, run: RecordedRun) -> None:
    begin(run)
    end(run)
    async with shell.terminal(*WATCH) as terminal:
        assert await terminal.ended() == 0
        assert "\x1b[32m" in terminal.raw or "\x1b[1;32m" in terminal.raw
    async with shell.terminal(*WATCH, variables={"NO_COLOR": "1"}) as terminal:
        assert await terminal.ended() == 0
        assert "\x1b[3" not in terminal.raw
    async with shell.terminal(*WATCH, variables={"TERM": "dumb"}) as terminal:
        assert await terminal.ended() == 0
        assert "\x1b" not in terminal.raw
        assert "analyse_image  success" in terminal.text


def mapped(run: RecordedRun, instances: int, failed: int) -> None:
    """A run with a mapped task of which some instances failed and three are still running."""
    states = ["failed"] * failed + ["success"] * (instances - failed - 3) + ["running"] * 3
    run.is_now("running", *(TaskState("each", index, 1, state) for index, state in enumerate(states)))


async def test_a_tree_counts_the_instances_of_a_large_mapped_task(shell: CommandLine, run: RecordedRun) -> None:
    run.task("first", "success")
    mapped(run, 1_000, failed=40)
    async with shell.terminal(*WATCH, rows=24) as terminal:
        await terminal.shows(
            "✓ first  success", "each  1,000 instances: 957 success, 40 failed, 3 running", "✗ each[0]  failed",
            "and 35 more failed", "● each[999]  running",
        )  # fmt: skip
        run.fault("each", "reader", map_index=2, message="it broke here")
        await terminal.shows("it broke here")
        terminal.forget()
        run.is_now(None, *(TaskState("each", index, 1, "success") for index in range(997, 1_000)))
        await terminal.shows("each  1,000 instances: 960 success, 40 failed")
        terminal.forget()
        run.is_now("failed")
        run.explain("Task 'each' failed.")
        await terminal.shows("Its log: python -m backend logs")
        assert await terminal.ended() == 1
    text = terminal.text
    summary = text[text.rindex(f"✗ {DAG}  run  failed") :]
    assert "each  1,000 instances: 960 success, 40 failed" in summary
    assert summary.count("\n") < 20


async def test_lines_count_the_instances_of_a_large_mapped_task(shell: CommandLine, run: RecordedRun) -> None:
    mapped(run, 1_000, failed=40)
    async with shell.started(*WATCH) as watching:
        await watching.says("each  1,000 instances: 957 success, 40 failed, 3 running")
        for index in range(997, 1_000):
            run.agent("each", "reader", "success", map_index=index)
            run.task("each", "success", map_index=index)
        run.is_now("failed")
        run.explain("Task 'each' failed.")
        done = await watching.done()
    assert "each  1,000 instances: 960 success, 40 failed" in done.out
    assert 10 <= done.out.count("failed\n") < 30, "some are named"
    assert done.out.count("\n") < 50


async def test_the_terminal_prompts_for_the_password_and_the_watch_continues(
    tmp_path: Path, backend: Backend, run: RecordedRun
) -> None:
    shell = CommandLine(tmp_path, VISUAL_AI_URL=backend.url)
    begin(run)
    async with (
        backend.up(token_lifetime=2, stream_heartbeat=0.1, **PRODUCTION),
        shell.terminal(*WATCH) as terminal,
    ):
        await sign_in(terminal, "ulla")
        await terminal.shows("analyse_image  running")
        terminal.forget()
        await terminal.shows("The token has expired", "Password of ulla: ")
        end(run)
        terminal.type(f"{PASSWORD}\r")
        assert await terminal.ended() == 0
        assert "100 %" in terminal.text
        assert PASSWORD not in terminal.text


async def sign_in(terminal: Terminal, username: str) -> None:
    await terminal.shows("User:")
    terminal.type(f"{username}\r")
    # The space follows once nothing that is typed is shown any more; what is typed before that is discarded.
    await terminal.shows(f"Password of {username}: ")
    terminal.type("wrong\r")
    await terminal.shows("Airflow does not accept this username and password.")
    await eventually(lambda: terminal.text.count(f"Password of {username}: ") == 2)
    terminal.type(f"{PASSWORD}\r")


async def test_ctrl_c_at_a_terminal(shell: CommandLine, run: RecordedRun) -> None:
    begin(run)
    async with shell.terminal(*WATCH) as terminal:
        await terminal.shows("● analyse_image  running")
        terminal.type("\x03")
        assert await terminal.ended() == 130
        assert HOW_TO_WATCH in terminal.text
        assert terminal.raw.rstrip().endswith(HOW_TO_WATCH.rpartition(" ")[2]) or "\x1b[?25h" in terminal.raw
