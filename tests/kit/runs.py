"""Runs as a client of the backend sees them: start, follow to the end, look up."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import connect_sse


@dataclass(frozen=True)
class Event:
    """One event of a stream; `seq` is its id."""

    seq: int | None
    type: str
    data: dict[str, Any]


def upload(backend: httpx.Client, content: bytes, name: str = "picture.png") -> str:
    """Upload a picture and return its `image_url`."""
    answer = backend.post("/images", files={"file": (name, content)})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return str(answer.json()["image_url"])


def trigger(backend: httpx.Client, dag_id: str, input_data: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Start a run and return the response; the trigger must be accepted."""
    answer = backend.post("/workflows/trigger", json={"dag_id": dag_id, "input_data": dict(input_data), **more})
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    accepted: dict[str, Any] = answer.json()
    return accepted


def events(backend: httpx.Client, url: str, *, after: int | None = None) -> Iterator[Event]:
    """The events of a stream until the server closes it. Raises httpx's errors if the connection breaks."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with connect_sse(backend, "GET", url, headers=headers, timeout=httpx.Timeout(30, read=30)) as source:
        assert source.response.status_code == httpx.codes.OK, source.response.status_code
        for sse in source.iter_sse():
            # httpx-sse keeps the last id; an event that has none of its own repeats it.
            yield Event(int(sse.id) if sse.id else None, sse.event, json.loads(sse.data))


def follow(backend: httpx.Client, accepted: Mapping[str, Any]) -> list[Event]:
    """All events of a run, from its start to its end."""
    found = list(events(backend, accepted["stream_url"], after=0))
    assert found, "the stream was empty"
    return found


def snapshot(backend: httpx.Client, run: Mapping[str, Any]) -> dict[str, Any]:
    """The current snapshot of the run."""
    answer = backend.get(f"/workflow-status/{run['dag_id']}/{run['dag_run_id']}")
    assert answer.status_code == httpx.codes.OK, answer.text
    found: dict[str, Any] = answer.json()
    return found


def of_type(found: Sequence[Event], kind: str) -> list[dict[str, Any]]:
    """The data of all events of one type."""
    return [event.data for event in found if event.type == kind]


def latest(found: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> dict[Any, dict[str, Any]]:
    """The last item with each key."""
    return {key(data): data for data in found}


def check_order(found: Sequence[Event]) -> None:
    """Check what the contract promises of a whole stream: ids from 1 without gaps, rising progress, one `end`."""
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    progress = [data["progress"] for data in of_type(found, "workflow_update")]
    assert progress == sorted(progress)
    assert [event.type for event in found].count("end") == 1
    assert found[-1].type == "end"
    assert found[-1].data == {"state": of_type(found, "workflow_update")[-1]["state"]}
