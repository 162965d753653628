"""Starting, listing, changing and reading runs from a shell, and signing in."""

import json
import os
import signal
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, create_engine, text

from backend.core.jsonable import dumps
from tests.kit import pictures
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, served
from tests.kit.application import sign_in as user
from tests.kit.processes.command_line import CommandLine
from tests.kit.processes.stack import ROOT, free_port
from tests.kit.recorded_runs import RecordedRun

DAG = "visual_ai_workflow"
RUN = (DAG, "run")
PICTURE = "https://example.com/a.png"


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    params: dict[str, dict[str, Any]] = {
        "query": {"value": "What?", "schema": {"type": "string", "minLength": 1}},
        "image_url": {"value": None, "schema": {"type": "string", "minLength": 1}},
        "count": {"value": 1, "schema": {"type": ["integer", "null"]}},
        "options": {"value": {}, "schema": {"anyOf": [{"type": "object"}, {"type": "array"}]}},
        "anything": {"value": None, "schema": {}},
    }
    airflow.add_dag(DAG, params={name: {"description": None, **param} for name, param in params.items()})
    return airflow


@pytest.fixture
async def anonymous(app: FastAPI, tmp_path: Path) -> AsyncIterator[CommandLine]:
    """A shell without a login."""
    async with served(app) as address:
        yield CommandLine(tmp_path, VISUAL_AI_URL=address)


@pytest.fixture
async def ulla(anonymous: CommandLine) -> CommandLine:
    await sign_in(anonymous, "ulla")
    return anonymous


async def sign_in(shell: CommandLine, username: str) -> None:
    done = await shell.run("login", "--username", username, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert done.code == 0, done.err


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url, json_serializer=dumps)
    yield engine
    engine.dispose()


@pytest.fixture
def recorded(database: Engine) -> RecordedRun:
    return RecordedRun(database, DAG)


def sent(airflow: FakeAirflow) -> dict[str, Any]:
    """The input of the one run that was started."""
    [(_, body)] = airflow.triggers
    return {name: value for name, value in body["conf"].items() if name != "_visual_ai"}


# Signing in


