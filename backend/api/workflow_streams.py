"""`/workflow-status/streams`: the events of several runs over one connection."""

import re
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from sse_starlette import EventSourceResponse

from backend.api.deps import Reader, Services, wants_head
from backend.api.event_stream import EventStream
from backend.core.problems import FieldError, Invalid
from backend.services.streaming.combined import CombinedStream

router = APIRouter(prefix="/workflow-status", tags=["status"])

MOST_RUNS = 50
"""Runs of one stream. A browser's address for them stays within the 8 KiB that proxies accept, unless ids are long."""

STREAMS_DOC = {
    200: {
        "description": "Server-sent events as of `/workflow-status/stream`, and problem: a run that can't be read",
        "content": {"text/event-stream": {}},
    }
}

_CURSORS = re.compile(r"(?:\d{1,3};)?(\d{0,18}-?(?:,\d{0,18}-?)*)", re.ASCII)


@router.get("/streams", response_class=EventSourceResponse, responses=STREAMS_DOC)  # type: ignore[arg-type]  # FastAPI types the keys as a union
async def stream_several(
    request: Request,
    who: Reader,
    services: Services,
    run: Annotated[list[str], Query(min_length=1, max_length=MOST_RUNS, description="`<dag_id>/<dag_run_id>`")],
    last_event_id_header: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    last_event_id: Annotated[str | None, Query()] = None,
) -> Response:
    """The events of several runs as they happen, each as in its own stream.

    An event's `id` is `<position>;<cursor>,<cursor>,…`: the position of its run among the `run` parameters, from 0, and
    the last event of each run that the client has; empty for none, followed by `-` after `end`. With `Last-Event-ID`
    (header or query) all runs resume there; the query also takes the cursors alone. A run that doesn't exist,
    or that you may not see, is answered with a `problem` event; the others go on. The server closes the stream after
    the last `end`.
    """
    runs = [split_run(f"run {position}", text, f"?run/{position}") for position, text in enumerate(run)]
    stream = CombinedStream(services.streams, who, runs, _cursors(last_event_id_header or last_event_id, len(runs)))
    await stream.open()
    if wants_head(request):
        return Response(media_type="text/event-stream")
    return EventStream(stream)


def split_run(name: str, text: str, place: str) -> tuple[str, str]:
    """The DAG and the run in `<dag_id>/<dag_run_id>`. Raises `Invalid`, with the place of the parameter."""
    dag_id, _, dag_run_id = text.partition("/")
    if not dag_id or not dag_run_id or "\x00" in text:
        detail = "is not of the form <dag_id>/<dag_run_id>"
        raise Invalid(f"{name}: {detail}", errors=[FieldError(place, detail)])
    return dag_id, dag_run_id


def _cursors(text: str | None, runs: int) -> list[str]:
    if text is None or not text.strip():
        return [""] * runs
    found = _CURSORS.fullmatch(text.strip())
    cursors = found[1].split(",") if found else []
    if len(cursors) != runs:
        detail = f"is not an event id of this stream, which has {runs} cursors"
        raise Invalid(f"Last-Event-ID: {detail}", errors=[FieldError("?last_event_id", detail)])
    return cursors
