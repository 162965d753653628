"""Preferences: validation of each field, secrets that are encrypted and never returned, and the effect on runs."""

from collections.abc import Mapping
from typing import Any

import httpx
import psycopg
import pytest

from backend.db.address import plain_url
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in
from tests.kit.servers.postgres import Postgres

Headers = Mapping[str, str]

SECRET = "a secret that is long enough"
TARGET: dict[str, Any] = {
    "name": "on-call",
    "url": "https://203.0.114.9/hook?token=in-the-address",
    "secret": SECRET,
    "events": ["run_failed"],
}
DEFAULTS: dict[str, Any] = {
    "default_model": None,
    "budget": None,
    "dashboard_range": "24h",
    "notification_targets": [],
}
ME = "/users/me/preferences"


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag("visual_ai_workflow", params={})
    return airflow


def with_target(**changes: Any) -> dict[str, Any]:
    target = {**TARGET, **changes}
    return {"notification_targets": [{name: value for name, value in target.items() if value is not ...}]}


async def faults(http: httpx.AsyncClient, headers: Headers, body: Any) -> dict[str, str]:
    response = await http.put(ME, json=body, headers=headers)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert SECRET not in response.text
    assert "in-the-address" not in response.text
    return {error["pointer"]: error["detail"] for error in response.json()["errors"]}


def stored(url: str) -> str:
    with psycopg.connect(plain_url(url)) as connection:
        return str(connection.execute("SELECT * FROM visual_ai.user_preferences").fetchall())


async def test_the_defaults(http: httpx.AsyncClient, ulla: Headers) -> None:
    response = await http.get(ME, headers=ulla)
    assert (response.status_code, response.json()) == (200, DEFAULTS)
    assert response.headers["cache-control"] == "no-store"


async def test_everything_is_stored_and_returned_without_secrets(
    http: httpx.AsyncClient, ulla: Headers, database_url: str
) -> None:
    wanted = {
        "default_model": "openai:gpt-4.1-mini",
        "budget": {"max_cost_usd": 0.5, "max_steps": 40},
        "dashboard_range": "7d",
        **with_target(events=["run_failed", "alert", "run_failed"], enabled=False, thresholds={"budget_share": 0.5}),
    }
    answer = await http.put(ME, json=wanted, headers=ulla)
    assert answer.status_code == 200, answer.text
    shown = {
        **wanted,
        "budget": {"max_tokens": None, "max_cost_usd": 0.5, "max_steps": 40},
        "notification_targets": [
            {
                "name": "on-call",
                "url": TARGET["url"],
                "enabled": False,
                "events": ["run_failed", "alert"],
                "thresholds": {"budget_share": 0.5, "rate_limit_errors": 20, "rate_limit_within": 600},
                "has_secret": True,
            }
        ],
    }
    assert answer.json() == shown
    assert (await http.get(ME, headers=ulla)).json() == shown
    assert (await http.put(ME, json=shown, headers=ulla)).json() == shown, "what was read can be sent back"
    assert SECRET not in stored(database_url)
    # They are one's own, and all at once.
    assert (await http.get(ME, headers=await sign_in(http, "uwe"))).json() == DEFAULTS
    assert (await http.put(ME, json={}, headers=ulla)).json() == DEFAULTS


async def test_viewers_have_preferences(http: httpx.AsyncClient) -> None:
    victor = await sign_in(http, "victor")
    assert (await http.put(ME, json={"dashboard_range": "15m"}, headers=victor)).json()["dashboard_range"] == "15m"


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({"default_model": "opnai:gpt-4.1"}, "/default_model", "unknown provider"),
        ({"default_model": "local:all"}, "/default_model", "the offline models are"),
        ({"default_model": ""}, "/default_model", "at least 1 character"),
        ({"budget": {"max_tokens": -1}}, "/budget/max_tokens", "greater than or equal to 0"),
        ({"budget": {"max_cost": 1}}, "/budget/max_cost", "not permitted"),
        ({"dashboard_range": "24"}, "/dashboard_range", "such as 15m, 24h or 7d"),
        ({"dashboard": "24h"}, "/dashboard", "not permitted"),
        (with_target(name="on call"), "/notification_targets/0/name", "match pattern"),
        (with_target(name=...), "/notification_targets/0/name", "required"),
        (with_target(url=...), "/notification_targets/0/url", "required"),
        (with_target(url="http://203.0.114.9/"), "/notification_targets/0/url", "is not https://"),
        (with_target(url="https://xn--/"), "/notification_targets/0/url", "not a usable address"),
        (with_target(url="https://10.0.0.8/"), "/notification_targets/0/url", "not on the public internet"),
        (with_target(url="https://localhost/"), "/notification_targets/0/url", "not on the public internet"),
        (with_target(secret=...), "/notification_targets/0/secret", "is missing"),
        (with_target(secret="short"), "/notification_targets/0/secret", "at least 16"),
        (with_target(events=[]), "/notification_targets/0/events", "at least 1"),
        (with_target(events=["run_fails"]), "/notification_targets/0/events/0", "'run_failed'"),
        (
            with_target(thresholds={"budget_share": 80}),
            "/notification_targets/0/thresholds/budget_share",
            "less than or equal to 1",
        ),
        (
            with_target(thresholds={"rate_limit_within": 0}),
            "/notification_targets/0/thresholds/rate_limit_within",
            "greater than or equal to 1",
        ),
        ({"notification_targets": [TARGET, TARGET]}, "/notification_targets/1/name", "names are unique"),
        ({"notification_targets": [{**TARGET, "name": f"t{n}"} for n in range(21)]}, "/notification_targets", "20"),
    ],
)
async def test_invalid_preferences_are_named_and_change_nothing(
    http: httpx.AsyncClient, ulla: Headers, body: dict[str, Any], pointer: str, detail: str
) -> None:
    await http.put(ME, json={"dashboard_range": "1h"}, headers=ulla)
    found = await faults(http, ulla, body)
    assert detail in found.get(pointer, ""), found
    assert (await http.get(ME, headers=ulla)).json() == {**DEFAULTS, "dashboard_range": "1h"}


