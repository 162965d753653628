"""Pictures that stand in a run's input as `data:` URLs become uploads, to which the run's input refers."""

import base64
import contextlib
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from backend.core.settings import Settings
from backend.db.address import plain_url
from backend.db.engine import Database
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.airflow import FakeAirflow
from tests.kit.application import sign_in
from tests.kit.failures.raised import raises_failure
from tests.kit.graphs import pictured
from tests.kit.pictures import bomb, encode, photo
from tests.kit.servers.postgres import Postgres

Headers = Mapping[str, str]

PICTURE = encode(photo())


def url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag("visual_ai_workflow")
    airflow.add_dag("any", params={})
    airflow.add_dag("inline", params={"picture": {"value": None, "schema": {"type": "string", "pattern": "^data:"}}})
    return airflow


async def trigger(http: httpx.AsyncClient, who: Headers, dag_id: str = "any", **input_data: Any) -> httpx.Response:
    body = {"dag_id": dag_id, "input_data": input_data}
    return await http.post("/workflows/trigger", json=body, headers=who)


def stored(database_url: str) -> list[tuple[str, str, bytes]]:
    with psycopg.connect(plain_url(database_url)) as connection:
        query = "SELECT id::text, user_id, content FROM visual_ai.images ORDER BY user_id, created_at"
        return [(row[0], row[1], bytes(row[2])) for row in connection.execute(query).fetchall()]


async def test_pictures_at_any_depth_become_uploads(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url(PICTURE)}}]}
    response = await trigger(http, ulla, picture=f" {url(PICTURE)}", messages=[message], note="a text")
    assert response.status_code == 202
    [(image_id, owner, content)] = stored(database_url)
    assert (owner, content) == ("ulla", PICTURE)
    reference = f"upload://{image_id}"
    [(_, body)] = airflow.triggers
    assert body["conf"]["picture"] == reference
    assert body["conf"]["messages"][0]["content"][0]["image_url"]["url"] == reference
    assert body["conf"]["note"] == "a text"
    snapshot = (await http.get(response.json()["status_url"], headers=ulla)).json()
    assert snapshot["input_data"]["picture"] == reference
    assert (await http.get(f"/images/{image_id}", headers=ulla)).content == PICTURE


