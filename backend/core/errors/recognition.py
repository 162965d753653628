"""Recognises the category of one exception.

In this order: by its type if it is one of ours, by what its message alone can tell, by the provider's error codes, by
the names of its class and base classes, by the HTTP status, by the body's class of error, and as a failed connection.

Nothing here imports a provider's library: classes are recognised by their names along the hierarchy. Messages are read
only where a provider has no code for what happened. Each phrase occurs in a recorded body among the tests.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from types import FrameType, TracebackType

from backend.core.budget import BudgetExceededError
from backend.core.errors.agent_errors import (
    AnswerBrokenOffError,
    AnswerFilteredError,
    InvalidOutputError,
    ReportedError,
    StepLimitError,
)
from backend.core.errors.category import Category
from backend.core.errors.facts import ErrorFacts, facts_of
from backend.core.errors.input_error import InputError
from backend.core.errors.retry_after import wait_asked_for, wait_until_reset
from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError

_OWN: tuple[tuple[type[BaseException], Category], ...] = (
    (InputError, "input"),
    (InvalidOutputError, "invalid_output"),
    (BudgetExceededError, "budget"),
    (StepLimitError, "budget"),
    (AnswerFilteredError, "content_filter"),
    (AnswerBrokenOffError, "server"),
    (HeldBackError, "rate_limit"),
    (CircuitOpenError, "server"),
    (asyncio.CancelledError, "cancelled"),
)

_CODES: dict[Category, tuple[str, ...]] = {
    "context_length": (
        "context_length_exceeded",
        "context_window_exceeded",
        "string_above_max_length",
        "exceed_context_size_error",  # llama.cpp
        "context_exceeded",
        "request_too_large",  # Anthropic's 413
    ),
    "quota": (
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "budget_exceeded",  # LiteLLM
        "credit_balance_too_low",
        "insufficient_credits",
        "servicequotaexceededexception",
    ),
    "content_filter": (
        "content_filter",
        "content_policy_violation",
        "responsibleaipolicyviolation",
        "invalid_prompt",  # OpenAI: flagged before it reached a model
    ),
    "auth": (
        "invalid_api_key",
        "api_key_invalid",
        "account_deactivated",
        "unsupported_country_region_territory",
        "accessdeniedexception",
        "unrecognizedclientexception",
        "expiredtokenexception",
        "unauthenticated",
        "permission_denied",
    ),
    "rate_limit": (
        "rate_limit_exceeded",
        "rate_limited",
        "ratelimitreached",
        "too_many_requests",
        "slow_down",
        "throttling_error",
        "throttlingexception",
        "toomanyrequestsexception",
        "resource_exhausted",
    ),
    "timeout": ("deadline_exceeded", "modeltimeoutexception", "request_timeout"),
    "server": (
        "server_error",
        "internal_server_error",
        "internalservererror",
        "internalserverexception",
        "service_unavailable",
        "serviceunavailable",
        "serviceunavailableexception",
        "modelerrorexception",
        "modelnotreadyexception",
        "modelstreamerrorexception",
        "unavailable",
    ),
    "invalid_output": ("tool_use_failed", "json_validate_failed"),  # Groq: the model's output is not a valid tool call
}
_BY_CODE = {code: category for category, codes in _CODES.items() for code in codes}

# An error's class in a body is more specific than the status only where it names what no status can.
_TELLING_KINDS = frozenset(_CODES["context_length"] + _CODES["quota"] + _CODES["content_filter"])
_BY_KIND: dict[str, Category] = {
    "rate_limit_error": "rate_limit",
    "tokens": "rate_limit",  # OpenAI's and Groq's limits by the minute
    "requests": "rate_limit",
    "overloaded_error": "server",
    "api_error": "server",
    "server_error": "server",
    "unavailable_error": "server",
    "internalservererror": "server",
    "timeout_error": "timeout",
    "authentication_error": "auth",
    "permission_error": "auth",
    "invalid_request_error": "bad_request",
    "not_found_error": "bad_request",
    "badrequesterror": "bad_request",
}

# Names of exception classes of LangChain, OpenAI and Anthropic, the most specific first.
_BY_CLASS: tuple[tuple[str, Category], ...] = (
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
    ("LengthFinishReasonError", "invalid_output"),  # a structured answer that was cut off by the token limit
    ("OpenAIRefusalError", "invalid_output"),
    ("ToolException", "tool"),
    ("RunCancelledError", "cancelled"),
)
_BY_STATUS: dict[int, Category] = {
    401: "auth",
    402: "quota",
    403: "auth",
    407: "auth",
    408: "timeout",
    409: "server",
    413: "context_length",
    424: "server",  # Bedrock: the model failed
    425: "server",
    429: "rate_limit",
    498: "rate_limit",  # Groq: the flexible tier has no capacity left
    504: "timeout",
    522: "timeout",  # Cloudflare could not connect in time
    524: "timeout",  # Cloudflare got no answer in time
    598: "timeout",
    599: "timeout",
}

# Connection failures of httpx, httpcore, aiohttp, requests, botocore and the providers' clients.
_TIMEOUTS = frozenset(
    {"TimeoutException", "ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout", "Timeout"}
    | {"ReadTimeoutError", "ConnectTimeoutError", "ServerTimeoutError"}
)
_CONNECTION = frozenset(
    {"APIConnectionError", "TransportError", "NetworkError", "RemoteProtocolError", "ModelConnectionError"}
    | {"ConnectionError", "EndpointConnectionError", "ClientConnectionError", "ClientPayloadError"}
    | {"ChunkedEncodingError", "ProtocolError", "gaierror"}
)
# Requests that can't be sent at all: the address has no scheme, or the key contains a line break.
_UNSENDABLE = frozenset({"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"})

# Modules that parse a provider's answer: what they can't parse is a server error.
_CLIENTS = ("openai.", "anthropic.", "ollama.", "httpx")
_PARSERS = ("pydantic", "codecs", "encodings", "json")
_READERS = frozenset(
    {"_create_chat_result", "_convert_chunk_to_generation_chunk", "_construct_lc_result_from_responses_api"}
    | {"_convert_responses_chunk_to_generation_chunk", "_make_message_chunk_from_anthropic_event", "_format_output"}
)

_NOTHING = ("No generation chunks were returned", "No generations found in stream")

_OVERFLOW = re.compile(
    r"(?i)maximum context length"  # OpenAI, and vLLM and Mistral, which have no code
    r"|prompt is too long"  # Anthropic
    r"|exceed context limit"  # Anthropic: input and max_tokens together
    r"|input tokens exceed"
    r"|exceeds? the (?:available )?context (?:size|window|length)"  # llama.cpp, Ollama
    r"|exceeds the maximum number of tokens allowed"  # Google
    r"|input is too long for requested model"  # Bedrock
    r"|max_tokens must be at least 1, got -"  # vLLM: the room that is left for the answer
    r"|ContextWindowExceededError"  # LiteLLM
    r"|context[ _-]?(?:window|length|size|limit)s?\b.{0,80}?\b(?:exceed|overflow|too (?:small|short)|reached|is only)"
    r"|(?:exceed\w*|larger than|longer than|over|beyond|overflow\w*|(?:does|do)(?: not|n't) fit)\b[^.]{0,80}?"
    r"\bcontext(?:[ _-]?(?:window|length|size|limit))?\b"
    r"|(?:input|prompt|request|messages?|conversation)\b[^.]{0,60}?\b(?:is |are )?too (?:long|large|many tokens)\b"
    r"|exceed_context|longer than the max(?:imum)?\b|range of input length should be"
    r"|\blength\b[^.]{0,40} exceeds the max(?:imum)?\b|maximum prompt length is"
    r"|too many (?:input |prompt )?tokens\b(?! per)"
    r"|(?:input|prompt|total|number of|requested)[ _]tokens?\b[^.]{0,60}?\b(?:exceed|must be (?:less|at most|<))"
    r"|exceeds?\b[^.]{0,60}?\bmax(?:imum)?[ _-]"
    r"(?:model[ _-]len|input|prompt|seq|sequence|total|context|number of tokens)"
    r"|`?inputs`? must have less than `?\d+`? tokens"  # TGI
    r"|`?inputs`? tokens \+ `?max_new_tokens`? must be"  # TGI
    r"|n_keep\b.{0,40}n_ctx|greater than the context"  # LM Studio
    r"|reduce the (?:length|size) of (?:the|your) (?:messages|prompt|input)"
    r"|request too large for"  # OpenAI and Groq: larger than the tokens per minute, so it never succeeds
)
_NO_CREDIT = re.compile(r"(?i)credit balance is too low|insufficient credits|budget has been exceeded")
_USED_UP = re.compile(
    r"(?i)insufficient (?:balance|funds|quota)|exceeded your (?:current|monthly) (?:quota|budget)"
    r"|(?:out of|no|no remaining|not enough) credits?\b|balance is (?:not enough|insufficient|negative)"
    r"|(?:monthly|spend(?:ing)?) (?:limit|cap|quota|budget)\b|quota (?:has been |is )?(?:exhausted|used up|depleted)"
    r"|(?:top up|recharge|add credits|purchase more|upgrade your plan)\b|in arrears|overdue"
)
"""No money or no quota is left, which no wait of minutes changes: unless the response asks for one."""
_DAILY = re.compile(r"(?i)per[ _-]?day|\b(?:daily|[RT]PD)\b")
_GOOGLES_DAILY = re.compile(r"PerDay")
_SHORT = 60.0
_QUOTA_STATUSES = frozenset({402, 429, None})
_BAD_KEY = re.compile(r"(?i)api key not valid")  # Google answers 400
_FILTERED = re.compile(r"(?i)content management policy")
_WORDED_STATUSES = frozenset({400, 413, 422, 429, 500})


def category_of(error: BaseException) -> Category | None:
    """The category of this exception, regardless of its causes; None if it concerns neither a model nor its input."""
    for kind, category in _OWN:
        if isinstance(error, kind):
            return category
    names = frozenset(base.__name__ for base in type(error).__mro__)
    facts = facts_of(error)
    return (
        _used_up(error, facts, names)
        or _worded(error, facts, names)
        or next((_BY_CODE[code] for code in facts.codes if code in _BY_CODE), None)
        or next((_BY_CODE[kind] for kind in facts.kinds if kind in _TELLING_KINDS), None)
        or next((category for name, category in _BY_CLASS if name in names), None)
        or (_of_status(facts.status) if facts.status is not None else None)
        or _of_kind(error, facts, names)
        or _of_connection(error, names)
    )


def never_connects(error: BaseException) -> Category | None:
    """The category of an error that keeps a request from ever being sent, however the client reports it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "auth"  # the server could not prove its identity
    return "bad_request" if any(base.__name__ in _UNSENDABLE for base in type(error).__mro__) else None


