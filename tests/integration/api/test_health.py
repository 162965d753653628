"""System health, readiness and metrics: a real database, the rest faked at its transport."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, text

from backend.api import metrics
from backend.api.main import create_app
from backend.clients.airflow import AirflowClient
from backend.core.settings import Settings
from backend.db.engine import Database, make_async_engine
from backend.db.runs import observations
from backend.db.runs.executions import RunState
from backend.ratelimit.limiter import SharedGate
from backend.ratelimit.stores import PostgresStore
from backend.services.monitoring import health as health_module
from backend.services.monitoring.health import Health, SystemHealth
from backend.services.monitoring.model_limits import ModelLimits
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, SCRAPER, application
from tests.kit.application import served as server_of
from tests.kit.servers.langfuse import LangfuseServer
from tests.kit.waiting import eventually

Answer = Callable[[httpx.Request], Any]  # a response, or a coroutine that gives one
LANGFUSE: dict[str, Any] = {
    "langfuse_host": "https://langfuse.test",
    "langfuse_public_key": "pk-lf-public",
    "langfuse_secret_key": "sk-lf-verysecret",
}
CLOSED = "postgresql+psycopg://nobody:pw-of-nobody@127.0.0.1:1/none"


class Postgres(Protocol):
    """The part of the shared fixture that is used here."""

    admin_url: str
    backend_url: str


class Service:
    """A background service with a fixed state."""

    def __init__(self, works: bool = True, reason: str = "") -> None:
        self.works, self.reason = works, reason

    def state(self) -> tuple[bool, str]:
        return self.works, self.reason


def monitor(**changes: str | None) -> dict[str, Any]:
    """The response of Airflow 3.3's `/api/v2/monitor/health`, with some statuses changed."""
    beat = (datetime.now(UTC) - timedelta(seconds=90)).isoformat()
    names = ("scheduler", "triggerer", "dag_processor")
    parts: dict[str, Any] = {"metadatabase": {"status": "healthy"}}
    parts |= {name: {"status": "healthy", f"latest_{name}_heartbeat": beat} for name in names}
    for name, status in changes.items():
        parts[name]["status"] = status
        if status is None:
            parts[name][f"latest_{name}_heartbeat"] = None
    return parts


def airflow(health: Callable[[], httpx.Response] | None = None) -> Answer:
    """An Airflow without runs whose health check returns what `answer` does."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/api/v2/monitor/health":
            return health() if health else httpx.Response(200, json=monitor())
        if path == "/auth/token":
            return httpx.Response(201, json={"access_token": "airflow-token"})
        if path.startswith("/auth/fab/v1/users/"):
            role = {"victor": "Viewer", "otto": "Op"}.get(path.rpartition("/")[2], "Admin")
            return httpx.Response(200, json={"roles": [{"name": role}]})
        if path.endswith(("/dags/~/dagRuns", "/taskInstances/list")):
            return httpx.Response(200, json={"dag_runs": [], "task_instances": [], "total_entries": 0})
        return httpx.Response(404, json={"detail": "Not Found"})

    return answer


def no_outside(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"{request.url} was called")


@asynccontextmanager
async def made(
    database_url: str,
    *,
    outside: Answer | None = no_outside,
    airflow_answers: Answer | None = None,
    feed: Service | None = None,
    reconciler: Service | None = None,
    notifications: Service | None = None,
    **changes: Any,
) -> AsyncIterator[Health]:
    """The health service on its own."""
    settings = Settings(_env_file=None, database_url_override=database_url, **changes)
    database = Database(make_async_engine(settings.database_url, application="test", pool_size=2))
    client = AirflowClient(settings, httpx.MockTransport(airflow_answers or airflow()))
    try:
        yield Health(
            settings,
            client,
            database,
            feed or Service(),
            reconciler or Service(),
            notifications or Service(),
            ModelLimits(PostgresStore(database)),
            transport=httpx.MockTransport(outside) if outside is not None else None,
        )
    finally:
        await client.close()
        await database.close()


@asynccontextmanager
async def served(
    database_url: str, airflow_answers: Answer | None = None, *, address: str = "127.0.0.1", **changes: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client at `address` of the whole application."""
    settings = Settings(_env_file=None, database_url_override=database_url, **changes)
    app = create_app(settings, airflow_transport=httpx.MockTransport(airflow_answers or airflow()))
    transport = httpx.ASGITransport(app, client=(address, 50000))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield http


