"""No secret that the backend is given, or that a client sends, is found where it doesn't belong."""

import base64
import json
import logging

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from psycopg import sql
from sqlalchemy.engine import make_url

from backend.db.address import plain_url
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.application import PRODUCTION, SCRAPER, sign_in
from tests.kit.pictures import encode, photo
from tests.kit.servers.postgres import Postgres

DAG = "visual_ai_workflow"
WRONG_PASSWORD = "canary-of-a-user-who-mistypes"
WEBHOOK_SECRET = "canary-of-a-webhook-0123456789"
KEY = "sk-proj-canaryOfAnApiKey0123456789"


def rows(pg: Postgres) -> str:
    """All rows of the product's tables, but the key that is there to be read."""
    found = []
    with psycopg.connect(plain_url(pg.admin_url)) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'visual_ai'").fetchall()
        for (name,) in names:
            if name in ("signing_keys", "images"):  # pictures are kept there, as their users' uploads
                continue
            found += connection.execute(
                sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier("visual_ai", name))
            ).fetchall()
    return json.dumps(found)


async def test_no_secret_is_found_where_it_does_not_belong(
    app: FastAPI, http: httpx.AsyncClient, airflow: FakeAirflow, pg: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = []

    async def ask(method: str, path: str, **request: object) -> httpx.Response:
        response = await http.request(method, path, **request)  # type: ignore[arg-type]  # whatever a request takes
        http.cookies.clear()
        answers.append(response.text)
        return response

    ulla, anna = await sign_in(http, "ulla"), await sign_in(http, "anna")
    made = (await http.post("/tokens", json={"name": "ci", "scopes": ["read"]}, headers=ulla)).json()
    machine = {"Authorization": f"Bearer {made['token']}"}
    picture = base64.b64encode(encode(photo(96, 96))).decode()
    target = {"name": "hook", "url": "https://93.184.216.34/", "secret": WEBHOOK_SECRET, "events": ["run_failed"]}
    for password in (WRONG_PASSWORD, PASSWORD):
        for name in ("ulla", "nobody-of-that-name", "", "x" * 300):
            await http.post("/auth/token", json={"username": name, "password": password})
    await ask("POST", "/auth/token", json={"username": 1, "password": WRONG_PASSWORD})
    await ask("POST", "/auth/airflow", json={"airflow_token": ulla["Authorization"]})
    assert (await ask("PUT", "/users/me/preferences", json={"notification_targets": [target]}, headers=ulla)).is_success
    await ask("PUT", "/users/me/preferences", json={"notification_targets": [target | {"url": "x"}]}, headers=ulla)
    await ask("PUT", "/users/me/preferences", json={"notification_targets": [target | {"x": 1}]}, headers=ulla)
    for image in (f"data:image/png;base64,{picture}", f"data:image/png;base64,{picture[:-40]}!"):
        inputs = {"query": f"Why is {KEY} refused?", "image_url": image}
        await ask("POST", "/workflows/trigger", json={"dag_id": DAG, "input_data": inputs}, headers=ulla)
        await ask("POST", "/workflows/trigger", json={"dag_id": DAG, "input_data": inputs | {"query": 1}}, headers=ulla)
        await ask("POST", "/templates", json={"name": "x", "definition": {"dag_id": DAG, "input_data": inputs}},
                  headers=ulla)  # fmt: skip
    airflow.fail("dagRuns", status=422, times=1, detail=f"{KEY} isn't valid")
    sound = {"query": "x", "image_url": "sample://invoice"}
    await ask("POST", "/workflows/trigger", json={"dag_id": DAG, "input_data": sound}, headers=ulla)
    for headers in (machine, {"Authorization": f"Bearer {made['token'][:-1]}"}, {"Authorization": "Bearer x.y.z"}):
        await ask("POST", "/templates", json={}, headers=headers)
    listed = (await ask("GET", "/workflow-status", headers=anna)).json()["executions"]
    for run in listed:
        for part in ("", "/input", "/errors", "/tasks"):
            await ask("GET", f"/workflow-status/{run['dag_id']}/{run['dag_run_id']}{part}", headers=anna)
    for path in ("/audit?limit=200", "/tokens?everyone=true", "/users/me/preferences", "/notifications"):
        await ask("GET", path, headers=anna)
    await ask("GET", "/metrics", headers=SCRAPER)

    places = {"logs": caplog.text, "tables": rows(pg), "answers": "\n".join(answers)}
    secrets = {
        "user's password": PASSWORD, "wrong password": WRONG_PASSWORD, "webhook": WEBHOOK_SECRET, "key": KEY,
        "picture": picture[200:280], "JWT secret": PRODUCTION["jwt_secret"],
        "metrics token": PRODUCTION["metrics_token"], "service account": PRODUCTION["airflow_password"],
        "database": str(make_url(pg.backend_url).password), "session": ulla["Authorization"][-40:],
        "service token": made["token"][-40:],
    }  # fmt: skip
    assert [f"{name} in {place}" for name, secret in secrets.items() for place, text in places.items()
            if secret in text] == []  # fmt: skip
