"""Graphs search LangGraph's store by meaning, with the embeddings that their project names."""

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy
import pytest
from fastapi import FastAPI
from langgraph.store.base import PutOp
from openai import RateLimitError
from sqlalchemy import text

from backend.checkpoints.pool import open_pool
from backend.checkpoints.prune import prune_store
from backend.checkpoints.store import Store
from backend.core.settings import Settings, get_settings
from backend.db.engine import Database
from backend.runtime.langgraph_json import GraphLoadError
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from langgraph_flow_host.embedding import Embedder
from langgraph_flow_host.store_terms import Index, StoreTerms
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.tasks import NO_RETRIES
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres

NOTES = {
    "boats": "Two fishing boats lie at anchor in the harbour.",
    "bread": "The baker sells rye bread and rolls.",
    "weather": "Rain and a strong wind are expected.",
}
MODEL = {"embed": "openai:text-embedding-3-small", "dims": 1_536, "fields": ["text"]}
Write = Callable[..., str]


@pytest.fixture
def openai_server(openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> OpenAIServer:
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    return openai_server


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a langgraph.json; returns its path."""

    def write(**store: Any) -> str:
        file = tmp_path / uuid.uuid4().hex / "langgraph.json"
        file.parent.mkdir()
        graphs = {name: f"tests.kit.graphs.recalling:{name}" for name in ("graph", "blocking")}
        file.write_text(json.dumps({"dependencies": [], "graphs": graphs, "store": store}))
        return str(file)

    return write


async def run(pg: Postgres, database: Database, graph: str, given: Any, **settings: Any) -> Any:
    own = Settings(database_url_override=pg.worker_url, error_rules=NO_RETRIES, **settings)
    task = TaskContext("dag", f"run {uuid.uuid4()}", "task", -1, 1, {}, user="ann")
    with pytest.MonkeyPatch.context() as patch:  # what is checked when a DAG file is parsed
        for name, value in settings.items():
            patch.setenv(f"VISUAL_AI_{name.upper()}", value)
        get_settings.cache_clear()
        spec = parse_agent(None, given, graph=graph)
    get_settings.cache_clear()
    async with AgentRunner(own, database, task) as runner:
        return (await run_single(runner, spec))["output"]


async def count(database: Database, query: str = "SELECT count(*) FROM visual_ai.store_vectors") -> int:
    async with database.engine.begin() as connection:
        return int((await connection.execute(text(query))).scalar_one())


@pytest.mark.parametrize("graph", ["graph", "blocking"])
async def test_a_model_finds_what_is_nearest(
    pg: Postgres, database: Database, openai_server: OpenAIServer, write: Write, graph: str
) -> None:
    file = write(index=MODEL)
    asked = {"notes": NOTES, "question": "boats in the harbour"}
    assert (await run(pg, database, graph, asked, langgraph_json=file))["found"][0] == "boats"
    calls = [record for record in openai_server.requests if record.api == "embeddings"]
    assert {record.model for record in calls} == {"text-embedding-3-small"}
    assert await count(database) == 3
    changed = {"notes": {"boats": "Rye bread, and more bread."}, "question": "boats in the harbour"}
    found = (await run(pg, database, graph, changed, langgraph_json=file))["found"]
    assert found[0] == "bread" or found[0] == "weather", "an item is found by what it says now"
    assert await count(database) == 3


@pytest.mark.parametrize("graph", ["recalling", "recalling_blocking"])
async def test_a_project_with_an_environment_of_its_own_makes_its_own_vectors(
    pg: Postgres, database: Database, foreign_projects: Path, graph: str
) -> None:
    settings = {"projects_dir": str(foreign_projects)}
    asked = {"notes": {"a": "aaab", "b": "bbba", "c": "cccc"}, "question": "aab"}
    assert (await run(pg, database, f"pinned/{graph}", asked, **settings))["found"] == ["a 0.99", "b 0.71"]
    kept = await count(database, "SELECT count(*) FROM visual_ai.store WHERE ttl_minutes = 600")
    assert kept == 3, "its time to live is the project's"


async def test_a_search_is_exact_and_stays_in_its_place(pg: Postgres, database: Database) -> None:
    """Of 3,000 items in 256 dimensions, more than are compared exactly, the nearest are those of a whole comparison."""
    chance = numpy.random.default_rng(7)
    topics = chance.normal(size=(40, 256))
    items = {f"{number}": topics[number % 40] + chance.normal(size=256) for number in range(3_000)}
    question = topics[3] + 0.3 * chance.normal(size=256)

    async def embed(texts: list[str]) -> list[list[float]]:
        return [(question if one == "?" else items[one]).tolist() for one in texts]

    async with open_pool(pg.worker_url, max_size=2) as pool:
        embedder = Embedder(Index("./made.py:embed", 256, ("name",)), lambda _: embed)
        store = Store(pool, StoreTerms(), embedder)
        for begin in range(0, 3_000, 500):
            names = [str(number) for number in range(begin, begin + 500)]
            await store.abatch(
                [
                    PutOp(("many", str(int(name) % 2)), name, {"name": name, "even": int(name) % 2 == 0})
                    for name in names
                ]
            )
        await store.aput(("other",), "3", {"name": "3"})

        def nearest(names: list[str], limit: int) -> list[str]:
            def cosine(name: str) -> float:
                one = items[name]
                return float(one @ question / numpy.linalg.norm(one) / numpy.linalg.norm(question))

            return sorted(names, key=cosine, reverse=True)[:limit]

        everything = [*items]
        found = await store.asearch(("many",), query="?", limit=20)
        assert [item.key for item in found] == nearest(everything, 20)
        scores = [item.score or 0.0 for item in found]
        assert scores == sorted(scores, reverse=True)
        later = await store.asearch(("many",), query="?", limit=10, offset=10)
        assert [item.key for item in later] == nearest(everything, 20)[10:]
        odd = await store.asearch(("many", "1"), query="?", limit=10)
        assert [item.key for item in odd] == nearest([name for name in everything if int(name) % 2], 10)
        even = await store.asearch(("many",), query="?", filter={"even": True}, limit=10)
        assert [item.key for item in even] == nearest([name for name in everything if int(name) % 2 == 0], 10)
        await store.adelete(("many", str(int(found[0].key) % 2)), found[0].key)
        again = await store.asearch(("many",), query="?", limit=1)
        assert again[0].key == found[1].key


async def test_items_that_are_put_at_the_same_time_are_found_by_the_last(pg: Postgres, database: Database) -> None:
    async def embed(texts: list[str]) -> list[list[float]]:
        await asyncio.sleep(random.random() / 100)
        return [[float(len(one)), 1.0] for one in texts]

    async with open_pool(pg.worker_url, max_size=8) as pool:
        stores = [
            Store(pool, StoreTerms(), Embedder(Index("./made.py:embed", 2, ("*",)), lambda _: embed)) for _ in range(8)
        ]
        for attempt in range(5):
            values = [{f"field{number}": "x" * (number + 1)} for number in range(8)]
            await asyncio.gather(
                *(one.aput(("same",), str(attempt), value) for one, value in zip(stores, values, strict=True))
            )
    assert await count(database) == 5, "one text each: that of the value that is there"


async def test_of_several_changes_at_once_the_last_counts(pg: Postgres, database: Database) -> None:
    async def embed(texts: list[str]) -> list[list[float]]:
        return [[float(len(one)), 1.0] for one in texts]

    async with open_pool(pg.worker_url, max_size=2) as pool:
        store = Store(pool, StoreTerms(), Embedder(Index("./made.py:embed", 2, ("text",)), lambda _: embed))
        one, other = {"text": "one"}, {"text": "other"}
        await store.abatch(
            [
                PutOp(("at once",), "deleted", one),
                PutOp(("at once",), "deleted", None),
                PutOp(("at once",), "changed", one),
                PutOp(("at once",), "changed", other),
                PutOp(("at once",), "unindexed", one),
                PutOp(("at once",), "unindexed", other, index=False),
            ]
        )
        found = await store.asearch(("at once",))
        assert {item.key: item.value for item in found} == {"changed": other, "unindexed": other}
        assert [item.key for item in await store.asearch(("at once",), query="any")] == ["changed"]


async def test_what_goes_wrong_stores_nothing(
    pg: Postgres, database: Database, openai_server: OpenAIServer, write: Write
) -> None:
    asked = {"notes": NOTES, "question": "boats"}
    openai_server.script("rate_limit", api="embeddings", times=10)
    with raises_failure(RateLimitError) as raised:
        await run(pg, database, "graph", asked, langgraph_json=write(index=MODEL))
    assert raised.value.classified.category == "rate_limit"
    openai_server.reset()
    for index, why in (
        ({**MODEL, "dims": 10}, "dims is 10, but .* makes vectors of 1536 numbers"),
        ({**MODEL, "embed": "tests.kit.graphs.recalling:none"}, "has no 'none'"),
    ):
        with raises_failure(Exception, match=why):
            await run(pg, database, "graph", asked, langgraph_json=write(index=index))
    with pytest.raises(GraphLoadError, match=r"store\.index\.dims has to be the length"):
        await run(pg, database, "graph", asked, langgraph_json=write(index={**MODEL, "dims": 0}))
    assert await count(database, "SELECT count(*) FROM visual_ai.store") == 0


async def test_items_expire(pg: Postgres, database: Database, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", pg.worker_url)
    get_settings.cache_clear()
    async with open_pool(pg.worker_url, max_size=2) as pool:
        store = Store(pool, StoreTerms(default_ttl=600))
        await store.aput(("kept",), "a", {"x": 1}, ttl=None)
        await store.aput(("kept",), "b", {"x": 1})
        await store.aput(("kept",), "c", {"x": 1}, ttl=0.0005)
        await asyncio.sleep(0.1)
        assert [item.key for item in await store.asearch(("kept",))] == ["b", "a"]
        assert await store.aget(("kept",), "c") is None
    assert await asyncio.to_thread(prune_store) == 1
    assert await count(database, "SELECT count(*) FROM visual_ai.store") == 2
    get_settings.cache_clear()


@pytest.fixture
async def api(
    database: Database, database_url: str, openai_server: OpenAIServer, write: Write
) -> AsyncIterator[httpx.AsyncClient]:
    airflow = FakeAirflow()
    airflow.fail("/dags/~/")
    settings = {**PRODUCTION, "langgraph_json": write(index=MODEL)}
    async with (
        application(database_url, airflow, **settings) as app,
        client_of(app, base_url="http://api.test/langgraph/") as client,
    ):
        client.headers.update(await _signed_in(app))
        yield client


async def _signed_in(app: FastAPI) -> Mapping[str, str]:
    async with client_of(app) as http:
        return await sign_in(http, "anna")


async def test_clients_search_what_graphs_remember(
    api: httpx.AsyncClient, pg: Postgres, database: Database, openai_server: OpenAIServer, write: Write
) -> None:
    await run(pg, database, "graph", {"notes": NOTES, "question": "x"}, langgraph_json=write(index=MODEL))
    item = {"namespace": ["notes"], "key": "ships", "value": {"text": "Boats and ships in the harbour."}, "ttl": 60}
    assert (await api.put("store/items", json=item)).status_code == 204
    search = {"namespace_prefix": ["notes"], "query": "boats and ships in the harbour", "limit": 2}
    found = (await api.post("store/items/search", json=search)).json()["items"]
    assert [one["key"] for one in found] == ["ships", "boats"]
    assert found[0]["score"] > found[1]["score"] > 0
    assert await count(database, "SELECT count(*) FROM visual_ai.store WHERE ttl_minutes = 60") == 1
    wrong = await api.post("store/items/search", json={**search, "filter": {"a": {"$in": [1]}}})
    assert wrong.status_code == 422, wrong.text
    openai_server.script("server_error", api="embeddings", times=10)
    refused = await api.put("store/items", json={**item, "key": "late"})
    assert refused.status_code == 503, refused.text
    unindexed = await api.put("store/items", json={**item, "key": "plain", "index": False})
    assert unindexed.status_code == 204, unindexed.text
    assert await count(database, "SELECT count(*) FROM visual_ai.store WHERE key = 'late'") == 0


async def test_a_model_that_does_not_answer_holds_up_nobody_else(
    api: httpx.AsyncClient, openai_server: OpenAIServer
) -> None:
    item = {"namespace": ["held"], "key": "a", "value": {"text": "Boats."}}
    assert (await api.put("store/items", json={**item, "index": False})).status_code == 204
    openai_server.script(api="embeddings", hold=True)
    put = asyncio.create_task(api.put("store/items", json={**item, "key": "b"}))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 1)
    async with asyncio.timeout(5):
        found = await api.get("store/items", params={"namespace": "held", "key": "a"})
    assert found.json()["value"] == {"text": "Boats."}
    openai_server.release()
    assert (await put).status_code == 204
    openai_server.script("server_error", api="embeddings", times=10)
    failed, read = await asyncio.gather(
        api.put("store/items", json={**item, "key": "c"}),
        api.get("store/items", params={"namespace": "held", "key": "a"}),
    )
    assert (failed.status_code, read.status_code) == (503, 200)


async def test_odd_requests_to_the_store_are_named_or_do_no_harm(
    api: httpx.AsyncClient, database: Database, openai_server: OpenAIServer
) -> None:
    item: dict[str, Any] = {"namespace": ["odd"], "key": "a", "value": {"text": "Boats.", "parts": ["x", "y"]}}
    twice = ["text", "text", "parts[*]", "parts[*].0", "nothing", "["]
    assert (await api.put("store/items", json={**item, "index": twice})).status_code == 204
    (call,) = [record for record in openai_server.requests if record.api == "embeddings"]
    assert call.prompt.splitlines().count("Boats.") == 1, "each text is paid once"
    for field, changes in (("index", {"index": ["text"] * 1_000}), ("ttl", {"ttl": 0}), ("ttl", {"ttl": -1})):
        refused = await api.put("store/items", json={**item, **changes})
        assert (refused.status_code, field in refused.text) == (422, True), refused.text
    search = {"namespace_prefix": ["odd"], "query": "boats " * 10_000}
    assert (await api.post("store/items/search", json=search)).status_code == 422
    assert len(openai_server.requests) == 1