async def test_a_token_is_saved_where_only_its_owner_can_read_it(anonymous: CommandLine, tmp_path: Path) -> None:
    refused = await anonymous.run("list")
    assert (refused.code, refused.out) == (4, "")
    assert "Sign in: python -m backend login" in refused.err
    wrong = await anonymous.run("login", "-u", "ulla", "--password-stdin", stdin="wrong\n")
    assert wrong.code == 2
    assert "Airflow does not accept this username and password." in wrong.err
    done = await anonymous.run("login", "-u", "ulla", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert (done.code, done.out) == (0, "")
    assert f"Signed in at {anonymous.environment['VISUAL_AI_URL']} as ulla (User) until " in done.err
    kept = tmp_path / ".config" / "langgraph-flow" / "logins.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert PASSWORD not in kept.read_text()
    assert (await anonymous.run("list")).code == 0
    assert (await anonymous.run("list", XDG_CONFIG_HOME=str(tmp_path / "elsewhere"))).code == 4
    other = await anonymous.run(
        "list", VISUAL_AI_URL=anonymous.environment["VISUAL_AI_URL"].replace("127.0.0.1", "localhost")
    )
    assert other.code == 4, "a token is sent to no other address"
    assert "Signed out" in (await anonymous.run("logout")).err
    assert (await anonymous.run("list")).code == 4
    assert "You were not signed in" in (await anonymous.run("logout")).err


async def test_a_readable_login_file_is_made_private_and_a_broken_one_is_reported(
    ulla: CommandLine, tmp_path: Path
) -> None:
    kept = tmp_path / ".config" / "langgraph-flow" / "logins.json"
    kept.chmod(0o644)
    assert (await ulla.run("list")).code == 0
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kept.write_text("{")
    done = await ulla.run("list")
    assert done.code == 2
    assert f"{kept} can't be read" in done.err


async def test_a_token_can_be_given(anonymous: CommandLine, ulla: CommandLine, tmp_path: Path) -> None:
    kept = json.loads((tmp_path / ".config" / "langgraph-flow" / "logins.json").read_text())
    token = kept[anonymous.environment["VISUAL_AI_URL"]]["token"]
    empty = {"XDG_CONFIG_HOME": str(tmp_path / "empty")}
    assert (await anonymous.run("list", "--token", token, **empty)).code == 0
    assert (await anonymous.run("list", VISUAL_AI_TOKEN=token, **empty)).code == 0
    done = await ulla.run("list", "--token", "wrong")
    assert done.code == 2, "a refused token is not replaced by another user's"
    assert "The token of --token or VISUAL_AI_TOKEN isn't accepted" in done.err


async def test_the_stack_of_the_checkout_needs_no_signing_in(
    anonymous: CommandLine, airflow: FakeAirflow, tmp_path: Path
) -> None:
    own = {
        "VISUAL_AI_URL": "",
        "VISUAL_AI_BACKEND_PORT": anonymous.environment["VISUAL_AI_URL"].rpartition(":")[2],
        "_AIRFLOW_WWW_USER_USERNAME": "otto",
        "_AIRFLOW_WWW_USER_PASSWORD": PASSWORD,
    }
    done = await anonymous.run("run", DAG, "--image", PICTURE, **own)
    assert done.code == 0, done.err
    assert airflow.triggers[0][0] == "otto"
    assert not (tmp_path / ".config").exists()
    wrong = await anonymous.run("list", **(own | {"_AIRFLOW_WWW_USER_PASSWORD": "changed"}))
    assert wrong.code == 4
    assert "Airflow does not accept this username and password." in wrong.err


async def test_an_unencrypted_password_causes_a_warning(anonymous: CommandLine) -> None:
    done = await anonymous.run("login", "-u", "ulla", "--password-stdin", "--url", "http://192.0.2.1:1", stdin="x\n")
    assert "The password is sent unencrypted" in done.err
    assert done.code == 4


# Starting


async def test_inputs_are_parsed_by_the_workflows_schema(ulla: CommandLine, airflow: FakeAirflow) -> None:
    done = await ulla.run(
        "run", DAG, "-i", "query=42", "-i", f"image_url={PICTURE}?a=b&c=:=", "-i", "count=3", "-i", 'options={"a": 1}',
        "-i", "anything:=[true]", "--model", "local:vision",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert sent(airflow) == {
        "query": "42", "image_url": f"{PICTURE}?a=b&c=:=", "count": 3, "options": {"a": 1}, "anything": [True],
    }  # fmt: skip
    system = airflow.triggers[0][1]["conf"]["_visual_ai"]
    assert (system["model"], system["user_id"]) == ("local:vision", "ulla")
    assert done.out == f"{airflow.triggers[0][1]['dag_run_id']}\n"
    assert f"python -m backend watch {DAG} {done.out.strip()}" in done.err


async def test_a_template(ulla: CommandLine, app: FastAPI, airflow: FakeAirflow) -> None:
    async with client_of(app) as http:
        definition = {"dag_id": DAG, "input_data": {"query": "Why?"}}
        body = {"name": "why", "definition": definition}
        answer = await http.post("/templates", json=body, headers=await user(http, "ulla"))
        assert answer.status_code == 201, answer.text
    for arguments in (("--template", "why"), ("--template", "why@1"), (DAG, "--template", "why")):
        done = await ulla.run("run", *arguments, "--image", PICTURE, "-i", "count=3")
        assert done.code == 0, done.err
        conf = dict(airflow.triggers[-1][1]["conf"])
        assert conf.pop("_visual_ai")["template"] == "why"
        assert conf == {"query": "Why?", "image_url": PICTURE, "count": 3}


async def test_inputs_from_a_file_and_from_standard_input(
    ulla: CommandLine, airflow: FakeAirflow, tmp_path: Path
) -> None:
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"query": "from the file", "image_url": PICTURE}))
    done = await ulla.run("run", DAG, "--input-json", str(given), "-i", "query=typed", "--json")
    assert json.loads(done.out)["dag_run_id"] == airflow.triggers[0][1]["dag_run_id"]
    assert sent(airflow) == {"query": "typed", "image_url": PICTURE}
    airflow.triggers.clear()
    assert (await ulla.run("run", DAG, "--input-json", "-", stdin=given.read_text())).code == 0
    assert sent(airflow) == {"query": "from the file", "image_url": PICTURE}


