"""What kind of error something is: the errors that real clients raise against a server that misbehaves."""

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.core.errors.agent_errors import AnswerBrokenOffError, AnswerFilteredError
from backend.core.errors.input_error import InputError, InputUnavailableError
from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError
from backend.core.settings import Settings
from backend.core.workflow_error_handler import FINAL, Category, classify, facts_of, wait_asked_for
from backend.models.resolve import build_model, resolve_model
from tests.kit.openai.server import OpenAIServer, Preset

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
    """The error that a built-in model raises."""
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
    from tests.kit.openai.server import PRESETS

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


async def test_the_error_in_a_list_that_googles_compatible_server_sends(openai_server: OpenAIServer) -> None:
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "53s"}
    exhausted = {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED", "details": [delay]}
    openai_server.script(status=429, body=[{"error": exhausted}])
    error = await error_of(openai_server, stream=False)
    assert error is not None
    facts = facts_of(error)
    assert (facts.codes, facts.message, facts.advised_wait) == (("resource_exhausted",), "Quota exceeded.", 53)
    assert classify(error).category == "rate_limit"
    bad_key = {"code": 400, "message": "No.", "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}
    openai_server.script(status=400, body=[{"error": bad_key}])
    error = await error_of(openai_server, stream=True)
    assert error is not None
    assert classify(error).category == "auth"


async def test_a_refused_connection_is_a_server_error() -> None:
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
    """Has the name of LangChain's class."""


class OutputParserException(ValueError):
    """Has the name of LangChain's class."""


REQUEST = httpx.Request("GET", "http://x")


class ClientError(Exception):
    """As Google's and Amazon's clients define it, with attributes of its own."""

    def __init__(self, text: str = "", **attributes: Any) -> None:
        super().__init__(text)
        self.__dict__.update(attributes)


def google(code: int, status: str, message: str, *details: Any) -> ClientError:
    """An error of google-genai."""
    body = {"error": {"code": code, "message": message, "status": status, "details": list(details)}}
    return ClientError(f"{code} {status}. {message}", code=code, status=status, message=message, details=body)


def amazon(code: str, message: str, status: int) -> ClientError:
    """An error of botocore."""
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {"x-amzn-requestid": "r", "retry-after": "4"}},
    }
    return ClientError(f"An error occurred ({code}) when calling the Converse operation: {message}", response=response)


class Unreadable(Exception):
    """An error whose attributes can't be read."""

    @property
    def code(self) -> str:
        raise RuntimeError("not now")

    body = response = details = code


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
        (HeldBackError(3.0), "rate_limit"),
        (CircuitOpenError(3.0), "server"),
        (AnswerFilteredError(), "content_filter"),
        (AnswerBrokenOffError(), "server"),
        (google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota."), "rate_limit"),
        (google(503, "UNAVAILABLE", "The model is overloaded."), "server"),
        (google(504, "DEADLINE_EXCEEDED", "Deadline expired."), "timeout"),
        (google(403, "PERMISSION_DENIED", "No."), "auth"),
        (google(400, "INVALID_ARGUMENT", "API key not valid.", {"reason": "API_KEY_INVALID"}), "auth"),
        (
            google(
                400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."
            ),
            "context_length",
        ),
        (google(400, "INVALID_ARGUMENT", "Invalid value at 'contents'."), "bad_request"),
        (amazon("ThrottlingException", "Too many requests", 429), "rate_limit"),
        (amazon("ServiceQuotaExceededException", "Quota", 400), "quota"),
        (amazon("AccessDeniedException", "You don't have access to the model.", 403), "auth"),
        (amazon("ExpiredTokenException", "The security token is expired", 400), "auth"),
        (amazon("ValidationException", "Input is too long for requested model.", 400), "context_length"),
        (amazon("ValidationException", "Malformed input request", 400), "bad_request"),
        (amazon("ModelTimeoutException", "Too slow", 408), "timeout"),
        (amazon("ModelErrorException", "The model failed", 424), "server"),
        (amazon("ServiceUnavailableException", "Not now", 503), "server"),
        (ValueError({"message": "Provider returned error", "code": 429}), "rate_limit"),
        (ValueError("prompt is too long"), "internal"),  # words count in a provider's answer alone
        (Unreadable("what now"), "internal"),
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


def test_advised_waits_and_request_ids_of_other_clients() -> None:
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "53s"}
    assert facts_of(google(429, "RESOURCE_EXHAUSTED", "Quota.", delay)).advised_wait == 53
    facts = facts_of(amazon("ThrottlingException", "Too many requests", 429))
    assert (facts.status, facts.request_id, facts.message) == (429, "r", "Too many requests")
    assert wait_asked_for(facts.headers) == 4


def test_a_suppressed_context_does_not_count() -> None:
    def fail() -> None:
        try:
            raise TimeoutError
        except TimeoutError:
            raise RuntimeError("known") from None

    with pytest.raises(RuntimeError) as raised:
        fail()
    assert classify(raised.value).category == "internal"


def test_circular_causes_are_followed_once() -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    found = classify(first)
    assert (found.category, found.chain) == ("internal", ("RuntimeError: second",))


def test_type_message_and_chain_of_an_error() -> None:
    found = classify(caused_by(ConnectionResetError("peer"), httpx.ReadError("")))
    assert (found.exception_type, found.message) == ("httpx.ReadError", "ReadError")
    assert found.chain == ("ConnectionResetError: peer",)


@pytest.mark.parametrize("error", [InputError("is bad", field="text"), InputUnavailableError("not now", field="text")])
def test_input_errors_survive_pickling(error: Any) -> None:
    """A task's process pickles its error."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # made in the line itself
    assert (str(copy), copy.field, copy.message) == (str(error), "text", error.message)


def test_no_providers_library_is_imported() -> None:
    for source in (Path(__file__).parents[3] / "backend/core").rglob("*.py"):
        imports = [line.split() for line in source.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert not {words[1].partition(".")[0] for words in imports} & {
            "openai",
            "anthropic",
            "langchain_core",
            "httpx",
        }
