"""Values and errors that pass between a task and a project's process."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.errors import GraphRecursionError
from langgraph.types import Send
from pydantic import BaseModel

from backend.checkpoints.state_serializer import NotKeptError
from backend.core.budget import BudgetExceededError
from backend.core.errors.classify import classify
from backend.core.exact_json import NoJsonFormError, to_json
from backend.runtime.remote.errors import Tickets
from langgraph_flow_host import REQUIREMENTS
from langgraph_flow_host.errors import NotKeptError as TheirNotKeptError
from langgraph_flow_host.errors import describe, refused
from langgraph_flow_host.wire import Opaque, Serialized, pack, unpack

ROOT = Path(__file__).parents[3]


class Place(BaseModel):
    city: str


@dataclass
class Note:
    text: str


class Handle:
    """Of what only its process knows."""


def there(value: Any) -> Any:
    return unpack(pack(value))


def test_the_packages_requirements_are_those_of_its_pyproject() -> None:
    content = tomllib.loads((ROOT / "project_host" / "pyproject.toml").read_text())
    assert tuple(content["project"]["dependencies"]) == REQUIREMENTS


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ({"a": [1, 2.5, None, True, "ü"], 3: b"x"}, {"a": [1, 2.5, None, True, "ü"], 3: b"x"}),
        ((1, {2}), [1, [2]]),
        (2**70, 2**70),
        (Place(city="Bristol"), {"city": "Bristol"}),
        (Note("n"), {"text": "n"}),
        (datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00+00:00"),
        (Send("node", {"x": 1}), {"node": "node", "arg": {"x": 1}}),
        ("half \ud83d", "half ?"),
    ],
)
def test_a_value_arrives_as_plain_data(value: Any, arrives: Any) -> None:
    found = there(value)
    assert (found if not isinstance(value, Send) else {key: found[key] for key in arrives}) == arrives


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage("Hello", id="1"),
        AIMessage("", tool_calls=[{"name": "look", "args": {"at": 1}, "id": "c"}]),
        ToolMessage("done", tool_call_id="c", artifact=Note("kept")),
    ],
)
def test_messages_stay_messages(message: Any) -> None:
    found = there({"messages": [message]})["messages"][0]
    assert type(found) is type(message)
    assert (found.content, found.id) == (message.content, message.id)
    assert getattr(found, "tool_calls", None) == getattr(message, "tool_calls", None)


def test_what_has_no_form_arrives_by_its_name_and_is_no_json() -> None:
    found = there(Handle())
    assert isinstance(found, Opaque)
    with pytest.raises(NoJsonFormError, match="Handle"):
        to_json({"handle": found})


def test_serialized_values_are_passed_on() -> None:
    found = there({"v": Serialized("msgpack", b"\x01")})["v"]
    assert (found.kind, found.data) == ("msgpack", b"\x01")


def response(status: int, body: Any, **headers: str) -> httpx.Response:
    request = httpx.Request("POST", "https://example.com")
    return httpx.Response(status, json=body, headers=headers, request=request)


def rate_limited() -> Exception:
    body = {"error": {"message": "Slow down.", "code": "rate_limit_exceeded", "type": "tokens"}}
    return openai.RateLimitError("429", response=response(429, body, **{"retry-after": "7"}), body=body["error"])  # type: ignore[arg-type]  # the client's own httpx


def nested() -> Exception:
    try:
        try:
            raise TimeoutError("no answer")
        except TimeoutError as error:
            raise RuntimeError("the node failed") from error
    except RuntimeError as error:
        return error


def undecodable() -> Exception:
    try:
        b"\xff".decode()
    except UnicodeDecodeError as error:
        return error
    raise AssertionError


def unparsable() -> Exception:
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "make", [rate_limited, nested, undecodable, unparsable, lambda: KeyError("name"), lambda: Exception("plain")]
)
def test_an_error_is_classified_as_where_it_was_raised(make: Callable[[], Exception]) -> None:
    error = make()
    found = Tickets().unpacked(there(describe(error)))
    assert classify(found) == classify(error)
    assert str(found) == str(error)


def test_what_a_server_asks_to_wait_arrives() -> None:
    from backend.core.errors.facts import facts_of

    found = Tickets().unpacked(there(describe(rate_limited())))
    assert facts_of(found).wait() == 7
    assert facts_of(found).status == 429


def test_errors_that_the_task_knows_are_its_own() -> None:
    tickets = Tickets()
    own = BudgetExceededError("no more")
    raised = refused(there(tickets.packed(own)))
    try:
        raise RuntimeError("the agent gave up") from raised
    except RuntimeError as error:
        found = tickets.unpacked(there(describe(error)))
    assert found.__cause__ is own
    assert classify(found).category == "budget"
    assert tickets.unpacked(there(describe(raised))) is own
    assert isinstance(tickets.unpacked(there(describe(GraphRecursionError("too far")))), GraphRecursionError)
    kept = tickets.unpacked(there(describe(TheirNotKeptError(["loop", "handle"], "can't be kept"))))
    assert isinstance(kept, NotKeptError)
    assert (kept.path, kept.source) == (("handle",), "loop")


def test_an_attribute_that_raises_is_left_out() -> None:
    class UnreadError(Exception):
        response = SimpleNamespace(status_code=500, headers={"x-request-id": "r"})

        @property
        def body(self) -> Any:
            raise RuntimeError("unread")

    assert classify(Tickets().unpacked(there(describe(UnreadError("broken"))))).category == "server"
