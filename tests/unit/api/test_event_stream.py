"""`backend.api.event_stream` builds on private methods of sse-starlette."""

from importlib.metadata import version
from inspect import iscoroutinefunction, signature

import pytest
from sse_starlette import EventSourceResponse


@pytest.mark.parametrize(("name", "argument"), [("_stream_response", "send"), ("_listen_for_disconnect", "receive")])
def test_sse_starlette_has_the_methods_that_streams_are_sent_with(name: str, argument: str) -> None:
    method = getattr(EventSourceResponse, name, None)
    found = method and iscoroutinefunction(method) and list(signature(method).parameters)
    assert found == ["self", argument], (
        f"sse-starlette {version('sse-starlette')} has changed {name}: adapt backend/api/event_stream.py "
        "and the bound in pyproject.toml"
    )