async def test_a_run_names_only_uploads_that_its_user_may_see(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    uwe, otto = await sign_in(http, "uwe"), await sign_in(http, "otto")
    assert (await trigger(http, ulla, picture=url(PICTURE))).status_code == 202
    [(image_id, _, _)] = stored(database_url)
    reference = f"upload://{image_id}"
    assert (await trigger(http, ulla, pictures=[reference])).status_code == 202
    for missing in (reference, f" Upload://{image_id.upper()} ", f"upload://{uuid4()}"):
        refused = await trigger(http, uwe, text="x" * 50, pictures=["x" * 50, {"url": missing}])
        assert refused.status_code == 422
        [fault] = refused.json()["errors"]
        assert fault["pointer"] == "/input_data/pictures/1/url"
        assert "there is no such upload" in fault["detail"]
    assert (await trigger(http, uwe, text=f"See {reference}")).status_code == 202  # only words
    airflow.triggers.clear()
    assert (await trigger(http, otto, picture=reference)).status_code == 202  # may see everybody's
    assert airflow.triggers[0][1]["conf"]["_visual_ai"]["shared_uploads"] == [reference]
    body = {"dag_id": "any", "input_data": {"picture": reference}, "user_id": "ulla"}
    assert (await http.post("/workflows/trigger", json=body, headers=otto)).status_code == 202
    assert "shared_uploads" not in airflow.triggers[1][1]["conf"]["_visual_ai"]


async def test_a_picture_is_kept_once_for_each_user(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    uwe, otto = await sign_in(http, "uwe"), await sign_in(http, "otto")
    for who in (ulla, uwe, ulla):
        assert (await trigger(http, who, "visual_ai_workflow", image_url=url(PICTURE))).status_code == 202
    body = {"dag_id": "any", "input_data": {"picture": url(PICTURE)}, "user_id": "ulla"}
    assert (await http.post("/workflows/trigger", json=body, headers=otto)).status_code == 202
    images = stored(database_url)
    assert [owner for _, owner, _ in images] == ["ulla", "uwe"]
    ulla_id = images[0][0]
    assert airflow.triggers[-1][1]["conf"]["picture"] == f"upload://{ulla_id}"
    assert (await http.get(f"/images/{ulla_id}", headers=uwe)).status_code == 404


async def test_a_repeated_request_finds_its_run(http: httpx.AsyncClient, ulla: Headers) -> None:
    body = {"dag_id": "any", "input_data": {"picture": url(PICTURE)}}
    first, second = [
        await http.post("/workflows/trigger", json=body, headers={**ulla, "Idempotency-Key": "once"}) for _ in range(2)
    ]
    assert first.json()["dag_run_id"] == second.json()["dag_run_id"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(PICTURE[: len(PICTURE) // 2], "damaged"), (b"x" * 9_000, "not a picture"), (bomb(), "pixels")],
)
async def test_a_picture_that_is_none_is_refused(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, content: bytes, said: str
) -> None:
    content += b"\0" * max(0, 5_000 - len(content))
    response = await trigger(http, ulla, rows=[{"picture": url(content)}])
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert error["pointer"] == "/input_data/rows/0/picture"
    assert said in error["detail"]
    assert not airflow.triggers


async def test_what_is_small_or_no_picture_stays(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    given = {
        "icon": url(encode(photo(8, 8))),
        "drawing": url(b"<svg>" + b" " * 9_000, "image/svg+xml"),
        "sound": url(b"x" * 9_000, "audio/wav"),
        "text": f"A picture: {url(PICTURE)}",
    }
    assert (await trigger(http, ulla, **given)).status_code == 202
    conf = airflow.triggers[0][1]["conf"]
    assert {key: conf[key] for key in given} == given
    assert stored(database_url) == []


@pytest.mark.parametrize("app", [{"inline_picture_bytes": 0}], indirect=True)
async def test_pictures_can_be_left_in_the_input(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    assert (await trigger(http, ulla, picture=url(PICTURE))).status_code == 202
    assert airflow.triggers[0][1]["conf"]["picture"] == url(PICTURE)


async def test_a_dag_that_insists_on_data_urls_gets_them(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    assert (await trigger(http, ulla, "inline", picture=url(PICTURE))).status_code == 202
    assert airflow.triggers[0][1]["conf"]["picture"] == url(PICTURE)


async def test_a_users_graph_gets_the_picture_that_the_client_sent(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, pg: Postgres, database: Database
) -> None:
    assert (await trigger(http, ulla, picture=url(PICTURE), parts=[{"url": url(PICTURE)}])).status_code == 202
    conf = airflow.triggers[0][1]["conf"]
    task = await TaskContext("any", airflow.triggers[0][1]["dag_run_id"], "task", -1, 1, conf).verified(database)
    async with AgentRunner(Settings(database_url_override=pg.worker_url), database, task) as runner:
        result = await run_single(runner, parse_agent(None, None, graph="tests.kit.graphs.pictured:described"))
    assert result["output"] == {"sizes": [len(url(PICTURE)), len(url(PICTURE))]}


def kept_bytes(database_url: str) -> int:
    """What the checkpoints take."""
    tables = {"checkpoints": "checkpoint::text", "checkpoint_blobs": "blob", "checkpoint_writes": "blob"}
    with psycopg.connect(plain_url(database_url)) as connection:
        found = [
            connection.execute(f"SELECT coalesce(sum(octet_length({column})), 0) FROM visual_ai.{table}").fetchone()
            for table, column in tables.items()
        ]
    return sum(int(row[0]) for row in found if row is not None)


@pytest.mark.parametrize("way", ["trigger", "airflow"])
async def test_checkpoints_are_without_the_input_s_pictures(
    http: httpx.AsyncClient,
    ulla: Headers,
    airflow: FakeAirflow,
    pg: Postgres,
    database: Database,
    database_url: str,
    way: str,
) -> None:
    """Whoever starts the run: the graph sees the picture, also when it resumes, and the checkpoints have none of it."""
    picture = url(encode(photo(1200, 900)))
    assert len(picture) > 2_000_000
    given = {"picture": picture}
    run_id = "manual"
    if way == "trigger":
        run_id = (await trigger(http, ulla, **given)).json()["dag_run_id"]
        given = airflow.triggers[0][1]["conf"]
    pictured.failures["left"] = 1
    for number in (1, 2):
        task = await TaskContext("any", run_id, "task", -1, number, given).verified(database)
        settings = Settings(database_url_override=pg.worker_url)
        with raises_failure(RuntimeError) if number == 1 else contextlib.nullcontext():
            async with AgentRunner(settings, database, task) as runner:
                spec = parse_agent(None, None, graph="tests.kit.graphs.pictured:talking")
                result = await run_single(runner, spec)
    assert result["output"]["seen"] == [len(picture), len(picture), 5_000, 0]
    assert result["output"]["picture"] == picture
    assert kept_bytes(database_url) < 40_000
    if way == "trigger":
        path = f"/workflow-status/any/{run_id}"
        rows = (await http.get(f"{path}/agents", headers=ulla)).json()["agents"]
        for row in rows:
            for side in ("input", "output"):
                shown = await http.get(f"{path}/traces/{row['id']}/{side}", headers=ulla)
                if shown.status_code == 200 and "data:image" in shown.text:
                    assert "data:image/png;base64,[" in shown.text
        shown = next(row for row in rows if row["node"] == "say" and row["state"] == "success")
        returned = await http.get(f"{path}/traces/{shown['id']}/output", headers=ulla)
        assert "data:image/png;base64,[" in returned.text
