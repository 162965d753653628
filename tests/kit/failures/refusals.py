"""Responses that refuse a request, each with the category of its error and what follows from it.

Unlike the cases of one provider, these come from whoever speaks OpenAI's protocol, in words of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.core.workflow_error_handler import Category
from tests.kit.failures.case import TPM, error, google, vllm

Next = Literal["retry", "reschedule", "fallback", "fail", "task_retry"]
SSE = {"content-type": "text/event-stream"}
WINDOW = 1_000_000
"""The context window of gpt-4.1-mini in the price table."""


@dataclass(frozen=True)
class Refusal:
    """A response, the category, what follows, and the wait before it in seconds; None: not the server's to say."""

    name: str
    status: int
    body: Any
    category: Category
    follows: Next
    wait: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"

    def __str__(self) -> str:
        return self.name


def says(name: str, message: str, category: Category = "context_length", status: int = 400) -> Refusal:
    """A refusal in words alone."""
    return Refusal(name, status, error(message), category, "fallback" if category == "context_length" else "fail")


def limited(name: str, wait: float | None, headers: Mapping[str, str] | None = None, body: Any = None) -> Refusal:
    """A rate limit, without a code."""
    follows: Next = "reschedule" if wait is not None and wait > 60 else "retry"
    return Refusal(name, 429, body or error("Too many requests."), "rate_limit", follows, wait, headers or {})


def used_up(name: str, body: Any, status: int = 429, **more: Any) -> Refusal:
    """A quota that no retry brings back."""
    return Refusal(name, status, body, "quota", "fail", **more)


def broken(name: str, body: str, encoding: str = "utf-8") -> Refusal:
    """A stream that can't be read."""
    return Refusal(name, 200, body, "server", "retry", None, SSE, encoding)


def stream(*data: str) -> str:
    return "".join(f"data: {piece}\n\n" for piece in data) + "data: [DONE]\n\n"


def delta(content: str) -> str:
    return f'{{"id":"1","choices":[{{"index":0,"delta":{{"content":{content}}},"finish_reason":null}}]}}'


