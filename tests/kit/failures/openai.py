"""Failures of OpenAI's own servers, and the ways in which connections to any server break."""

from __future__ import annotations

from tests.kit.failures.case import EXHAUSTED, HTML, HTML_PAGE, TPM, Case, error, final, overflow, passing
from tests.kit.openai.behaviour import error_object

TOO_LARGE = (
    "Request too large for gpt-4.1-2025-04-14 (for limit gpt-4.1) in organization org-x on tokens per min (TPM): Limit "
    "30000, Requested 37313. The input or output tokens must be reduced in order to run successfully."
)
SERVER_ERROR = "The server had an error while processing your request. Sorry about that!"

OPENAI = [
    passing(
        "tokens a minute, milliseconds",
        "rate_limit",
        429,
        error(f"{TPM}, Requested 385. Please try again in 644ms.", "tokens", "rate_limit_exceeded"),
        0.644,
        headers={"retry-after-ms": "644", "retry-after": "1"},
    ),
    passing(
        "requests a minute, seconds",
        "rate_limit",
        429,
        error(
            "Rate limit reached on requests per min (RPM): Limit 3, Used 3, Requested 1.",
            "requests",
            "rate_limit_exceeded",
        ),
        20.0,
        headers={"retry-after": "20"},
    ),
    passing(
        "a date to come back at",
        "rate_limit",
        429,
        error("Too many requests", "requests", "rate_limit_exceeded"),
        30.0,
        headers={"date": "Sun, 22 Nov 2026 10:00:00 GMT", "retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"},
    ),
    passing(
        "a date that has passed",
        "rate_limit",
        429,
        error("Too many requests", "requests", "rate_limit_exceeded"),
        1.0,
        headers={"date": "Sun, 22 Nov 2026 10:00:00 GMT", "retry-after": "Sun, 22 Nov 2026 09:59:00 GMT"},
    ),
    passing(
        "the wait stands in the message only",
        "rate_limit",
        429,
        error(
            f"{TPM}, Requested 24754. Please try again in "
            "18.642s. Visit https://platform.openai.com/account/rate-limits",
            "tokens",
            "rate_limit_exceeded",
        ),
        18.642,
    ),
    passing("no advice", "rate_limit", 429, error("Rate limit reached", "requests", "rate_limit_exceeded")),
    Case(
        "a limit that stays",
        "rate_limit",
        {"status": 429, "body": error("Rate limit reached", "requests", "rate_limit_exceeded")},
        ("retry",) * 5 + ("task_retry",),
        (1.0, 2.0, 4.0, 8.0, 16.0),
        None,
    ),
    Case(
        "the server asks not to retry",
        "rate_limit",
        {
            "status": 429,
            "body": error("Rate limit reached", "requests", "rate_limit_exceeded"),
            "headers": {"x-should-retry": "false"},
        },
        ("task_retry",),
        (),
        None,
    ),
    Case(
        "ten minutes",
        "rate_limit",
        {
            "status": 429,
            "body": error("Rate limit reached", "requests", "rate_limit_exceeded"),
            "headers": {"retry-after": "600"},
        },
        ("reschedule",),
        (),
        None,
    ),
    Case(
        "a month",
        "rate_limit",
        {
            "status": 429,
            "body": error("Rate limit reached", "requests", "rate_limit_exceeded"),
            "headers": {"retry-after": "2592000"},
        },
        ("task_retry",),
        (),
        None,
    ),
    overflow("alone more than a minute's tokens", 429, error(TOO_LARGE, "tokens", "rate_limit_exceeded")),
    final(
        "quota",
        "quota",
        429,
        error(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
    ),
    final(
        "billing limit",
        "quota",
        400,
        error("Billing hard limit has been reached", "invalid_request_error", "billing_hard_limit_reached"),
    ),
    final(
        "wrong key",
        "auth",
        401,
        error(
            "Incorrect API key provided: sk-proj-****. You can find your API key at "
            "https://platform.openai.com/account/api-keys.",
            "invalid_request_error",
            "invalid_api_key",
        ),
    ),
    final(
        "closed account",
        "auth",
        401,
        error(
            "The OpenAI account associated with this API key has been deactivated.",
            "invalid_request_error",
            "account_deactivated",
        ),
    ),
    final(
        "wrong country",
        "auth",
        403,
        error(
            "Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"
        ),
    ),
    final(
        "no access to the model",
        "auth",
        403,
        error(
            "Project `proj_x` does not have access to model `gpt-4.1-mini`", "invalid_request_error", "model_not_found"
        ),
    ),
    final(
        "no such model",
        "bad_request",
        404,
        error(
            "The model `gpt-9` does not exist or you do not have access to it.",
            "invalid_request_error",
            "model_not_found",
        ),
    ),
    final(
        "wrong parameter",
        "bad_request",
        400,
        error(
            "Invalid 'temperature': decimal above maximum value.", "invalid_request_error", "decimal_above_max_value"
        ),
    ),
    final("unprocessable", "bad_request", 422, error("Unprocessable", "invalid_request_error")),
    overflow(
        "context length",
        400,
        error(
            "This model's maximum context length is 128000 tokens. However, your messages "
            "resulted in 142012 tokens. Please reduce the length of the messages.",
            "invalid_request_error",
            "context_length_exceeded",
        ),
    ),
    overflow(
        "configured limit",
        400,
        error(
            "Input tokens exceed the configured limit of 272000 tokens. Your messages "
            "resulted in 300012 tokens. Please reduce the length of the messages.",
            "invalid_request_error",
            "context_length_exceeded",
        ),
    ),
    final(
        "content policy",
        "content_filter",
        400,
        error(
            "Your request was rejected as a result of our safety system.",
            "invalid_request_error",
            "content_policy_violation",
        ),
    ),
    final(
        "flagged prompt",
        "content_filter",
        400,
        error(
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
            "invalid_request_error",
            "invalid_prompt",
        ),
    ),
    Case(
        "filtered answer",
        "content_filter",
        {"content": "I can", "finish_reason": "content_filter"},
        ("fail",),
        (),
        None,
    ),
    passing("server error", "server", 500, error(SERVER_ERROR, "server_error")),
    Case(
        "a server that stays broken",
        "server",
        {"status": 500, "body": error(SERVER_ERROR, "server_error")},
        EXHAUSTED,
        (1.0, 2.0, 4.0, 0.0, 1.0, 2.0, 4.0),
        None,
    ),
    Case(
        "a server that another model has not",
        "server",
        {"status": 500, "body": error(SERVER_ERROR, "server_error"), "model": "gpt-4.1-mini"},
        EXHAUSTED[:4],
        (1.0, 2.0, 4.0, 0.0),
        None,
    ),
    passing(
        "overloaded",
        "server",
        503,
        error("The engine is currently overloaded, please try again later", "server_error"),
        7.0,
        headers={"retry-after": "7"},
    ),
    Case(
        "down for long",
        "server",
        {"status": 503, "body": error("Maintenance"), "headers": {"retry-after": "900"}, "model": "gpt-4.1-mini"},
        ("fallback",),
        (0.0,),
        None,
    ),
    passing("slow down", "rate_limit", 503, error("Slow down", "server_error", "slow_down")),
    passing("bad gateway", "server", 502, HTML_PAGE.format("502 Bad Gateway"), headers=HTML),
    passing("gateway time-out", "timeout", 504, HTML_PAGE.format("504 Gateway Time-out"), 0.5, headers=HTML),
    passing("request timeout", "timeout", 408, error("Request timed out"), 0.5),
    passing("conflict", "server", 409, error("The resource is locked")),
    passing("unknown error of a proxy", "server", 520, HTML_PAGE.format("520"), headers=HTML),
    passing("a proxy can't connect", "timeout", 522, HTML_PAGE.format("522: Connection timed out"), 0.5, headers=HTML),
    passing("a proxy gets no answer", "timeout", 524, HTML_PAGE.format("524: A timeout occurred"), 0.5, headers=HTML),
]

BROKEN = [
    Case("error in mid-stream", "server", {"error_after": 3}),
    Case(
        "limit in mid-stream",
        "rate_limit",
        {
            "error_after": 2,
            "error": error_object(f"{TPM}, Requested 999. Please try again in 1.5s.", "tokens", "rate_limit_exceeded"),
        },
        waits=(1.5,),
    ),
    Case("cut stream", "server", {"cut_after": 3}),
    Case("stream that ends in order", "server", {"end_after": 3}),
    Case("stalled stream", "timeout", {"stall_after": 3}, waits=(0.5,), timeout=1.0),
    Case("broken event", "server", {"malformed": True}),
    Case("empty stream", "server", {"body": ""}),
    Case("reset", "server", {"reset": True}),
    Case("silence", "timeout", {"hang": True}, waits=(0.5,), timeout=1.0),
    Case(
        "lasting silence",
        "timeout",
        {"hang": True},
        ("retry",) * 3 + ("task_retry",),
        (0.5, 1.0, 2.0),
        None,
        timeout=0.8,
    ),
    Case("empty body", "server", {"body": ""}, whole=True),
    Case("half a body", "server", {"malformed": True}, whole=True),
    Case("cut body", "server", {"cut_after": 0}, whole=True),
    Case("a page instead of an answer", "server", {"body": HTML_PAGE.format("Log in"), "headers": HTML}, whole=True),
    Case("no choices", "server", {"body": {"id": "x", "object": "chat.completion", "choices": None}}, whole=True),
    Case("choices of nothing", "server", {"body": {"id": "x", "object": "chat.completion", "choices": []}}, whole=True),
    Case(
        "nobody listens",
        "server",
        actions=EXHAUSTED,
        waits=(1.0, 2.0, 4.0, 0.0, 1.0, 2.0, 4.0),
        address="http://127.0.0.1:1/v1",
    ),
    Case(
        "no such host",
        "server",
        actions=EXHAUSTED,
        waits=(1.0, 2.0, 4.0, 0.0, 1.0, 2.0, 4.0),
        address="http://models.invalid/v1",
    ),
    Case(
        "TLS where there is none",
        "server",
        actions=EXHAUSTED,
        waits=(1.0, 2.0, 4.0, 0.0, 1.0, 2.0, 4.0),
        address="https://{server}/v1",
    ),
    Case("a certificate nobody trusts", "auth", actions=("fail",), waits=(), address="https://{tls}/v1"),
    Case("an address without a scheme", "bad_request", actions=("fail",), waits=(), address="models.example.com/v1"),
    Case("a key with a line break", "bad_request", actions=("fail",), waits=(), key="test\nkey"),
]
