"""Schedules: setting them, what is refused and why, whose they are, and the runs that they lead to."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from backend.core.roles import STANDARD_RIGHTS, Principal, Role
from backend.db import schedules
from backend.db.schedules import ScheduleFilter
from backend.runtime.scheduling.rows import read_schedules
from backend.services.application import Application
from backend.services.scheduling.schedules import ScheduleRequest
from tests.kit.airflow import PASSWORD, FakeAirflow, User
from tests.kit.application import sign_in
from tests.kit.documents.snippets import snippet
from tests.kit.waiting import eventually

Headers = Mapping[str, str]

DAG = "visual_ai_workflow"
PATH = f"/workflows/{DAG}/schedule"
INPUT = {"query": "What is the total?", "image_url": "https://example.com/invoice.png"}
DAILY: dict[str, Any] = {"cron": "0 6 * * *", "timezone": "Europe/Berlin", "input_data": INPUT}
DUE = datetime(2026, 3, 1, 5, tzinfo=UTC)


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    airflow.add_dag("visual_ai_schedules", params={}, file_token="the-file", allowed_run_types=["scheduled"])
    airflow.assets = [{"name": "invoices", "uri": "s3://bucket/invoices"}, {"name": "prices", "uri": "s3://bucket/p"}]
    return airflow


@pytest.fixture
async def ulla(http: httpx.AsyncClient) -> Headers:
    return await sign_in(http, "ulla")


def timetable(kind: str, **values: Any) -> dict[str, Any]:
    """What is different from `DAILY` in a request with another timetable."""
    return {"cron": None, "timetable": {"kind": kind, **values}}


async def put(http: httpx.AsyncClient, headers: Headers, body: dict[str, Any], path: str = PATH) -> dict[str, Any]:
    response = await http.put(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def read(http: httpx.AsyncClient, headers: Headers, path: str = PATH) -> dict[str, Any]:
    response = await http.get(path, headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def ask(worker: Engine, schedule_id: str, firing: str = "scheduled__1", due: datetime | None = DUE) -> None:
    """What the task of the schedule's DAG does when a run is due."""
    with worker.begin() as connection:
        schedules.ask(connection, schedule_id, firing, logical_date=due, assets=[])


async def outcome(worker: Engine, schedule_id: str, firing: str = "scheduled__1") -> Mapping[str, Any]:
    """What came of a firing."""

    def look() -> Mapping[str, Any] | None:
        with worker.begin() as connection:
            row = schedules.answer(connection, schedule_id, firing)
        return row if row is not None and row["outcome"] is not None else None

    await eventually(look)
    found = look()
    assert found is not None
    return found


async def test_a_workflow_gets_a_schedule(http: httpx.AsyncClient, airflow: FakeAirflow, ulla: Headers) -> None:
    assert (await http.get(PATH, headers=ulla)).status_code == 404
    made = await put(http, ulla, DAILY)
    assert (made["timetable"]["kind"], made["timetable"]["crons"]) == ("crons", ["0 6 * * *"])
    assert (made["user_id"], made["input_data"], made["enabled"]) == ("ulla", INPUT, True)
    due = datetime.fromisoformat(made["next_run_date"])
    assert datetime.now(UTC) < due <= datetime.now(UTC) + timedelta(days=1, hours=1)
    assert due.astimezone(UTC).hour in (4, 5)  # 6:00 in Berlin
    assert await read(http, ulla) == made
    await eventually(lambda: airflow.parsed == ["the-file"])
    changed = await put(http, ulla, {**DAILY, "cron": "@hourly"})
    assert (changed["id"], changed["timetable"]["crons"]) == (made["id"], ["0 * * * *"])
    assert (await http.delete(PATH, headers=ulla)).status_code == 204
    assert (await http.get(PATH, headers=ulla)).status_code == 404
    assert (await http.delete(PATH, headers=ulla)).status_code == 404
    await eventually(lambda: len(airflow.parsed) == 3)