async def test_a_picture_is_uploaded(ulla: CommandLine, airflow: FakeAirflow, tmp_path: Path) -> None:
    picture = tmp_path / "invoice.png"
    picture.write_bytes(pictures.encode(pictures.invoice()))
    assert (await ulla.run("run", DAG, "--image", str(picture))).code == 0
    assert sent(airflow)["image_url"].startswith("upload://")
    airflow.triggers.clear()
    assert (await ulla.run("run", DAG, "--image", "sample://invoice")).code == 0
    assert sent(airflow)["image_url"] == "sample://invoice"


async def test_an_idempotency_key_starts_one_run(ulla: CommandLine, airflow: FakeAirflow) -> None:
    command = ("run", DAG, "--image", PICTURE, "--idempotency-key", "order-4711")
    first, second = await ulla.run(*command), await ulla.run(*command)
    assert first.out == second.out
    assert len(airflow.runs) == 1
    other = await ulla.run("run", DAG, "--image", f"{PICTURE}?2", "--idempotency-key", "order-4711")
    assert other.code == 2
    assert "This Idempotency-Key was used with another request" in other.err


async def test_a_lost_response_starts_no_second_run(ulla: CommandLine, airflow: FakeAirflow) -> None:
    """The trigger takes effect, its response is lost, and Airflow is unreachable for the first retries."""
    airflow.fail("POST /api/v2/dags/visual_ai_workflow/dagRuns", lose_answer=True, times=4)
    done = await ulla.run("run", DAG, "--image", PICTURE)
    assert done.code == 0, done.err
    assert "retrying in" in done.err
    assert [dag_run_id for _, dag_run_id in airflow.runs] == [done.out.strip()]


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["none"], "", "There is no workflow 'none'."),
        ([], "", "DAG_ID: missing; name a workflow, or a template with --template"),
        (["--template", "none"], "", "There is no template 'none'."),
        (["--template", "none@2"], "", "There is no template 'none'."),
        ([DAG, "--template", "none", "--image", PICTURE], "", "/template: there is no template 'none'"),
        ([DAG], "", "/input_data/image_url: is required"),
        ([DAG, "--image", PICTURE, "-i", "query="], "", '/input_data/query: "" is shorter than 1 character'),
        ([DAG, "-i", "query"], "", "--input: 'query' is neither name=value nor name:=JSON"),
        ([DAG, "-i", "=x"], "", "--input: '=x' is neither"),
        ([DAG, "-i", "query=a", "-i", "query=b"], "", "--input: query is given twice"),
        ([DAG, "-i", "count=many"], "", "--input: 'many' is not valid for count, which takes integer or null"),
        ([DAG, "-i", "anything:=many"], "", "--input: 'many' is not valid for anything, which takes JSON"),
        ([DAG, "--input-json", "/none.json"], "", "--input-json: /none.json can't be read: No such file"),
        ([DAG, "--input-json", "-"], "{", "--input-json: - is not valid JSON"),
        ([DAG, "--input-json", "-"], "[]", "--input-json: - does not contain a JSON object"),
        ([DAG, "--image", "/none.png"], "", "--image: /none.png can't be read: No such file"),
        ([DAG, "--image", str(ROOT / "README.md")], "", "/file: "),
        ([DAG, "--image", PICTURE, "-i", f"image_url={PICTURE}"], "", "--image: image_url is also given as an input"),
        ([DAG, "--image", PICTURE, "--user", "uwe"], "", "only the roles Op and Admin may start a run on behalf of"),
    ],
)
async def test_runs_that_cannot_be_started(
    ulla: CommandLine, airflow: FakeAirflow, arguments: list[str], stdin: str, message: str
) -> None:
    done = await ulla.run("run", *arguments, stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert not airflow.triggers


async def test_a_run_is_started_and_watched(ulla: CommandLine, airflow: FakeAirflow, database: Engine) -> None:
    airflow.fail("/dags/~/")
    async with ulla.started("run", DAG, "--image", PICTURE, "--watch", "--json") as running:
        await running.says('"accepted"')
        run = RecordedRun(database, DAG, airflow.triggers[0][1]["dag_run_id"])
        run.task("analyse_image", "running")
        await running.says('"task_update"')
        run.is_now("failed")
        done = await running.done()
    assert done.code == 1
    accepted, *events = done.events
    assert (accepted["event"], accepted["data"]["dag_run_id"]) == ("accepted", run.dag_run_id)
    assert [event["id"] for event in events] == [event.seq for event in run.log()]


# Lists


async def test_a_list(ulla: CommandLine, recorded: RecordedRun, database: Engine) -> None:
    recorded.is_now("failed")
    for number in range(3):
        RecordedRun(database, "another", f"a{number}").is_now("running")
    RecordedRun(database, DAG, "of_uwe", user="uwe")
    done = await ulla.run("list")
    head, *rows = done.out.splitlines()
    assert head.split() == ["WORKFLOW", "RUN", "STATE", "DONE", "QUEUED", "TOOK", "TOKENS", "COST", "USER"]
    assert [row.split()[1] for row in rows] == ["a2", "a1", "a0", "run"]
    assert rows[-1].split()[:3] == [DAG, "run", "failed"]

    async def ids(*arguments: str) -> list[str]:
        done = await ulla.run("list", "--json", *arguments)
        assert done.code == 0, done.err
        return [execution["dag_run_id"] for execution in done.events]

    assert await ids(DAG) == ["run"]
    assert await ids("--state", "running", "--state", "failed", "-n", "3") == ["a2", "a1", "a0"]
    assert await ids("--state", "failed", "--since", "1h", "--user", "ulla") == ["run"]
    assert await ids("--since", "2199-01-01T00:00") == []
    assert "No runs." in (await ulla.run("list", "none")).err


async def test_a_long_list_is_read_in_pages(ulla: CommandLine, recorded: RecordedRun, database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO visual_ai.workflow_executions (dag_id, dag_run_id, state, user_id, input_data, queued_at) "
                "SELECT 'many', 'r' || n, 'success', 'ulla', '{}', now() - n * interval '1 second' "
                "FROM generate_series(1, 450) n"
            )
        )
    done = await ulla.run("list", "many", "--json", "-n", "430")
    assert [execution["dag_run_id"] for execution in done.events] == [f"r{n}" for n in range(1, 431)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--state", "done"), "--state: 'done' is not one of queued, running"),
        (("--since", "soon"), "--since: 'soon' is neither a time"),
        (("--limit", "0"), "--limit"),
    ],
)
async def test_invalid_filters_of_a_list(ulla: CommandLine, arguments: tuple[str, ...], message: str) -> None:
    done = await ulla.run("list", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


async def test_a_list_on_a_terminal(ulla: CommandLine, recorded: RecordedRun) -> None:
    recorded.is_now("running")
    async with ulla.terminal("list", columns=160) as terminal:
        assert await terminal.ended() == 0
        head, row = terminal.text.strip().splitlines()
        assert head.split()[:3] == ["WORKFLOW", "RUN", "STATE"]
        assert row.split()[:3] == [DAG, "run", "running"]


# Changes


async def test_a_run_is_cancelled_and_retried(ulla: CommandLine, airflow: FakeAirflow) -> None:
    started = await ulla.run("run", DAG, "--image", PICTURE)
    run_id = started.out.strip()
    airflow.set_run(DAG, run_id, "running")
    airflow.set_task(DAG, run_id, "analyse_image", "running")
    cancelled = await ulla.run("cancel", DAG, run_id)
    assert (cancelled.code, cancelled.err) == (0, f"{run_id} is cancelled.\n")
    assert airflow.runs[DAG, run_id].shown["state"] == "failed"
    assert (await ulla.run("watch", DAG, run_id)).code == 3
    again = await ulla.run("retry", DAG, run_id, "--json")
    assert json.loads(again.out)["state"] == "queued"
    refused = await ulla.run("retry", DAG, run_id)
    assert refused.code == 2
    assert "Only a run that failed or was cancelled can be retried" in refused.err


async def test_a_retried_run_is_watched(ulla: CommandLine, airflow: FakeAirflow, recorded: RecordedRun) -> None:
    airflow.add_run(DAG, "run", "failed", {"analyse_image": "failed"})
    recorded.task("analyse_image", "failed")
    recorded.is_now("failed")
    async with ulla.started("retry", *RUN, "--watch") as running:
        await running.says("run  queued")
        recorded.is_now("running")
        recorded.task("analyse_image", "success", try_number=2)
        recorded.is_now("success")
        done = await running.done()
    assert done.code == 0
    assert "analyse_image  success  try 2" in done.out


async def test_runs_of_others_cannot_be_changed(ulla: CommandLine, airflow: FakeAirflow, recorded: RecordedRun) -> None:
    await sign_in(ulla, "uwe")
    for what in ("cancel", "retry"):
        done = await ulla.run(what, *RUN)
        assert (done.code, done.err) == (2, "Error: There is no such run, or it is not yours.\n")


# Results and logs


async def test_a_result_is_piped_unchanged(ulla: CommandLine, recorded: RecordedRun) -> None:
    large = {"output": ["ü\x1b[31m" * 1_000] * 300}
    recorded.returns(large)
    unfinished = await ulla.run("result", *RUN)
    assert (unfinished.code, unfinished.out) == (2, "")
    assert "The run is queued; its result is available once it has finished." in unfinished.err
    recorded.is_now("failed")
    failed = await ulla.run("result", *RUN)
    assert (failed.code, failed.out) == (2, "")
    assert "`partial=true` returns what its agents had returned by then" in failed.err
    assert json.loads((await ulla.run("result", *RUN, "--partial")).out) == large
    async with ulla.terminal("result", *RUN, "--partial") as terminal:
        assert await terminal.ended() == 0
        assert "\x1b[31m" not in terminal.raw


@pytest.fixture
def logged(airflow: FakeAirflow, recorded: RecordedRun) -> FakeAirflow:
    """A run whose task has a log."""
    airflow.add_run(DAG, "run", "running", {"analyse_image": "success"})
    message = [
        {"timestamp": "2026-11-22T10:00:00Z", "level": "info", "event": f"line {number}\x1b[2J"} for number in range(3)
    ]
    airflow.set_log(DAG, "run", "analyse_image", message)
    return airflow


async def test_a_log(ulla: CommandLine, logged: FakeAirflow) -> None:
    done = await ulla.run("logs", *RUN, "analyse_image")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [f"2026-11-22T10:00:00Z INFO line {number}[2J" for number in range(3)]
    as_json = await ulla.run("logs", *RUN, "analyse_image", "--json", "--try", "1")
    assert [entry["event"] for entry in as_json.events] == [f"line {number}\x1b[2J" for number in range(3)]
    missing = await ulla.run("logs", *RUN, "analyse", "--try", "1")
    assert missing.code == 2
    assert "The run has no task 'analyse'; it has analyse_image." in missing.err
    mapped = await ulla.run("logs", *RUN, "analyse_image", "--map-index", "3")
    assert "is not mapped" in mapped.err
    logged.set_log(DAG, "run", "analyse_image", [])
    logged.fail("/logs/")
    down = await ulla.run("logs", *RUN, "analyse_image")
    assert down.code == 4
    assert "Airflow is out of reach" in down.err


async def test_a_log_is_followed_across_a_restart(
    database_url: str, logged: FakeAirflow, tmp_path: Path, recorded: RecordedRun
) -> None:
    port = free_port()
    shell = CommandLine(tmp_path, VISUAL_AI_URL=f"http://127.0.0.1:{port}")
    logged.set_task(DAG, "run", "analyse_image", "running")
    async with AsyncExitStack() as stack:
        async with application(database_url, logged, **PRODUCTION) as app, served(app, port):
            await sign_in(shell, "ulla")
            following = await stack.enter_async_context(shell.started("logs", *RUN, "analyse_image", "-f", "--json"))
            await following.says("line 2")
        await following.says("retrying in", error=True)
        logged.set_log(DAG, "run", "analyse_image", [{"event": f"line {number}"} for number in range(5)])
        logged.set_task(DAG, "run", "analyse_image", "success", try_number=1)
        async with application(database_url, logged, **PRODUCTION) as app, served(app, port):
            done = await following.done()
    assert done.code == 0
    assert [entry["event"][:6] for entry in done.events] == [f"line {number}" for number in range(5)]


async def test_a_reader_that_goes_away_is_no_error(ulla: CommandLine, logged: FakeAirflow) -> None:
    logged.set_log(DAG, "run", "analyse_image", [{"event": "x" * 1_000}] * 10_000)
    async with ulla.started("logs", *RUN, "analyse_image") as running:
        await running.says("xxx")
        running.signal(signal.SIGSTOP)
        running.signal(signal.SIGCONT)
        done = await running.done()
    assert done.code == 0
    assert os.linesep in done.out