def _used_up(error: BaseException, facts: ErrorFacts, names: frozenset[str]) -> Category | None:
    """Whether a quota is used up for longer than a few retries last: that of the day, or all of it."""
    from_provider = facts.status is not None or names & {"APIError", "ResponseError"}
    if facts.status not in _QUOTA_STATUSES or not from_provider:
        return None
    message = f"{error} {facts.message}"
    if facts.status == 429 and _DAILY.search(f"{message} {facts.body}"):
        wait = wait_asked_for(facts.headers, message) or wait_until_reset(facts.headers)
        # Google asks for a wait of some seconds even when nothing is left for the day.
        in_vain = wait is None or (wait < _SHORT and _GOOGLES_DAILY.search(facts.body) is not None)
        return "quota" if in_vain else None
    named = any(code in _BY_CODE for code in facts.codes)
    return "quota" if not named and _USED_UP.search(message) and facts.wait(str(error)) is None else None


def _worded(error: BaseException, facts: ErrorFacts, names: frozenset[str]) -> Category | None:
    """What only the message of a refused request, or of an error in mid-stream, can tell."""
    if facts.status not in _WORDED_STATUSES and not (facts.status is None and names & {"APIError", "ResponseError"}):
        return None
    if any(code in _BY_CODE for code in facts.codes) and "rate_limit_exceeded" not in facts.codes:
        return None
    message = f"{error} {facts.message}"
    if _OVERFLOW.search(message):
        return "context_length"
    if _BAD_KEY.search(message):
        return "auth"
    if _NO_CREDIT.search(message):
        return "quota"
    return "content_filter" if _FILTERED.search(message) else None


