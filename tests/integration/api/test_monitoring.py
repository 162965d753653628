"""Monitoring over HTTP on a real database: figures calculated by hand, access, and rejected parameters."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Protocol
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, create_engine, insert, text

from backend.api.main import create_app
from backend.core.settings import Settings
from backend.db.tables import agent_traces, workflow_errors, workflow_executions
from tests.kit.application import PRODUCTION

ROLES = {"victor": "Viewer", "ulla": "User", "otto": "Op"}


class Postgres(Protocol):
    """The part of the shared fixture that is used here."""

    admin_url: str
    backend_url: str


def airflow(request: httpx.Request) -> httpx.Response:
    """An Airflow in which users can sign in and that is otherwise down, so that nothing is reconciled."""
    path = request.url.path
    if path == "/auth/token":
        return httpx.Response(201, json={"access_token": "airflow-token"})
    if path.startswith("/auth/fab/v1/users/"):
        return httpx.Response(200, json={"roles": [{"name": ROLES.get(path.rpartition("/")[2], "Admin")}]})
    return httpx.Response(503)


@asynccontextmanager
async def client(database_url: str, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client on this machine of the application on that database."""
    settings = Settings(_env_file=None, database_url_override=database_url, **changes)
    app = create_app(settings, airflow_transport=httpx.MockTransport(airflow))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http,
    ):
        yield http


@pytest.fixture
def database(pg: Postgres) -> Iterator[Engine]:
    """The database without any runs."""
    engine = create_engine(pg.admin_url)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE visual_ai.workflow_executions CASCADE"))
    yield engine
    engine.dispose()


@pytest.fixture
async def http(pg: Postgres, database: Engine) -> AsyncIterator[httpx.AsyncClient]:
    async with client(pg.backend_url) as http:
        yield http


@pytest.fixture
def add_run(database: Engine) -> Callable[..., str]:
    """Writes a run queued `age` ago that waited `waited` seconds and, when finished, took `took` seconds."""
    numbers = iter(range(1000))

    def add(
        state: str = "success",
        *,
        age: timedelta = timedelta(minutes=10),
        waited: float | None = 1.0,
        took: float | None = None,
        **values: Any,
    ) -> str:
        queued_at = datetime.now(UTC) - age
        started_at = None if waited is None else queued_at + timedelta(seconds=waited)
        finished_at = None if took is None or started_at is None else started_at + timedelta(seconds=took)
        row = {
            "dag_id": "reports",
            "dag_run_id": f"run-{next(numbers)}",
            "state": state,
            "queued_at": queued_at,
            "started_at": started_at,
            "finished_at": finished_at,
            **values,
        }
        with database.begin() as connection:
            return str(_insert(connection, workflow_executions, row))

    return add


@pytest.fixture
def add_agent(database: Engine) -> Callable[..., None]:
    """Writes an agent's run in an execution."""

    def add(execution_id: str, name: str = "reader", **values: Any) -> None:
        row = {
            "execution_id": execution_id,
            "task_id": "read",
            "try_number": 1,
            "agent_name": name,
            "agent_type": "vision",
            "model": "openai:gpt-4.1",
            "state": "success",
            **values,
        }
        with database.begin() as connection:
            _insert(connection, agent_traces, row)

    return add


@pytest.fixture
def add_error(database: Engine) -> Callable[..., None]:
    """Writes an error of an execution."""

    def add(execution_id: str, category: str, *, age: timedelta = timedelta(minutes=5), **values: Any) -> None:
        row = {
            "execution_id": execution_id,
            "dag_id": "reports",
            "dag_run_id": "run",
            "category": category,
            "exception_type": "SomeError",
            "message": "it failed",
            "action": "retry",
            "occurred_at": datetime.now(UTC) - age,
            **values,
        }
        with database.begin() as connection:
            _insert(connection, workflow_errors, row)

    return add


def _insert(connection: Any, table: Any, row: dict[str, Any]) -> Any:
    # Columns that are not given take the defaults of the migration.
    return connection.execute(insert(table).values(id=str(uuid4()), **row).returning(table.c.id)).scalar_one()


async def get(http: httpx.AsyncClient, path: str, *, user: str | None = None, **params: Any) -> httpx.Response:
    """GET, as a user when one is named."""
    headers = {}
    if user is not None:
        signed_in = await http.post("/auth/token", json={"username": user, "password": "secret"})
        http.cookies.clear()
        headers["Authorization"] = f"Bearer {signed_in.json()['access_token']}"
    return await http.get(f"/monitoring/{path}", params=params, headers=headers)


