"""Every kind of value is kept exactly, or refused with its place; Airflow's own serializer agrees."""

import json
from typing import Any

import msgspec
import pytest
from airflow.sdk.serde import deserialize, serialize

from backend.core.exact_json import NoJsonFormError, SizeLimit, fingerprint_text, to_json
from backend.core.jsonable import Path, dumps
from backend.core.problems import pointer
from backend.core.redaction import redact
from tests.kit.value_kinds import KINDS, Model

SURVIVE = [name for name, kind in KINDS.items() if kind.refused is None]
REFUSED = [name for name, kind in KINDS.items() if kind.refused is not None]


@pytest.mark.parametrize("name", SURVIVE)
def test_what_survives_passes_through_airflow_unchanged(name: str) -> None:
    converted = to_json({"output": KINDS[name].make()}, for_xcom=True)
    assert converted == {"output": KINDS[name].output}
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(serialize(converted)))
    assert deserialize(sent) == json.loads(dumps(converted)) == converted


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name: str) -> None:
    place, words = KINDS[name].refused or ("", "")
    with pytest.raises(NoJsonFormError) as caught:
        to_json(KINDS[name].make(), for_xcom=True)
    assert pointer(*caught.value.path).startswith(place)
    assert words in caught.value.fault


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_can_be_recorded_and_compared(name: str) -> None:
    value = KINDS[name].make()
    excerpt = dumps({"input": redact(value, limit=20_000)})
    assert len(excerpt.encode()) < 2_000_000
    json.loads(excerpt)
    assert fingerprint_text(value).encode()
    assert dumps(redact(value))


@pytest.mark.parametrize(
    ("value", "nulled"),
    [
        (float("nan"), [()]),
        ({"a": [1.0, float("nan")], "b": float("nan")}, [("a", 1), ("b",)]),
        (Model(part=[float("nan")]), [("part", 0)]),
        ([1.0], []),
    ],
)
def test_each_nan_that_became_null_is_reported(value: Any, nulled: list[Path]) -> None:
    found: list[Path] = []
    to_json(value, found)
    assert found == nulled


def test_reserved_keys_matter_in_xcoms_only() -> None:
    assert to_json({"__classname__": 1, "__type": 2, "__var": 3}) == {"__classname__": 1, "__type": 2, "__var": 3}
    assert to_json({"__type": 2}, for_xcom=True) == {"__type": 2}


@pytest.mark.parametrize("value", ["x" * 1_000_001, "ä" * 500_001, range(10**12), [["x" * 100_000] * 11]])
def test_what_is_too_large_is_refused_before_it_fills_the_memory(value: Any) -> None:
    with pytest.raises(NoJsonFormError, match="more than 1,000,000 bytes, the limit of THE_SETTING; store") as caught:
        to_json({"a": value}, limit=SizeLimit(1_000_000, "THE_SETTING"))
    assert caught.value.path == ("a",)


def test_arrays_differ_in_what_their_texts_leave_out() -> None:
    import numpy as np

    other = np.arange(5000)
    other[2500] = 0
    assert fingerprint_text(np.arange(5000)) == fingerprint_text(list(range(5000)))
    assert fingerprint_text(np.arange(5000)) != fingerprint_text(other)
