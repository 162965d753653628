"""What kind of error something is, and whether trying the task again can help.

Errors are recognised by type, HTTP status and the provider's error code, in this order; nothing here imports a
provider's library, so types are recognised by their names along the class hierarchy.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from backend.core.agent_errors import InvalidOutputError, StepLimitError
from backend.core.budget import BudgetExceededError
from backend.core.input_error import InputError

Category = Literal[
    "rate_limit",
    "timeout",
    "context_length",
    "server",
    "auth",
    "quota",
    "bad_request",
    "content_filter",
    "invalid_output",
    "budget",
    "tool",
    "input",
    "cancelled",
    "internal",
]

FINAL: frozenset[Category] = frozenset(
    {
        "auth",
        "quota",
        "bad_request",
        "content_filter",
        "context_length",
        "invalid_output",
        "budget",
        "input",
        "cancelled",
    }
)
"""Categories that the same request meets again: the task fails at once, whatever its `retries` say."""

# Names of exception classes, as LangChain, OpenAI and Anthropic spell them, most telling first.
_BY_TYPE: tuple[tuple[str, Category], ...] = (
    ("ContextOverflowError", "context_length"),
    ("ContentFilterFinishReasonError", "content_filter"),
    ("ModelAuthenticationError", "auth"),
    ("ModelPermissionDeniedError", "auth"),
    ("AuthenticationError", "auth"),
    ("PermissionDeniedError", "auth"),
    ("ModelRateLimitError", "rate_limit"),
    ("RateLimitError", "rate_limit"),
    ("ModelTimeoutError", "timeout"),
    ("APITimeoutError", "timeout"),
    ("OutputParserException", "invalid_output"),
    ("LengthFinishReasonError", "invalid_output"),  # a structured answer that the token limit cut off
    ("ToolException", "tool"),
    ("RunCancelledError", "cancelled"),
)
_BY_CODE: dict[str, Category] = {
    "context_length_exceeded": "context_length",
    "string_above_max_length": "context_length",
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "invalid_api_key": "auth",
    "rate_limit_exceeded": "rate_limit",
}
_BY_STATUS: dict[int, Category] = {
    400: "bad_request",
    401: "auth",
    402: "quota",
    403: "auth",
    404: "bad_request",
    408: "timeout",
    409: "server",
    413: "context_length",
    422: "bad_request",
    429: "rate_limit",
    504: "timeout",
}
# Names of connection-level failures of httpx, httpcore and the providers' clients.
_TIMEOUTS = ("TimeoutException", "ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout")
_CONNECTION = ("APIConnectionError", "TransportError", "NetworkError", "RemoteProtocolError", "ModelConnectionError")
# Modules that read a provider's answer: what they can't make sense of is the server's fault.
_CLIENTS = ("openai.", "anthropic.", "httpx")


@dataclass(frozen=True, slots=True)
class Classified:
    """What an error is. `final`: the task must not be tried again."""

    category: Category
    exception_type: str
    message: str
    final: bool
    chain: tuple[str, ...]


def classify(error: BaseException) -> Classified:
    """The category of an error, found on it or on what caused it."""
    known = getattr(error, "visual_ai_classified", None)
    if isinstance(known, Classified):  # in another process, where there was more to see
        return known
    causes = list(error_chain(error))
    telling, category = causes[0], _category(causes[0])
    for cause in causes[1:]:
        if category is None and (found := _category(cause)) is not None:
            telling, category = cause, found
    if category is None:
        telling = next((cause for cause in causes if not _is_airflows(cause)), telling)
        category = "internal"
    return Classified(
        category=category,
        exception_type=_name(type(telling)),
        message=str(telling) or type(telling).__name__,
        final=category in FINAL,
        chain=tuple(f"{_name(type(cause))}: {cause}" for cause in causes if cause is not telling),
    )


def _is_airflows(error: BaseException) -> bool:
    """Airflow's own exceptions wrap what happened, and all of them carry the status 500."""
    return any(base.__name__ == "AirflowException" for base in type(error).__mro__)


def _category(error: BaseException) -> Category | None:
    if _is_airflows(error):
        return None
    if isinstance(error, InputError):
        return "input"
    if isinstance(error, InvalidOutputError):
        return "invalid_output"
    if isinstance(error, BudgetExceededError | StepLimitError):
        return "budget"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    code = _code(error)
    if code in _BY_CODE:
        return _BY_CODE[code]
    names = {base.__name__ for base in type(error).__mro__}
    for name, category in _BY_TYPE:
        if name in names:
            return category
    status = _status(error)
    if status is not None:
        return _BY_STATUS.get(status) or ("server" if status >= 500 else "bad_request")
    if isinstance(error, TimeoutError) or names.intersection(_TIMEOUTS):
        return "timeout"
    if isinstance(error, ConnectionError) or names.intersection(_CONNECTION) or _unreadable_answer(error, names):
        return "server"
    return None


def _unreadable_answer(error: BaseException, names: set[str]) -> bool:
    """Whether a provider answered, but with no status to go by: an error in mid-stream, broken JSON, or nothing."""
    if "APIError" in names:
        return True
    if "JSONDecodeError" in names:
        # A graph may read JSON of its own: the client's is told by who read it.
        reader, frame = "", error.__traceback__
        while frame is not None:
            name = str(frame.tb_frame.f_globals.get("__name__", ""))
            reader = reader if name.startswith("json") else name
            frame = frame.tb_next
        return reader.startswith(_CLIENTS)
    return isinstance(error, ValueError) and str(error).startswith("No generation chunks were returned")


def _status(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None)
        # LangChain hangs the response also on errors that it is not the cause of.
        if isinstance(status, int) and 400 <= status < 600:
            return status
    return None


def _code(error: BaseException) -> str | None:
    code: Any = getattr(error, "code", None)
    if isinstance(code, str):
        return code
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        nested = body.get("error", body)
        code = nested.get("code") if isinstance(nested, dict) else None
    return code if isinstance(code, str) else None


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, the outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup) and current.exceptions:
            current = current.exceptions[0]
        else:
            current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