def faults(health: SystemHealth) -> dict[str, str]:
    """The status of each component that is not healthy."""
    return {name: part.status for name, part in health.components.items() if part.status != "healthy"}


async def test_everything_is_healthy_without_tracing_and_keys(pg: Postgres) -> None:
    async with made(pg.backend_url) as health:
        system = await health.system()
    assert system.status == "healthy", faults(system)
    assert list(system.components) == [
        "database", "airflow_api", "airflow_metadatabase", "airflow_scheduler", "airflow_dag_processor",
        "airflow_triggerer", "event_feed", "reconciler", "notifications", "langfuse",
        "model_provider",
    ]  # fmt: skip
    required = {name for name, part in system.components.items() if part.required}
    assert required == {"database", "airflow_api", "airflow_metadatabase", "airflow_scheduler"}
    assert system.components["langfuse"].reason == "not configured: tracing is off"
    assert "offline local models" in (system.components["model_provider"].reason or "")
    assert (system.components["database"].latency_ms or 0) > 0


@pytest.mark.parametrize(
    ("changes", "overall", "expected", "reason"),
    [
        ({"metadatabase": "unhealthy"}, "unhealthy", {"airflow_metadatabase": "unhealthy"}, "database"),
        ({"scheduler": "unhealthy"}, "unhealthy", {"airflow_scheduler": "unhealthy"}, "last heartbeat 90 s ago"),
        ({"dag_processor": "unhealthy"}, "degraded", {"airflow_dag_processor": "unhealthy"}, "last heartbeat 90 s ago"),
        ({"dag_processor": None}, "degraded", {"airflow_dag_processor": "unhealthy"}, "not reported"),
        ({"triggerer": "unhealthy"}, "degraded", {"airflow_triggerer": "unhealthy"}, "deferred tasks wait"),
        ({"triggerer": None}, "degraded", {"airflow_triggerer": "degraded"}, "not reported"),
    ],
)
async def test_each_component_of_airflow_affects_the_health_differently(
    pg: Postgres, changes: dict[str, str | None], overall: str, expected: dict[str, str], reason: str
) -> None:
    answers = airflow(lambda: httpx.Response(200, json=monitor(**changes)))
    async with made(pg.backend_url, airflow_answers=answers) as health:
        system = await health.system()
    assert system.status == overall
    assert faults(system) == expected
    assert reason in (system.components[next(iter(expected))].reason or "")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("to 10.1.2.3:8080"),
        httpx.Response(500, text="Traceback"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
    ],
)
async def test_unreachable_airflow_is_unhealthy(pg: Postgres, answer: httpx.Response | Exception) -> None:
    def answers() -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with made(pg.backend_url, airflow_answers=airflow(answers)) as health:
        system = await health.system()
    assert system.status == "unhealthy"
    assert set(faults(system)) == {name for name in system.components if name.startswith("airflow_")}
    assert "10.1.2.3" not in system.model_dump_json()
    assert "Traceback" not in system.model_dump_json()


async def test_a_response_without_components_is_not_healthy(pg: Postgres) -> None:
    answers = airflow(lambda: httpx.Response(200, json={"scheduler": None, "triggerer": "?"}))
    async with made(pg.backend_url, airflow_answers=answers) as health:
        system = await health.system()
    assert system.status == "unhealthy"
    assert "airflow_api" not in faults(system)


