"""The outcomes of a batch's inputs, whatever their outputs' size."""

import json
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from backend.core.jsonable import dumps
from tests.kit.recorded_runs import RecordedRun

DAG = "visual_ai_workflow"
ITEMS = f"/workflow-status/{DAG}/run/items/group.each"

_ITEMS = text(
    """
    INSERT INTO visual_ai.batch_items (execution_id, task_id, map_index, item_index, state, try_number, output, error)
    SELECT CAST(:id AS uuid), 'group.each', :map_index, number - 1, 'success', 1, output, :error
    FROM jsonb_array_elements(CAST(:outputs AS jsonb)) WITH ORDINALITY AS item (output, number)
    """
)


def batch(engine: Engine, outputs: list[Any], *, map_index: int = -1, error: str | None = None) -> None:
    """A run with a batch whose items returned these outputs."""
    run = RecordedRun(engine, DAG)
    run.is_now("running")
    with engine.begin() as connection:
        values = {"id": run.id, "map_index": map_index, "outputs": dumps(outputs), "error": error}
        connection.execute(_ITEMS, values)


async def pages(http: httpx.AsyncClient, **query: Any) -> list[list[dict[str, Any]]]:
    """All pages of the items."""
    found: list[list[dict[str, Any]]] = []
    after: int | None = -1
    while after is not None:
        answer = await http.get(ITEMS, params={"after": after, **query})
        assert answer.status_code == 200, answer.text
        assert len(answer.content) <= 262_144
        found.append(answer.json()["items"])
        after = answer.json()["next_after"]
    return found


async def test_large_outputs_stand_in_the_pages_by_reference(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    outputs = [{"n": index, "text": 'ü"' * (500_000 if index % 2 else 10)} for index in range(24)]
    batch(engine, outputs, map_index=3)
    found = await pages(ulla_http, map_index=3, limit=1000)
    items = [item for page in found for item in page]
    assert [item["index"] for item in items] == list(range(24))
    for item, output in zip(items, outputs, strict=True):
        shown = item["output"]
        if item["index"] % 2 == 0:
            assert shown == output
            continue
        assert (shown["truncated"], shown["media_type"]) == (True, "application/json")
        if item["index"] in (1, 23):
            whole = await ulla_http.get(shown["url"])
            assert whole.json() == output
            assert len(whole.content) == shown["bytes"] == int(whole.headers["content-length"])
            assert sha256(whole.content).hexdigest() == shown["sha256"]
            assert whole.text.startswith(shown["excerpt"])
            part = await ulla_http.get(shown["url"], headers={"Range": "bytes=700000-700099"})
            assert (part.status_code, part.content) == (206, whole.content[700_000:700_100])


async def test_a_page_is_limited_in_bytes(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    batch(engine, ["x" * 30_000] * 40, error="ü" * 1_000)
    found = await pages(ulla_http, limit=1000)
    assert [item["index"] for page in found for item in page] == list(range(40))
    assert {len(page) for page in found[:-1]} == {6}
    assert [len(page) for page in await pages(ulla_http, limit=3)][:2] == [3, 3]


async def test_a_small_output_is_served_too(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    batch(engine, [{"exact": 2**63 + 1}, None])
    assert json.loads((await ulla_http.get(f"{ITEMS}/0/output")).content) == {"exact": 2**63 + 1}
    assert (await ulla_http.get(f"{ITEMS}/1/output")).json() is None


@pytest.mark.parametrize(
    ("path", "status"),
    [("/2/output", 404), ("/0/output?map_index=1", 404), ("/-1/output", 422), ("%00/0/output", 404)],
)
async def test_an_unknown_item_is_not_found(
    ulla_http: httpx.AsyncClient, engine: Engine, path: str, status: int
) -> None:
    batch(engine, [1])
    assert (await ulla_http.get(f"{ITEMS}{path}")).status_code == status
