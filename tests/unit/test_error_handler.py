"""What kind of error something is: the errors that real clients raise against a server that misbehaves."""

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.agents.models import build_model, resolve_model
from backend.core.input_error import InputError, InputUnavailableError
from backend.core.settings import Settings
from backend.core.workflow_error_handler import FINAL, Category, classify
from tests.kit.openai_server import OpenAIServer, Preset

# What each preset of the server is, with a whole answer and with a stream; None: no error at all.
EXPECTED: dict[Preset, tuple[Category | None, Category | None]] = {
    "rate_limit": ("rate_limit", "rate_limit"),
    "quota": ("quota", "quota"),
    "auth": ("auth", "auth"),
    "forbidden": ("auth", "auth"),
    "not_found": ("bad_request", "bad_request"),
    "bad_request": ("bad_request", "bad_request"),
    "unprocessable": ("bad_request", "bad_request"),
    "context_length": ("context_length", "context_length"),
    "context_window": ("context_length", "context_length"),
    "content_filter": ("content_filter", "content_filter"),
    "content_filter_reply": (None, None),
    "refusal": (None, None),
    "length": (None, None),
    "server_error": ("server", "server"),
    "bad_gateway": ("server", "server"),
    "overloaded": ("server", "server"),
    "gateway_timeout": ("timeout", "timeout"),
    "timeout": ("timeout", "timeout"),
    "reset": ("server", "server"),
    "cut_stream": ("server", "server"),
    "ended_stream": (None, None),
    "stall_stream": ("timeout", "timeout"),
    "stream_error": (None, "server"),
    "malformed": ("server", "server"),
    "empty": ("server", "server"),
}


async def error_of(server: OpenAIServer, *, stream: bool) -> Exception | None:
    """What a model of ours raises."""
    settings = Settings(_env_file=None, openai_base_url=server.base_url, openai_api_key="test", model_timeout=0.3)
    model = build_model(resolve_model("gpt-4.1-mini", purpose="text", settings=settings), settings)
    try:
        if stream:
            async for _ in model.astream("hello"):
                pass
        else:
            await model.ainvoke("hello")
    except Exception as error:
        return error
    return None


def test_each_preset_has_an_expectation() -> None:
    from tests.kit.openai_server import PRESETS

    assert EXPECTED.keys() == PRESETS.keys()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("preset", list(EXPECTED))
async def test_errors_of_a_real_client(openai_server: OpenAIServer, preset: Preset, stream: bool) -> None:
    openai_server.script(preset)
    error = await error_of(openai_server, stream=stream)
    assert (classify(error).category if error else None) == EXPECTED[preset][stream]
    if error:
        assert classify(error).message == str(error)


@pytest.mark.parametrize("status", [408, 504])
async def test_a_status_that_means_too_late_is_a_timeout(openai_server: OpenAIServer, status: int) -> None:
    openai_server.script(status=status)
    error = await error_of(openai_server, stream=False)
    assert error is not None
    assert classify(error).category == "timeout"


async def test_the_code_wins_over_type_and_status(openai_server: OpenAIServer) -> None:
    openai_server.script(status=400, error={"message": "too fast", "type": "tokens", "code": "rate_limit_exceeded"})
    error = await error_of(openai_server, stream=False)
    assert error is not None
    assert type(error).__name__ == "OpenAIInvalidRequestError"
    assert classify(error).category == "rate_limit"


async def test_nobody_listens() -> None:
    settings = Settings(_env_file=None, openai_base_url="http://127.0.0.1:1/v1", openai_api_key="test")
    model = build_model(resolve_model("gpt-4.1-mini", purpose="text", settings=settings), settings)
    with pytest.raises(Exception, match="Connection error") as raised:
        await model.ainvoke("hello")
    found = classify(raised.value)
    assert (found.category, found.final) == ("server", False)
    assert any("ConnectError" in cause for cause in found.chain)


def caused_by(cause: BaseException, error: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def while_handling(first: BaseException, error: BaseException) -> BaseException:
    error.__context__ = first
    return error


def own_json() -> Exception:
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError


class ToolException(Exception):
    """Named as LangChain names it."""


class OutputParserException(ValueError):
    """Named as LangChain names it."""


REQUEST = httpx.Request("GET", "http://x")


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (InputError("is missing", field="text"), "input"),
        (InputUnavailableError("not now"), "server"),
        (asyncio.CancelledError(), "cancelled"),
        (TimeoutError(), "timeout"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.ConnectError("refused"), "server"),
        (httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(429, request=REQUEST)), "rate_limit"),
        (httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(502, request=REQUEST)), "server"),
        (httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(418, request=REQUEST)), "bad_request"),
        (ConnectionResetError(), "server"),
        (ToolException("no such city"), "tool"),
        (OutputParserException("not JSON"), "invalid_output"),
        (own_json(), "internal"),
        (ValueError("a bug"), "internal"),
        (KeyError("a bug"), "internal"),
        (caused_by(InputError("x"), RuntimeError("wrapped")), "input"),
        (while_handling(TimeoutError(), RuntimeError("while cleaning up")), "timeout"),
        (ExceptionGroup("several", [ConnectionResetError(), KeyError()]), "server"),
        (caused_by(ExceptionGroup("several", [InputError("x")]), RuntimeError("wrapped")), "input"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_other_errors(error: BaseException, category: Category) -> None:
    found = classify(error)
    assert found.category == category
    assert found.final is (category in FINAL)


def test_the_cause_counts_not_what_was_suppressed() -> None:
    def fail() -> None:
        try:
            raise TimeoutError
        except TimeoutError:
            raise RuntimeError("known") from None

    with pytest.raises(RuntimeError) as raised:
        fail()
    assert classify(raised.value).category == "internal"


def test_a_circle_of_causes_ends() -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    found = classify(first)
    assert (found.category, found.chain) == ("internal", ("RuntimeError: second",))


def test_what_is_told_of_an_error() -> None:
    found = classify(caused_by(ConnectionResetError("peer"), httpx.ReadError("")))
    assert (found.exception_type, found.message) == ("httpx.ReadError", "ReadError")
    assert found.chain == ("ConnectionResetError: peer",)


@pytest.mark.parametrize("error", [InputError("is bad", field="text"), InputUnavailableError("not now", field="text")])
def test_input_errors_survive_pickling(error: Any) -> None:
    """A task process hands its error on."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # made in the line itself
    assert (str(copy), copy.field, copy.message) == (str(error), "text", error.message)


def test_no_providers_library_is_imported() -> None:
    source = Path(__file__).parents[2] / "backend/core/workflow_error_handler.py"
    imports = [line for line in source.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in imports if any(name in line for name in ("openai", "langchain", "httpx"))]