async def test_workflow_metrics_add_up(http: httpx.AsyncClient, add_run: Callable[..., str]) -> None:
    add_run(waited=1, took=10, input_tokens=100, output_tokens=10, cost_usd="0.25")
    add_run(waited=2, took=20, input_tokens=200, output_tokens=20, cost_usd="0.5")
    add_run(waited=3, took=30, dag_id="photos")
    add_run("failed", waited=4, took=40)
    add_run("cancelled", waited=None)
    add_run("running", waited=5)
    add_run("queued", waited=None)
    add_run(age=timedelta(hours=25), took=1000, input_tokens=7)

    response = await get(http, "workflow-metrics")

    assert response.status_code == 200
    answer = response.json()
    series = answer.pop("time_series")
    by_dag = answer.pop("by_dag")
    since, until = (datetime.fromisoformat(answer.pop(name)) for name in ("since", "until"))
    assert until - since == timedelta(hours=24)
    assert answer == {
        "time_range": "24h",
        "dag_id": None,
        "user_id": None,
        "total": 7,
        "finished": 5,
        "by_state": {
            "queued": 1, "running": 1, "awaiting_input": 0, "success": 3, "failed": 1, "cancelled": 1,
        },
        "success_rate": 0.6,
        "throughput_per_hour": pytest.approx(5 / 24),
        # Of 10, 20, 30 and 40: p95 lies 0.95 * 3 = 2.85 steps after the first.
        "duration_seconds": {
            "p50": pytest.approx(25), "p95": pytest.approx(38.5), "p99": pytest.approx(39.7), "avg": pytest.approx(25),
        },
        # Of 1, 2, 3, 4 and 5.
        "queue_seconds": {"p50": pytest.approx(3), "p95": pytest.approx(4.8)},
        "input_tokens": 300,
        "output_tokens": 30,
        "cost_usd": 0.75,
        "bucket_seconds": 1800,
    }  # fmt: skip
    assert [row["dag_id"] for row in by_dag] == ["reports", "photos"]
    assert by_dag[0] == {
        "dag_id": "reports",
        "total": 6,
        "finished": 4,
        "success": 2,
        "failed": 1,
        "cancelled": 1,
        "success_rate": 0.5,
        "duration_p50": pytest.approx(20),
        "duration_p95": pytest.approx(38),
        "input_tokens": 300,
        "output_tokens": 30,
        "cost_usd": 0.75,
    }
    assert by_dag[1]["cost_usd"] is None
    starts = [datetime.fromisoformat(bucket["start"]) for bucket in series]
    assert {after - before for before, after in pairwise(starts)} == {timedelta(minutes=30)}
    assert since - timedelta(minutes=30) < starts[0] <= since
    assert until - timedelta(minutes=30) < starts[-1] <= until
    assert all(start.minute in (0, 30) and start.second == 0 for start in starts)
    for name in ("total", "success", "failed", "cancelled"):
        expected = answer["total"] if name == "total" else answer["by_state"][name]
        assert sum(bucket[name] for bucket in series) == expected
    assert sum(bucket["input_tokens"] for bucket in series) == 300
    assert sum(bucket["cost_usd"] or 0 for bucket in series) == 0.75


async def test_workflow_metrics_of_a_dag_and_a_user(http: httpx.AsyncClient, add_run: Callable[..., str]) -> None:
    add_run(user_id="ulla", dag_id="photos")
    add_run(user_id="ulla")
    add_run(user_id="victor")

    async def total(**params: str) -> int:
        return int((await get(http, "workflow-metrics", **params)).json()["total"])

    assert await total() == 3
    assert await total(user_id="ulla") == 2
    assert await total(user_id="ulla", dag_id="photos") == 1
    assert await total(dag_id="reports") == 2
    assert await total(dag_id="nothing") == 0


async def test_buckets_of_days_have_no_gap_in_any_time_zone(
    pg: Postgres, database: Engine, add_run: Callable[..., str]
) -> None:
    for days in range(0, 360, 9):
        add_run(age=timedelta(days=days, minutes=1))
    separator = "&" if "?" in pg.backend_url else "?"
    zoned = f"{pg.backend_url}{separator}options=-c%20TimeZone%3DAmerica/New_York"
    async with client(zoned) as http:
        for time_range in ("30d", "90d", "366d"):
            answer = (await get(http, "workflow-metrics", time_range=time_range)).json()
            assert sum(bucket["total"] for bucket in answer["time_series"]) == answer["total"] > 0
            assert answer["until"].endswith("Z")
            assert all(bucket["start"].endswith("T00:00:00Z") for bucket in answer["time_series"])