def _of_status(status: int) -> Category:
    return _BY_STATUS.get(status) or ("server" if status >= 500 else "bad_request")


def _of_kind(error: BaseException, facts: ErrorFacts, names: frozenset[str]) -> Category | None:
    """By the class of error in the body, which is all there is about an error in mid-stream."""
    from_provider = names & {"APIError", "ResponseError"} or isinstance(error.args[0] if error.args else None, Mapping)
    if not from_provider:
        return None
    return next((_BY_KIND[kind] for kind in facts.kinds if kind in _BY_KIND), None)


def _of_connection(error: BaseException, names: frozenset[str]) -> Category | None:
    if (never := never_connects(error)) is not None:
        return never
    if isinstance(error, TimeoutError) or names & _TIMEOUTS:
        return "timeout"
    if isinstance(error, ConnectionError | ssl.SSLError) or names & _CONNECTION or _unreadable_answer(error, names):
        return "server"
    return None


def _unreadable_answer(error: BaseException, names: frozenset[str]) -> bool:
    """Whether a provider answered without a usable status: an error in mid-stream, broken JSON, or nothing."""
    if names & {"APIError", "ResponseError"}:
        return True
    frames = _frames(error)
    if "JSONDecodeError" in names or (frames and frames[-1][0].startswith("json")):
        # A graph may parse JSON of its own, so what counts is which module called the parser.
        reader = next((name for name, _ in reversed(frames) if not name.startswith("json")), "")
        return reader.startswith(_CLIENTS)
    if isinstance(error, UnicodeDecodeError) or "ValidationError" in names:
        reader = next((name for name, _ in reversed(frames) if not name.startswith(_PARSERS)), "")
        if reader.startswith(_CLIENTS):
            return True
    if isinstance(error, ValueError | TypeError | KeyError | AttributeError | IndexError):
        if str(error).startswith(_NOTHING):
            return True
        if isinstance(error, IndexError) and frames and frames[-1][0].startswith("langchain_core.language_models"):
            return True  # the answer has no choices
        return any(module.startswith("langchain_") and function in _READERS for module, function in frames)
    return False


def _frames(error: BaseException) -> list[tuple[str, str]]:
    """The module and the function of each frame, from the outermost to the innermost."""
    if isinstance(error, ReportedError):
        return [*error.frames]
    trace: TracebackType | None = error.__traceback__
    found = []
    while trace is not None:
        frame: FrameType = trace.tb_frame
        found.append((str(frame.f_globals.get("__name__", "")), frame.f_code.co_name))
        trace = trace.tb_next
    return found