PER_DAY = {"@type": "type.googleapis.com/google.rpc.QuotaFailure",
           "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}  # fmt: skip
PER_MINUTE = {"@type": "type.googleapis.com/google.rpc.QuotaFailure",
              "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}  # fmt: skip
SOON = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
PLAN = "You exceeded your current quota, please check your plan and billing details."

REFUSALS = [
    # Numbers beyond the window, in words that nobody has listed
    says("numbers: German", "Die Eingabe umfasst 1200000 Token, erlaubt sind 1047576."),
    says("numbers: Chinese", "输入长度 1200000 超过了限制"),
    says("numbers: with commas", "Got 1,200,000; 1,047,576 is all there is."),
    says("numbers: with dots", "Recibidos 1.200.000, admitidos 1.047.576."),
    says("numbers: alone", "1200000 > 1047576"),
    says("numbers: with a status 422", "n_tokens=1200000 n_max=1047576", status=422),
    says("numbers: within the window", "The value 200000 is not allowed here.", "bad_request"),
    says("numbers: the answer's limit", "max_tokens is too large: 2000000. This model supports at most 32768 "
         "completion tokens.", "bad_request"),
    says("numbers: a size", "The image has 20000000 bytes; 10485760 bytes are allowed.", "bad_request"),
    says("numbers: megabytes", "The file has 1200000 KB.", "bad_request"),
    says("numbers: a date", "Request at 1795341630123 has an invalid parameter.", "bad_request"),
    says("numbers: an id", "Unknown parameter in request req_1200000.", "bad_request"),
    says("words: vLLM", "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."),
    Refusal("words: vLLM's body", 400, vllm("The prompt is longer than the maximum model length of 32768.",
            "BadRequestError", 400), "context_length", "fallback"),
    # Waits
    limited("reset: seconds", 12, {"x-ratelimit-reset-requests": "12"}),
    limited("reset: a duration", 90, {"x-ratelimit-reset-requests": "1m30s"}),
    limited("reset: hours", 3_780, {"x-ratelimit-reset-tokens": "1h3m"}),
    limited("reset: milliseconds", 0.006, {"x-ratelimit-reset-requests": "6ms",
                                           "x-ratelimit-remaining-requests": "0"}),
    limited("reset: far from used up", None, {"x-ratelimit-reset-requests": "6ms"}),
    limited("reset: in the past", None, {"x-ratelimit-reset-requests": "2020-01-01T00:00:00Z"}),
    limited("reset: nonsense", None, {"x-ratelimit-reset-requests": "soon"}),
    limited("reset: Retry-After wins", 3, {"x-ratelimit-reset-requests": "1m30s", "retry-after": "3"}),
    limited("Retry-After: a duration", 3, {"retry-after": "3s"}),
    limited("Retry-After: a long duration", 90, {"retry-after": "1m30s"}),
    limited("Retry-After: milliseconds", 1.5, {"retry-after-ms": "1500"}),
    limited("Retry-After: nonsense", None, {"retry-after": "soon"}),
    limited("body: Google's retryDelay", 34, None, google(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", SOON)),
    limited("body: Google's, in an object", 34, None, google(429, "RESOURCE_EXHAUSTED", "No.", SOON)[0]),
    limited("body: Google's plan, per minute", 34, None, google(429, "RESOURCE_EXHAUSTED", PLAN, PER_MINUTE, SOON)),
    limited("body: printed", 34, None, error("429 Quota exceeded. retry_delay {\n  seconds: 34\n}")),
    limited("body: retry_delay", 34, None, {"error": {"message": "No.", "retry_delay": {"seconds": 34}}}),
    limited("body: retry_after", 7, None, {"message": "You are being rate limited.", "retry_after": 7}),
    limited("words: seconds", 20, None, error("Please wait 20 seconds.")),
    limited("words: minutes", 120, None, error("Please try again in 2 minutes.")),
    limited("words: OpenAI's", 8.64, None, error(f"{TPM}. Please try again in 8.64s.")),
    Refusal("a server error has no such wait", 500, error("Oops."), "server", "retry", None,
            {"x-ratelimit-reset-requests": "1m30s"}),
    # Quotas
    used_up("quota: by its code", error(PLAN, "insufficient_quota", "insufficient_quota")),
    used_up("quota: by its code, whatever the wait", error(PLAN, "insufficient_quota", "insufficient_quota"),
            headers={"retry-after": "3"}),
    used_up("quota: by its type", error(PLAN, "insufficient_quota")),
    used_up("quota: in words", error(PLAN)),
    used_up("quota: balance", error("Insufficient balance"), 402),
    used_up("quota: balance, with 429", error("Your account has insufficient balance. Please top up.")),
    used_up("quota: the month's", error("Monthly limit reached.")),
    used_up("quota: the day's", error("Rate limit exceeded: free-models-per-day.")),
    used_up("quota: the day's, in words", error("You have reached your daily limit.")),
    used_up("quota: Google's day", google(429, "RESOURCE_EXHAUSTED", PLAN, PER_DAY)),
    used_up("quota: Google's day with a wait in vain", google(429, "RESOURCE_EXHAUSTED", PLAN, PER_DAY, SOON)),
    limited("quota: the day's, with a wait", 432, None,
            error("Rate limit reached on requests per day (RPD): Limit 200, Used 200. Please try again in 7m12s.",
                  "requests", "rate_limit_exceeded")),
    limited("quota: the day's, with a reset", 7_200, {"x-ratelimit-reset-requests": "2h"}, error("Daily limit.")),
    # What can't be read
    broken("stream: an empty line", stream(delta('"a"'), "")),
    broken("stream: only an empty line", "data:\n\n"),
    broken("stream: a number", stream(delta("5"))),
    broken("stream: a truth value", stream(delta("true"))),
    broken("stream: an object", stream(delta('{"a": 1}'))),
    broken("stream: a list of numbers", stream(delta("[5]"))),
    broken("stream: null", stream("null")),
    broken("stream: half", stream('{"choices":[{')),
    broken("stream: no UTF-8", stream(delta('"ÿþ"')), "latin-1"),
    broken("stream: thousands of lists", stream("[" * 20_000)),
    broken("stream: a number of 5,000 digits", stream(delta("9" * 5_000))),
    broken("stream: an error beside choices",
           stream('{"choices":[{"index":0,"delta":{},"finish_reason":"error"}],"error":{"message":"No.","code":502}}')),
]  # fmt: skip