async def test_the_documented_request_is_accepted(http: httpx.AsyncClient, ulla: Headers) -> None:
    script = snippet("schedule")
    assert f"-X PUT http://localhost:8000{PATH} " in script
    made = await put(http, ulla, json.loads(script[script.index("-d '") + 4 : script.rindex("'")]))
    assert (made["timetable"]["crons"], made["timezone"]) == (["0 6 * * 1-5"], "Europe/Berlin")


async def test_the_machinery_is_no_workflow(http: httpx.AsyncClient, airflow: FakeAirflow, ulla: Headers) -> None:
    airflow.add_dag("visual_ai_schedule.01234567-89ab-cdef-0123-456789abcdef", has_import_errors=True)
    found = (await http.get("/workflows", headers=ulla)).json()["workflows"]
    assert [workflow["dag_id"] for workflow in found] == [DAG]


@pytest.mark.parametrize(
    ("changes", "pointer", "remedy"),
    [
        ({"cron": "61 * * * *"}, "/cron", "five fields"),
        ({"cron": "every day"}, "/cron", "five fields"),
        ({"cron": "* * * * * *"}, "/cron", "five fields"),
        ({"cron": "0 0 30 2 *"}, "/cron", "no such date"),
        ({"timezone": "Europe/Atlantis"}, "/timezone", "'Europe/Berlin'"),
        ({"cron": None}, "/timetable", "Exactly one"),
        ({"assets": ["invoices"]}, "/timetable", "Exactly one"),
        ({"cron": None, "assets": ["unknown"]}, "/assets/0", "outlets"),
        (timetable("assets", assets=["invoices", "x"]), "/timetable/assets/1", "outlets"),
        (timetable("crons", crons=["@daily", "0 0 31 6 *"]), "/timetable/crons/1", "no such date"),
        (timetable("delta", seconds=5), "/timetable/seconds", "60"),
        (timetable("delta"), "/timetable/seconds", "required"),
        (timetable("delta", seconds=60, condition="any"), "/timetable/condition", "omit"),
        (timetable("events", dates=["2020-01-01T00:00:00Z"]), "/timetable/dates", "no time"),
        (timetable("my.module.Timetable"), "/timetable/kind", "'crons'"),
        ({"end_date": "2020-01-01T00:00:00Z"}, "/end_date", "in the future"),
        ({"start_date": "2040-01-01T00:00:00Z", "end_date": "2039-01-01T00:00:00Z"}, "/end_date", "after the start"),
        ({"cron": "* * * * *", "catchup": True, "start_date": "2024-01-01T00:00:00Z"}, "/start_date", "later"),
        ({"cron": None, "assets": ["prices"], "catchup": True}, "/catchup", "omit"),
        ({"start_date": "2026-01-01T00:00:00"}, "/start_date", "timezone"),
        ({"input_data": {"query": 7, "image_url": "x"}}, "/input_data/query", "string"),
        ({"input_data": {"query": "x"}}, "/input_data/image_url", "required"),
        ({"input_data": {"_visual_ai": {}, **INPUT}}, "/input_data/_visual_ai", "reserved"),
        ({"input_data": {"query": "x" * 300_000, "image_url": "x"}}, "/input_data", "POST /images"),
        ({"model": "local:telepathy"}, "/model", ""),
        ({"budget": {"max_tokens": -1}}, "/budget/max_tokens", "0"),
        ({"extra": {}}, "/extra", ""),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(
    http: httpx.AsyncClient, ulla: Headers, changes: dict[str, Any], pointer: str, remedy: str
) -> None:
    body = {name: value for name, value in {**DAILY, **changes}.items() if value is not None}
    response = await http.put(PATH, json=body, headers=ulla)
    assert response.status_code == 422, response.text
    [error] = response.json()["errors"]
    assert error["pointer"] == pointer
    assert remedy in error["detail"]
    assert (await http.get(PATH, headers=ulla)).status_code == 404


async def test_a_run_is_a_trigger_of_the_schedules_user(
    http: httpx.AsyncClient, airflow: FakeAirflow, ulla: Headers, worker: Engine, engine: Engine
) -> None:
    await http.put("/users/me/preferences", json={"default_model": "local:vision"}, headers=ulla)
    made = await put(http, ulla, {**DAILY, "budget": {"max_tokens": 500}})
    ask(worker, made["id"])
    found = await outcome(worker, made["id"])
    assert (found["outcome"], found["dag_id"], found["detail"]) == ("started", DAG, None)
    [(user, body)] = airflow.triggers
    assert user == "airflow"  # the service account: nobody is signed in
    assert body["logical_date"] == DUE.isoformat()
    system = body["conf"].pop("_visual_ai")
    assert body["conf"] == INPUT
    assert (system["user_id"], system["triggered_by"]) == ("ulla", "ulla")
    assert (system["model"], system["budget"]) == ("local:vision", {"max_tokens": 500})
    assert system["schedule"] == {"id": made["id"], "due": DUE.isoformat()}
    run = (await http.get(f"/workflow-status/{DAG}/{found['dag_run_id']}", headers=ulla)).json()
    assert run["user_id"] == "ulla"
    shown = await read(http, ulla)
    assert shown["latest"][0] | {"requested_at": ""} == {
        "due": DUE.isoformat().replace("+00:00", "Z"), "assets": [], "requested_at": "", "outcome": "started",
        "detail": None, "dag_id": DAG, "dag_run_id": found["dag_run_id"],
    }  # fmt: skip
    assert shown["last_error"] is None
    with engine.begin() as connection:
        entries = connection.execute(
            text(
                "SELECT action, user_id, details FROM visual_ai.audit_log "
                "WHERE action IN ('schedule.set', 'run.trigger') ORDER BY id"
            )
        ).all()
    assert [(entry.action, entry.user_id) for entry in entries] == [("schedule.set", "ulla"), ("run.trigger", "ulla")]
    assert entries[1].details["schedule"] == made["id"]


async def test_a_firing_that_is_asked_for_again_leads_to_the_same_run(
    http: httpx.AsyncClient, airflow: FakeAirflow, ulla: Headers, worker: Engine, engine: Engine
) -> None:
    made = await put(http, ulla, DAILY)
    ask(worker, made["id"])
    first = await outcome(worker, made["id"])
    with engine.begin() as connection:  # as if the process had died before it could settle it
        connection.execute(text("UPDATE visual_ai.schedule_firings SET outcome = NULL, settled_at = NULL"))
    again = await outcome(worker, made["id"])
    assert (again["outcome"], again["dag_run_id"]) == ("started", first["dag_run_id"])
    assert len(airflow.runs) == 1


async def test_a_logical_date_that_is_taken_is_left_out(
    http: httpx.AsyncClient, airflow: FakeAirflow, ulla: Headers, worker: Engine
) -> None:
    made = await put(http, ulla, DAILY)
    airflow.add_run(DAG, "scheduled__its_own", "success", logical_date=DUE.isoformat())
    ask(worker, made["id"])
    assert (await outcome(worker, made["id"]))["outcome"] == "started"
    body = airflow.triggers[-1][1]
    assert body["logical_date"] is None
    assert body["conf"]["_visual_ai"]["schedule"]["due"] == DUE.isoformat()


async def test_a_template_runs_as_the_version_that_is_active_then(
    http: httpx.AsyncClient, airflow: FakeAirflow, ulla: Headers, worker: Engine
) -> None:
    definition = {"dag_id": DAG, "input_data": INPUT}
    assert (await http.post("/templates", json={"name": "totals", "definition": definition}, headers=ulla)).is_success
    path = "/templates/totals/schedule"
    made = await put(http, ulla, {"cron": "@daily", "input_data": {"query": "And the tax?"}}, path)
    assert (made["dag_id"], made["template"]) == (DAG, "totals")
    changed = {"definition": definition | {"model": "local:vision"}, "activate": True}
    assert (await http.post("/templates/totals/versions", json=changed, headers=ulla)).is_success
    ask(worker, made["id"])
    assert (await outcome(worker, made["id"]))["outcome"] == "started"
    conf = airflow.triggers[0][1]["conf"]
    system = conf.pop("_visual_ai")
    assert conf == INPUT | {"query": "And the tax?"}
    assert (system["template"], system["template_version"], system["model"]) == ("totals", 2, "local:vision")
    await http.post("/templates/totals/retire", headers=ulla)
    ask(worker, made["id"], "scheduled__2", DUE + timedelta(days=1))
    refused = await outcome(worker, made["id"], "scheduled__2")
    assert (refused["outcome"], "retired" in refused["detail"]) == ("failed", True)
    shown = await read(http, ulla, path)
    assert shown["enabled"]
    assert "retired" in shown["last_error"]
    missing = await http.put("/templates/none/schedule", json={"cron": "@daily"}, headers=ulla)
    assert missing.status_code == 404


async def test_a_paused_schedule_starts_nothing(
    http: httpx.AsyncClient, airflow: FakeAirflow, ulla: Headers, worker: Engine
) -> None:
    made = await put(http, ulla, DAILY)
    paused = await put(http, ulla, {**DAILY, "enabled": False})
    assert (paused["enabled"], paused["next_run_date"]) == (False, None)
    ask(worker, made["id"])
    assert (await outcome(worker, made["id"]))["outcome"] == "skipped"
    assert airflow.triggers == []


async def test_a_deleted_schedule_takes_no_firing(http: httpx.AsyncClient, ulla: Headers, worker: Engine) -> None:
    made = await put(http, ulla, DAILY)
    await http.delete(PATH, headers=ulla)
    with pytest.raises(IntegrityError):
        ask(worker, made["id"])


async def test_a_schedule_stops_when_its_user_may_no_longer_trigger(
    http: httpx.AsyncClient, app: FastAPI, airflow: FakeAirflow, ulla: Headers, worker: Engine, engine: Engine
) -> None:
    made = await put(http, ulla, DAILY)
    otto = await sign_in(http, "otto")
    airflow.users["ulla"].roles = ["Viewer"]
    services: Application = app.state.application
    await services.authenticator._accounts.fetch("ulla")  # instead of waiting until it is looked up again
    ask(worker, made["id"])
    found = await outcome(worker, made["id"])
    assert found["outcome"] == "failed"
    assert airflow.triggers == []
    shown = await read(http, otto)
    assert not shown["enabled"]
    assert "'ulla', whose runs these are, may no longer trigger" in shown["stopped_reason"]
    assert shown["stopped_reason"] in shown["last_error"]
    with engine.begin() as connection:
        entry = connection.execute(text("SELECT * FROM visual_ai.audit_log WHERE action = 'schedule.stop'")).one()
    assert (entry.user_id, entry.outcome, entry.object) == ("ulla", "refused", DAG)
    taken_over = await put(http, otto, {**DAILY, "cron": "0 7 * * *"})
    assert (taken_over["user_id"], taken_over["stopped_reason"]) == ("otto", None)


@pytest.mark.parametrize("change", ["deleted", "inactive", "created anew"])
async def test_a_schedule_stops_when_its_account_is_gone(
    http: httpx.AsyncClient, app: FastAPI, airflow: FakeAirflow, ulla: Headers, worker: Engine, change: str
) -> None:
    made = await put(http, ulla, DAILY)
    otto = await sign_in(http, "otto")
    if change == "deleted":
        del airflow.users["ulla"]
    elif change == "inactive":
        airflow.users["ulla"].active = False
    else:
        airflow.users["ulla"] = User(PASSWORD, ["User"], created_on="2026-06-01T00:00:00")
    services: Application = app.state.application
    await services.authenticator._accounts.fetch("ulla")
    ask(worker, made["id"])
    assert (await outcome(worker, made["id"]))["outcome"] == "failed"
    assert "gone or not active" in (await read(http, otto))["stopped_reason"]


async def test_a_schedule_of_a_service_token_ends_with_it(
    http: httpx.AsyncClient, airflow: FakeAirflow, ulla: Headers, worker: Engine
) -> None:
    token = (await http.post("/tokens", json={"name": "t", "scopes": ["read", "trigger"]}, headers=ulla)).json()
    made = await put(http, {"Authorization": f"Bearer {token['token']}"}, DAILY)
    ask(worker, made["id"])
    assert (await outcome(worker, made["id"]))["outcome"] == "started"
    assert (await http.delete(f"/tokens/{token['id']}", headers=ulla)).is_success
    ask(worker, made["id"], "scheduled__2", DUE + timedelta(days=1))
    assert (await outcome(worker, made["id"], "scheduled__2"))["outcome"] == "failed"
    assert "service token" in (await read(http, ulla))["stopped_reason"]


async def test_what_may_pass_is_postponed_and_asked_for_again(
    http: httpx.AsyncClient, airflow: FakeAirflow, ulla: Headers, worker: Engine
) -> None:
    made = await put(http, ulla, DAILY)
    airflow.fail("dagRuns")
    ask(worker, made["id"])
    found = await outcome(worker, made["id"])
    assert (found["outcome"], "Airflow is out of reach" in found["detail"]) == ("postponed", True)
    assert "Airflow is out of reach" in (await read(http, ulla))["last_error"]
    airflow.heal()
    ask(worker, made["id"])
    assert (await outcome(worker, made["id"]))["outcome"] == "started"
    assert (await read(http, ulla))["last_error"] is None


async def test_whose_schedule_it_is(http: httpx.AsyncClient, ulla: Headers) -> None:
    await put(http, ulla, DAILY)
    uwe, otto = await sign_in(http, "uwe"), await sign_in(http, "otto")
    victor = await sign_in(http, "victor")
    refused = await http.put(PATH, json=DAILY, headers=uwe)
    assert refused.status_code == 403
    assert "ulla's" in refused.json()["detail"]
    assert (await http.delete(PATH, headers=uwe)).status_code == 403
    assert (await http.get(PATH, headers=victor)).json()["input_data"] == INPUT  # a Viewer sees everyone's runs
    assert (await put(http, otto, {**DAILY, "enabled": False}))["user_id"] == "ulla"
    assert (await put(http, otto, DAILY))["user_id"] == "ulla"
    assert (await put(http, otto, {**DAILY, "catchup": True}))["user_id"] == "otto"
    assert (await http.put(PATH, json=DAILY, headers=ulla)).status_code == 403
    shown = await read(http, ulla)
    assert (shown["input_data"], shown["next_run_date"] is not None) == (None, True)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"assets": ["invoices", "s3://bucket/p"]},
         {"kind": "assets", "assets": ["s3://bucket/invoices", "s3://bucket/p"], "condition": "all"}),
        ({"timetable": {"kind": "delta", "seconds": 3600}}, {"kind": "delta", "seconds": 3600}),
        ({"timetable": {"kind": "events", "dates": ["2040-01-02T00:00:00Z", "2040-01-01T01:00:00+01:00"]}},
         {"kind": "events", "dates": ["2040-01-01T00:00:00Z", "2040-01-02T00:00:00Z"]}),
        ({"timetable": {"kind": "asset_or_time", "crons": ["@weekly"], "assets": ["prices"], "condition": "any"}},
         {"kind": "asset_or_time", "crons": ["0 0 * * 0"], "assets": ["s3://bucket/p"], "condition": "any"}),
    ],
)  # fmt: skip
async def test_each_kind_of_timetable(
    http: httpx.AsyncClient, ulla: Headers, given: dict[str, Any], kept: dict[str, Any]
) -> None:
    made = await put(http, ulla, {**given, "input_data": INPUT})
    shown = {name: value for name, value in made["timetable"].items() if value is not None}
    assert shown == kept
    again = await put(http, ulla, {"timetable": kept, "input_data": INPUT})
    assert again["timetable"] == made["timetable"]
    assert (made["next_run_date"] is None) == (kept["kind"] == "assets")