async def test_an_empty_database_returns_nulls_and_zeros(http: httpx.AsyncClient) -> None:
    runs = (await get(http, "workflow-metrics", time_range="15m")).json()
    assert (runs["total"], runs["input_tokens"], runs["throughput_per_hour"]) == (0, 0, 0.0)
    assert runs["success_rate"] is runs["cost_usd"] is None
    assert set(runs["duration_seconds"].values()) | set(runs["queue_seconds"].values()) == {None}
    assert runs["by_dag"] == []
    assert {bucket["total"] for bucket in runs["time_series"]} == {0}

    assert (await get(http, "agent-performance")).json()["agents"] == []

    errors = (await get(http, "error-distribution")).json()
    assert (errors["total"], errors["recovered"], errors["latest"]) == (0, 0, None)
    assert errors["by_category"] == errors["by_agent"] == errors["by_dag"] == []
    assert {(bucket["total"], len(bucket["by_category"])) for bucket in errors["time_series"]} == {(0, 0)}


async def test_without_finished_runs_there_is_no_success_rate(
    http: httpx.AsyncClient, add_run: Callable[..., str]
) -> None:
    add_run("running")
    answer = (await get(http, "workflow-metrics")).json()
    assert (answer["total"], answer["success_rate"]) == (1, None)
    assert answer["by_dag"][0]["success_rate"] is answer["by_dag"][0]["duration_p50"] is None


async def test_a_clock_that_is_behind_causes_no_negative_wait(
    http: httpx.AsyncClient, add_run: Callable[..., str]
) -> None:
    add_run("running", waited=-3)
    assert (await get(http, "workflow-metrics")).json()["queue_seconds"] == {"p50": 0.0, "p95": 0.0}


async def test_agent_performance(
    http: httpx.AsyncClient, add_run: Callable[..., str], add_agent: Callable[..., None]
) -> None:
    run = add_run()
    for latency, state in ((100, "success"), (200, "success"), (300, "failed"), (None, "cancelled")):
        add_agent(run, state=state, latency_ms=latency, input_tokens=10, output_tokens=1, retries=2)
    add_agent(run, state="running", input_tokens=5)
    add_agent(run, state="skipped")
    add_agent(run, node="look", latency_ms=9999, input_tokens=9999)  # counted in its agent's run
    add_agent(run, started_at=datetime.now(UTC) - timedelta(days=2), latency_ms=9999)
    add_agent(run, model="openai:gpt-4.1-mini", latency_ms=50, cost_usd="0.125", fallbacks=1)
    add_agent(run, "scribe", agent_type="text", model=None, state="failed")

    answer = (await get(http, "agent-performance")).json()

    assert answer["time_range"] == "24h"
    assert answer["agents"][0] == {
        "agent": "reader",
        "type": "vision",
        "model": "openai:gpt-4.1",
        "runs": 5,
        "finished": 4,
        "success": 2,
        "failed": 1,
        "cancelled": 1,
        "success_rate": 0.5,
        "latency_ms": {"p50": 200.0, "p95": pytest.approx(290), "p99": pytest.approx(298)},
        "input_tokens": 45,
        "output_tokens": 4,
        "cost_usd": None,
        "retries": 8,
        "fallbacks": 0,
    }
    mini, scribe = answer["agents"][1:]
    assert (mini["model"], mini["runs"], mini["cost_usd"], mini["fallbacks"]) == (
        "openai:gpt-4.1-mini", 1, 0.125, 1,
    )  # fmt: skip
    assert mini["latency_ms"] == {"p50": 50.0, "p95": 50.0, "p99": 50.0}
    assert (scribe["agent"], scribe["model"], scribe["success_rate"]) == ("scribe", None, 0.0)
    assert set(scribe["latency_ms"].values()) == {None}


async def test_error_distribution(
    http: httpx.AsyncClient, add_run: Callable[..., str], add_error: Callable[..., None]
) -> None:
    run = add_run()
    add_error(run, "rate_limit", agent_name="reader", recovered=True, age=timedelta(hours=2))
    add_error(run, "rate_limit", agent_name="reader", recovered=True, age=timedelta(hours=3))
    add_error(run, "rate_limit", agent_name="scribe", dag_id="photos")
    add_error(run, "input")
    add_error(run, "server", age=timedelta(hours=25))

    answer = (await get(http, "error-distribution")).json()

    assert (answer["total"], answer["recovered"], answer["unrecovered"]) == (4, 2, 2)
    by_category = answer["by_category"]
    assert [(row["name"], row["count"], row["share"], row["recovered"], row["unrecovered"]) for row in by_category] == [
        ("rate_limit", 3, 0.75, 2, 1),
        ("input", 1, 0.25, 0, 1),
    ]
    assert [(row["name"], row["count"], row["share"]) for row in answer["by_agent"]] == [
        ("reader", 2, 0.5),
        ("scribe", 1, 0.25),
        (None, 1, 0.25),
    ]
    assert [(row["name"], row["count"]) for row in answer["by_dag"]] == [("reports", 3), ("photos", 1)]
    reader = answer["by_agent"][0]
    age = datetime.now(UTC) - datetime.fromisoformat(reader["latest"])
    assert timedelta(hours=2) <= age < timedelta(hours=2, minutes=1)
    assert answer["latest"] == by_category[1]["latest"] or answer["latest"] == by_category[0]["latest"]
    assert sum(bucket["total"] for bucket in answer["time_series"]) == 4
    counted = [bucket["by_category"].get("rate_limit", 0) for bucket in answer["time_series"]]
    assert sum(counted) == 3
    assert max(counted) == 1
    assert len(answer["time_series"]) in (48, 49)