async def test_a_check_that_hangs_times_out_and_hides_no_other(pg: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "CHECK_TIMEOUT", 1.5)  # in which a busy machine's database answers, too

    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    settings: dict[str, Any] = {"openai_api_key": "sk-verysecretkey", **LANGFUSE}
    async with made(pg.backend_url, outside=hang, airflow_answers=hang, **settings) as health:
        system = await asyncio.wait_for(health.system(), 30)
    assert "database" not in faults(system)
    assert faults(system)["langfuse"] == faults(system)["model_provider"] == "degraded"
    assert system.components["airflow_api"].reason == "no response within 1.5 s"


async def test_a_database_that_is_down_is_unhealthy_and_nothing_leaks() -> None:
    async with made(CLOSED) as health:
        system = await health.system()
        ready, checks = await health.ready()
    assert (system.status, faults(system)) == ("unhealthy", {"database": "unhealthy"})
    assert (ready, checks["schema"]) == (False, "unknown")
    for told in (system.model_dump_json(), str(checks)):
        assert "127.0.0.1" not in told
        assert "nobody" not in told


async def test_feed_and_reconciler_only_degrade_the_health(pg: Postgres) -> None:
    services: dict[str, Any] = {
        "feed": Service(False, "no connection"),
        "reconciler": Service(False, "Airflow answered 503"),
    }
    async with made(pg.backend_url, **services) as health:
        system = await health.system()
    assert (system.status, faults(system)) == ("degraded", {"event_feed": "degraded", "reconciler": "degraded"})
    assert system.components["event_feed"].reason == "no connection"


@pytest.mark.parametrize(
    ("status", "expected", "reason"),
    [
        (200, "healthy", None),
        (503, "degraded", "responded with 503; runs continue, but their traces may be lost"),
        (404, "degraded", "responded with 404; runs continue, but their traces may be lost"),
        (401, "degraded", "the keys are rejected (401): check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY; runs "
         "continue, but their traces may be lost"),
        (None, "degraded", "unreachable (ConnectError); runs continue, but their traces may be lost"),
    ],
)  # fmt: skip
async def test_langfuse(pg: Postgres, status: int | None, expected: str, reason: str | None) -> None:
    called = []

    def outside(request: httpx.Request) -> httpx.Response:
        called.append(str(request.url))
        assert b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"pk-lf-public:sk-lf-verysecret"
        if status is None:
            raise httpx.ConnectError("sk-lf-verysecret")
        return httpx.Response(status)

    async with made(pg.backend_url, outside=outside, **LANGFUSE) as health:
        system = await health.system()
        await health.system()
    assert called == ["https://langfuse.test/api/public/projects"], "a result is kept for a while"
    langfuse = system.components["langfuse"]
    assert (langfuse.status, langfuse.reason, system.status) == (expected, reason, expected)
    assert "secret" not in system.model_dump_json()


@pytest.mark.parametrize(
    ("changes", "expected", "reason"),
    [
        ({"langfuse_secret_key": None}, "degraded", "LANGFUSE_SECRET_KEY is missing: tracing is off"),
        ({"langfuse_public_key": None}, "degraded", "LANGFUSE_PUBLIC_KEY is missing: tracing is off"),
        ({"langfuse_tracing": False}, "healthy", "disabled by LANGFUSE_TRACING_ENABLED"),
    ],
)
async def test_misconfigured_langfuse_is_reported(
    pg: Postgres, changes: dict[str, Any], expected: str, reason: str
) -> None:
    async with made(pg.backend_url, **LANGFUSE | changes) as health:
        system = await health.system()
    langfuse = system.components["langfuse"]
    assert (langfuse.status, langfuse.reason) == (expected, reason)


async def test_the_status_of_langfuse_follows_its_responses(pg: Postgres, langfuse: LangfuseServer) -> None:
    async with made(pg.backend_url, outside=None, **langfuse.settings) as health:
        assert (await health.system()).components["langfuse"].status == "healthy"
    langfuse.secret_key = "another"
    async with made(pg.backend_url, outside=None, **{**langfuse.settings, "langfuse_secret_key": "old"}) as health:
        assert (await health.system()).components["langfuse"].status == "degraded"