async def test_free_schedules(
    http: httpx.AsyncClient, app: FastAPI, airflow: FakeAirflow, ulla: Headers, worker: Engine
) -> None:
    who = Principal("ulla", STANDARD_RIGHTS[Role.USER], account=airflow.users["ulla"].created_on)
    other = Principal("uwe", STANDARD_RIGHTS[Role.USER])
    service = app.state.application.schedules
    cron = {"kind": "crons", "crons": ["*/5 * * * *"]}
    ends = datetime.now(UTC) + timedelta(days=3)
    wanted = ScheduleRequest(
        cron, "/schedule", input_data=INPUT, metadata={"a": 1, "b": 2}, extra={"assistant_id": "x"}, end_date=ends
    )
    made = [await service.create(who, wanted, dag_id=DAG) for _ in range(3)]
    assert (await http.get(PATH, headers=ulla)).status_code == 404  # none of them is the workflow's own
    first = str(made[0].row["id"])
    UUID(first)
    assert made[0].next_run_date is not None
    assert await service.count(who, ScheduleFilter(metadata={"a": 1}, extra={"assistant_id": "x"})) == 3
    assert await service.count(who, ScheduleFilter(metadata={"a": 2})) == 0
    assert await service.count(other, ScheduleFilter()) == 0
    found = await service.search(who, ScheduleFilter(dag_id=DAG), order_by="created_at", descending=False, limit=2)
    assert [one.row["id"] for one in found] == [made[0].row["id"], made[1].row["id"]]
    changed = await service.update(who, first, {"metadata": {"c": 3}, "enabled": False})
    assert (changed.row["metadata"], changed.next_run_date) == ({"c": 3}, None)
    assert changed.row["timetable"] == cron
    assert (await service.get(who, first)).row["end_date"] == ends
    second = str(made[1].row["id"])
    ask(worker, second)
    assert (await outcome(worker, second))["outcome"] == "started"
    system = airflow.triggers[0][1]["conf"]["_visual_ai"]
    assert (system["assistant_id"], system["user_id"]) == ("x", "ulla")
    with pytest.raises(ValueError, match="user_id"):
        await service.create(who, ScheduleRequest(cron, extra={"user_id": "anna"}, input_data=INPUT), dag_id=DAG)
    await service.delete(who, first)
    assert await service.count(who, ScheduleFilter()) == 2


def test_tasks_see_when_a_schedule_is_due_and_nobodys_input(worker: Engine) -> None:
    with worker.begin() as connection:
        connection.execute(text("SELECT id, dag_id, timetable, enabled FROM visual_ai.schedules"))
    for statement in (
        "SELECT input_data FROM visual_ai.schedules",
        "UPDATE visual_ai.schedules SET enabled = true",
        "DELETE FROM visual_ai.schedule_firings",
        "UPDATE visual_ai.schedule_firings SET dag_run_id = 'x'",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"), worker.begin() as connection:
            connection.execute(text(statement))


async def test_what_was_read_last_stands_in_for_a_dead_database(
    http: httpx.AsyncClient, ulla: Headers, worker: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    made = await put(http, ulla, DAILY)
    url = worker.url.render_as_string(hide_password=False)
    [row] = read_schedules(url)
    assert (row["id"], row["dag_id"], row["enabled"]) == (made["id"], DAG, True)
    assert "input_data" not in row
    dead = "postgresql+psycopg://nobody@127.0.0.1:9/nothing"
    assert read_schedules(dead) == [row]
    await http.delete(PATH, headers=ulla)
    assert read_schedules(dead) == [row]
    assert read_schedules(url) == read_schedules(dead) == []