@pytest.mark.parametrize(("user", "seen"), [("ulla", 2), ("victor", 4), ("otto", 4), (None, 4)])
async def test_a_user_sees_only_their_own_runs(
    user: str | None,
    seen: int,
    http: httpx.AsyncClient,
    add_run: Callable[..., str],
    add_agent: Callable[..., None],
    add_error: Callable[..., None],
) -> None:
    for owner in (
        {"user_id": "ulla"},
        {"user_id": "victor", "triggered_by": "ulla"},
        {"user_id": "otto", "triggered_by": "otto"},
        {},  # a scheduled run
    ):
        run = add_run(**owner)
        add_agent(run)
        add_error(run, "server")

    runs = (await get(http, "workflow-metrics", user=user)).json()
    agents = (await get(http, "agent-performance", user=user)).json()
    errors = (await get(http, "error-distribution", user=user)).json()

    assert runs["total"] == sum(row["total"] for row in runs["by_dag"]) == seen
    assert sum(bucket["total"] for bucket in runs["time_series"]) == seen
    assert [row["runs"] for row in agents["agents"]] == [seen]
    assert errors["total"] == errors["by_category"][0]["count"] == seen
    assert sum(bucket["total"] for bucket in errors["time_series"]) == seen


async def test_agents_and_errors_of_a_dag_and_a_user(
    http: httpx.AsyncClient, add_run: Callable[..., str], add_agent: Callable[..., None], add_error: Callable[..., None]
) -> None:
    for values in ({"user_id": "ulla", "dag_id": "photos"}, {"user_id": "ulla"}, {"user_id": "victor"}):
        run = add_run(**values)
        add_agent(run)
        add_error(run, "server", dag_id=values.get("dag_id", "reports"))

    async def counted(**params: str) -> tuple[int, int, int]:
        agents = (await get(http, "agent-performance", **params)).json()["agents"]
        errors = (await get(http, "error-distribution", **params)).json()
        series = sum(bucket["total"] for bucket in errors["time_series"])
        return sum(agent["runs"] for agent in agents), errors["total"], series

    assert await counted() == (3, 3, 3)
    assert await counted(user_id="ulla") == (2, 2, 2)
    assert await counted(dag_id="reports") == (2, 2, 2)
    assert await counted(dag_id="photos", user_id="ulla") == (1, 1, 1)
    assert await counted(dag_id="photos", user_id="victor") == (0, 0, 0)


async def test_a_filter_does_not_widen_what_a_user_sees(
    http: httpx.AsyncClient, add_run: Callable[..., str], add_agent: Callable[..., None], add_error: Callable[..., None]
) -> None:
    run = add_run(user_id="otto")
    add_agent(run)
    add_error(run, "server")
    assert (await get(http, "workflow-metrics", user="ulla", user_id="otto")).json()["total"] == 0
    assert (await get(http, "agent-performance", user="ulla", user_id="otto")).json()["agents"] == []
    assert (await get(http, "error-distribution", user="ulla", user_id="otto")).json()["total"] == 0


@pytest.mark.parametrize("path", ["workflow-metrics", "agent-performance", "error-distribution"])
@pytest.mark.parametrize("time_range", ["0h", "-1h", "24", "1w", "367d", "", "9" * 400 + "d"])
async def test_an_invalid_time_range_is_refused(path: str, time_range: str, http: httpx.AsyncClient) -> None:
    response = await get(http, path, time_range=time_range)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in response.json()["errors"]] == ["?time_range"]


@pytest.mark.parametrize("value", ["", "a\0b", "x" * 251])
async def test_an_impossible_name_is_refused(value: str, http: httpx.AsyncClient) -> None:
    response = await get(http, "workflow-metrics", dag_id=value)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "?dag_id"


@pytest.mark.parametrize("path", ["workflow-metrics", "agent-performance", "error-distribution", "system-health"])
async def test_reading_requires_a_token_in_production(path: str, pg: Postgres) -> None:
    async with client(pg.backend_url, **PRODUCTION) as http:
        assert (await get(http, path)).status_code == 401
        assert (await get(http, path, user="victor")).status_code != 401


async def test_a_database_that_is_down_is_a_503(unused_tcp_port: int) -> None:
    async with client(f"postgresql+psycopg://nobody@127.0.0.1:{unused_tcp_port}/none") as http:
        response = await get(http, "workflow-metrics")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"]
    assert "127.0.0.1" not in response.text