@pytest.mark.parametrize(
    ("status", "expected", "overall"),
    [
        (200, "healthy", "healthy"),
        (401, "unhealthy", "degraded"),
        (403, "unhealthy", "degraded"),
        (404, "healthy", "healthy"),
        (429, "degraded", "degraded"),
        (500, "degraded", "degraded"),
        (None, "degraded", "degraded"),
    ],
)
async def test_the_status_of_the_model_provider_follows_its_responses(
    pg: Postgres, status: int | None, expected: str, overall: str
) -> None:
    called = []

    def outside(request: httpx.Request) -> httpx.Response:
        called.append((str(request.url), request.headers["authorization"]))
        if status is None:
            raise httpx.ConnectError("models.test refused Bearer sk-verysecretkey")
        return httpx.Response(status, json={"error": "Incorrect API key provided: sk-verysecretkey"})

    settings: dict[str, Any] = {"openai_api_key": "sk-verysecretkey", "openai_base_url": "https://models.test/v1/"}
    async with made(pg.backend_url, outside=outside, **settings) as health:
        system = await health.system()
    assert called == [("https://models.test/v1/models", "Bearer sk-verysecretkey")]
    assert (system.components["model_provider"].status, system.status) == (expected, overall)
    assert "secret" not in system.model_dump_json()
    assert "models.test" not in system.model_dump_json()


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"openai_api_key": "sk-verysecretkey"}, "https://api.openai.com/v1/models"),
        ({"openai_base_url": "http://models.test/v1"}, "http://models.test/v1/models"),
    ],
)
async def test_a_key_or_an_address_alone_is_checked(pg: Postgres, settings: dict[str, Any], url: str) -> None:
    called = []

    def outside(request: httpx.Request) -> httpx.Response:
        called.append((str(request.url), "authorization" in request.headers))
        return httpx.Response(200)

    async with made(pg.backend_url, outside=outside, **settings) as health:
        assert (await health.system()).status == "healthy"
    assert called == [(url, "openai_api_key" in settings)]


async def test_a_model_of_another_provider_is_not_checked(pg: Postgres) -> None:
    async with made(pg.backend_url, default_model="anthropic:claude-sonnet-4-5") as health:
        system = await health.system()
    assert system.components["model_provider"].reason == "not checked: the default model is one of anthropic"


MODEL = "openai:gpt-4.1@0a1b2c"


async def find_down(database_url: str, *, times: int = 5) -> None:
    """Agents find a model's provider down, one after the other."""
    database = Database(make_async_engine(database_url, application="test", pool_size=2))
    gate = SharedGate(PostgresStore(database), {})

    async def agent() -> None:
        await gate.admit(MODEL, tokens=1, max_wait=10)
        await gate.report(MODEL, "down")

    for _ in range(times):
        await asyncio.create_task(agent())
    await gate.close()
    await database.close()


@pytest.mark.parametrize(("answered", "expected"), [(200, "degraded"), (503, "degraded"), (401, "unhealthy")])
async def test_a_provider_that_agents_found_down_is_reported(database_url: str, answered: int, expected: str) -> None:
    def outside(_: httpx.Request) -> httpx.Response:
        return httpx.Response(answered)

    before = datetime.now(UTC)
    async with made(database_url, outside=outside, openai_api_key="sk-verysecretkey") as health:
        await find_down(database_url)
        system = await health.system()
    provider = system.components["model_provider"]
    assert (provider.status, system.status) == (expected, "degraded")
    assert (provider.reason or "").startswith("openai:gpt-4.1 is down")
    assert "the next probe is in" in (provider.reason or "")
    assert provider.since is not None
    assert before <= provider.since <= datetime.now(UTC)
    if answered != 200:
        assert str(answered) in (provider.reason or "")