async def test_a_target_keeps_its_secret(http: httpx.AsyncClient, ulla: Headers, database_url: str) -> None:
    await http.put(ME, json=with_target(), headers=ulla)
    before = stored(database_url)
    answer = await http.put(ME, json=with_target(secret=..., enabled=False), headers=ulla)
    assert answer.json()["notification_targets"][0]["has_secret"]
    sealed = before.split("'sealed_secret': '")[1].split("'")[0]
    assert sealed in stored(database_url)
    assert "/notification_targets/0/secret" in await faults(http, ulla, with_target(secret=..., name="another"))


async def test_an_unreadable_secret_has_to_be_set_again(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    await http.put(ME, json=with_target(), headers=ulla)
    changed = {**PRODUCTION, "jwt_secret": "t" * 32}
    async with application(database_url, airflow, **changed) as other, client_of(other) as http:
        ulla = await sign_in(http, "ulla")
        assert not (await http.get(ME, headers=ulla)).json()["notification_targets"][0]["has_secret"]
        assert "/notification_targets/0/secret" in await faults(http, ulla, with_target(secret=...))
        answer = await http.put(ME, json=with_target(), headers=ulla)
        assert answer.json()["notification_targets"][0]["has_secret"]


async def test_tasks_can_read_neither_addresses_nor_secrets(
    http: httpx.AsyncClient, ulla: Headers, pg: Postgres
) -> None:
    await http.put(ME, json=with_target(), headers=ulla)
    with psycopg.connect(plain_url(pg.worker_url), autocommit=True) as worker:
        assert worker.execute("SELECT user_id, notified_events FROM visual_ai.user_preferences").fetchall() == [
            ("ulla", ["run_failed"])
        ]
        for statement in (
            "SELECT settings FROM visual_ai.user_preferences",
            "SELECT * FROM visual_ai.notification_causes",
            "SELECT * FROM visual_ai.notifications",
            "INSERT INTO visual_ai.notifications (user_id) VALUES ('ulla')",
            "UPDATE visual_ai.user_preferences SET notified_events = '{}'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.execute(statement)


# What they mean for runs


async def conf_of(http: httpx.AsyncClient, headers: Headers, airflow: FakeAirflow, **body: Any) -> dict[str, Any]:
    given = {"dag_id": "visual_ai_workflow", "input_data": {}, **body}
    answer = await http.post("/workflows/trigger", json=given, headers=headers)
    assert answer.status_code == 202, answer.text
    conf = airflow.triggers[-1][1]["conf"]["_visual_ai"]
    return {name: conf[name] for name in ("model", "budget") if name in conf}


async def test_model_and_budget_apply_where_the_request_names_none(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    assert await conf_of(http, ulla, airflow) == {}
    chosen = {"default_model": "local:text", "budget": {"max_tokens": 1000}}
    await http.put(ME, json=chosen, headers=ulla)
    assert await conf_of(http, ulla, airflow) == {"model": "local:text", "budget": {"max_tokens": 1000}}
    assert await conf_of(http, ulla, airflow, model="local:vision") == {
        "model": "local:vision",
        "budget": {"max_tokens": 1000},
    }
    assert await conf_of(http, ulla, airflow, budget={"max_steps": 3}) == {
        "model": "local:text",
        "budget": {"max_steps": 3},
    }
    assert await conf_of(http, ulla, airflow, budget={}) == {"model": "local:text"}


async def test_preferences_are_those_of_the_user_whom_the_run_is_for(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    await http.put(ME, json={"default_model": "local:text"}, headers=ulla)
    otto = await sign_in(http, "otto")
    assert await conf_of(http, otto, airflow) == {}
    assert await conf_of(http, otto, airflow, user_id="ulla") == {"model": "local:text"}
    batch = {"dag_id": "visual_ai_workflow", "inputs": [{}, {}]}
    assert (await http.post("/workflows/trigger/batch", json=batch, headers=ulla)).json()["accepted"] == 2
    assert [body["conf"]["_visual_ai"]["model"] for _, body in airflow.triggers[-2:]] == ["local:text"] * 2


async def test_a_repeated_request_returns_the_same_run_after_preferences_changed(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    body = {"dag_id": "visual_ai_workflow", "input_data": {}}
    headers = {**ulla, "Idempotency-Key": "k"}
    first = await http.post("/workflows/trigger", json=body, headers=headers)
    await http.put(ME, json={"default_model": "local:text"}, headers=ulla)
    again = await http.post("/workflows/trigger", json=body, headers=headers)
    assert (again.status_code, again.json()["dag_run_id"]) == (202, first.json()["dag_run_id"])
    assert len(airflow.triggers) == 1