async def test_a_few_failures_are_not_an_outage(database_url: str) -> None:
    await find_down(database_url, times=4)
    async with made(database_url) as health:
        assert (await health.system()).status == "healthy"


async def test_simultaneous_requests_share_one_external_call(database_url: str) -> None:
    outside_calls: list[str] = []
    airflow_calls: list[str] = []

    async def outside(request: httpx.Request) -> httpx.Response:
        outside_calls.append(request.url.host)
        await asyncio.sleep(0.05)
        return httpx.Response(200)

    def answers(request: httpx.Request) -> httpx.Response:
        airflow_calls.append(request.url.path)
        answer: httpx.Response = airflow()(request)
        return answer

    settings: dict[str, Any] = {"openai_api_key": "sk-verysecretkey", **LANGFUSE}
    async with made(database_url, outside=outside, airflow_answers=answers, **settings) as health:
        systems = await asyncio.gather(*(health.system() for _ in range(50)))
        await health.system()
    assert {system.status for system in systems} == {"healthy"}
    assert sorted(outside_calls) == ["api.openai.com", "langfuse.test"]
    assert airflow_calls == ["/api/v2/monitor/health"]


async def test_a_client_that_disconnects_does_not_abort_the_check(pg: Postgres) -> None:
    async def outside(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.1)
        return httpx.Response(200)

    async with made(pg.backend_url, outside=outside, openai_api_key="sk-verysecretkey") as health:
        first = asyncio.create_task(health.system())
        second = asyncio.create_task(health.system())
        await asyncio.sleep(0.02)
        first.cancel()
        assert (await second).status == "healthy"


async def test_system_health_over_http(pg: Postgres) -> None:
    state = {"scheduler": "healthy"}
    answers = airflow(lambda: httpx.Response(200, json=monitor(**state)))
    async with served(pg.backend_url, answers) as http:
        response = await http.get("/monitoring/system-health")
        assert response.status_code == 200
        assert response.json()["components"]["airflow_scheduler"] == {
            "status": "healthy", "required": True, "latency_ms": None, "reason": None, "since": None,
        }  # fmt: skip
        assert datetime.fromisoformat(response.json()["checked_at"]).tzinfo is not None
    state["scheduler"] = "unhealthy"
    async with served(pg.backend_url, answers) as http:
        response = await http.get("/monitoring/system-health")
        assert (response.status_code, response.json()["status"]) == (503, "unhealthy")
        assert response.headers["content-type"] == "application/json"


async def test_probes_need_no_token(pg: Postgres) -> None:
    async with served(pg.backend_url, address="203.0.113.9", **PRODUCTION) as http:
        assert (await http.get("/healthz")).json() == {"status": "alive"}
        response = await http.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"status": "ready", "database": "ok", "schema": "ok"})
    async with served(CLOSED, address="203.0.113.9", **PRODUCTION) as http:
        assert (await http.get("/healthz")).status_code == 200
        response = await http.get("/readyz")
        assert (response.status_code, response.json()["status"]) == (503, "not ready")


async def test_an_unmigrated_schema_is_not_ready(pg: Postgres) -> None:
    engine = create_engine(pg.admin_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE visual_ai.images RENAME COLUMN sha256 TO digest"))
    try:
        async with made(pg.backend_url) as health:
            assert await health.ready() == (
                False,
                {"database": "ok", "schema": "not migrated: 1 tables are missing or outdated"},
            )
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE visual_ai.images RENAME COLUMN digest TO sha256"))
        engine.dispose()


async def _samples(http: httpx.AsyncClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = await http.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_metrics_count_requests_by_route(pg: Postgres) -> None:
    async with served(pg.backend_url) as http:
        await http.get("/healthz")
        await http.get("/monitoring/workflow-metrics", params={"time_range": "1h"})
        await http.get("/monitoring/workflow-metrics", params={"time_range": "never"})
        await http.get("/workflow-status/some-dag/some-run")
        await http.get("/nothing/here")
        await http.request("BREW", "/healthz")
        samples = await _samples(http)

    def count(method: str, route: str, status: str) -> float | None:
        labels = {"method": method, "route": route, "status": status}
        return samples.get(("visual_ai_http_requests_total", frozenset(labels.items())))

    assert count("GET", "/healthz", "200") == 1
    assert count("GET", "/monitoring/workflow-metrics", "200") == 1
    assert count("GET", "/monitoring/workflow-metrics", "422") == 1
    assert count("GET", "/workflow-status/{dag_id}/{dag_run_id}", "404") == 1
    assert count("GET", "unmatched", "404") == 1
    assert count("OTHER", "/healthz", "405") == 1
    timed = {"method": "GET", "route": "/healthz"}
    assert samples["visual_ai_http_request_duration_seconds_count", frozenset(timed.items())] == 1
    assert samples["visual_ai_streams_open", frozenset()] == 0
    assert samples["visual_ai_event_feed_connected", frozenset()] in (0, 1)
    assert samples["visual_ai_airflow_requests_total", frozenset()] >= 1
    assert samples["process_resident_memory_bytes", frozenset()] > 0


async def test_metrics_of_models_limits(database_url: str) -> None:
    await find_down(database_url)
    async with served(database_url) as http:
        samples = await _samples(http)
    labels = frozenset({"model": MODEL}.items())
    assert samples["visual_ai_model_circuit_opened_total", labels] == 1
    assert samples["visual_ai_model_circuit_open", labels] == 1
    assert samples["visual_ai_model_rate_limited_total", labels] == 0
    # A call counts as held back when it waited for a while, which a slow database is enough for.
    assert samples["visual_ai_model_calls_held_back_total", labels] <= 5


@pytest.mark.parametrize(
    ("address", "headers", "user", "expected"),
    [
        ("127.0.0.1", {}, None, 401),
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.9"}, None, 401),
        ("203.0.113.9", {}, None, 401),
        ("203.0.113.9", {}, "victor", 403),
        ("203.0.113.9", {}, "otto", 200),
        ("203.0.113.9", SCRAPER, None, 200),
        ("203.0.113.9", {"Authorization": "Bearer the token of a"}, None, 401),
    ],
)
async def test_metrics_are_for_operators(
    pg: Postgres, address: str, headers: dict[str, str], user: str | None, expected: int
) -> None:
    async with served(pg.backend_url, address=address, **PRODUCTION) as http:
        if user is not None:
            signed_in = await http.post("/auth/token", json={"username": user, "password": "secret"})
            http.cookies.clear()
            headers = {**headers, "Authorization": f"Bearer {signed_in.json()['access_token']}"}
        assert (await http.get("/metrics", headers=headers)).status_code == expected


async def test_open_streams_and_failures_are_counted(pg: Postgres, database_url: str) -> None:
    run = RunState("some_dag", "run", "running")
    database = Database(make_async_engine(database_url, application="test", pool_size=1))
    await database.run(observations.observe, run)
    async with application(pg.backend_url, FakeAirflow()) as app, server_of(app) as address:

        @app.get("/broken")
        async def broken() -> None:
            raise RuntimeError

        collected: metrics.Metrics = app.state.metrics

        def open_streams() -> float | None:
            return collected.registry.get_sample_value("visual_ai_streams_open")

        async with httpx.AsyncClient(base_url=address) as http:
            async with http.stream("GET", "/workflow-status/stream/some_dag/run") as response:
                assert await anext(response.aiter_lines())
                assert open_streams() == 1
            assert (await http.get("/broken")).status_code == 500
        await eventually(lambda: open_streams() == 0)
    await database.close()

    def count(route: str, status: str) -> float | None:
        labels = {"method": "GET", "route": route, "status": status}
        return collected.registry.get_sample_value("visual_ai_http_requests_total", labels)

    streamed = count("/workflow-status/stream/{dag_id}/{dag_run_id}", "200")
    assert (streamed, count("/broken", "500")) == (1, 1)
