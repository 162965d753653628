"""How long providers ask to wait, in headers and in words."""

from datetime import UTC, datetime

import pytest

from backend.core.errors.facts import tokens_refused
from backend.core.errors.retry_after import wait_asked_for, wait_in_body, wait_until_reset

NOW = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "3s"}, 3),
        ({"retry-after": "1m30s"}, 90),
        ({"retry-after": "250ms"}, 0.25),
        ({"retry-after": "2 minutes"}, 120),
        ({"retry-after": "1 h, 5 min and 3 s"}, 3_903),
        ({"retry-after": "2026-11-22T10:00:30Z"}, 30),
        ({"retry-after": "1795341630"}, 30),  # a moment, which nobody can mean as a wait of 57 years
        ({"retry-after": "3 apples"}, None),
        ({"retry-after": "0s"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"}, 30),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:20 GMT"}, 10),
        ({"retry-after": "Sunday, 22-Nov-26 10:00:30 GMT"}, 30),  # RFC 850, which RFC 9110 still allows
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_asked_for(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Limit 30000, Used 29937, Requested 385. Please try again in 644ms.", 0.644),
        ("Please try again in 18.642s. Visit https://platform.openai.com", 18.642),
        ("Please try again in 8m38.4s.", 518.4),
        ("Please try again in 1h2m3s.", 3723),
        ("Please try again in 6m0s.", 360),
        ("limit of your current OpenAI S0 pricing tier. Please retry after 86400 seconds.", 86_400),
        ("Please retry in 53.016342224s.", 53.016342224),
        ("Please wait 20 seconds before you try again.", 20),
        ("Please wait for 2 minutes.", 120),
        ("Your limit resets in 3h 20m.", 12_000),
        ("Retry after 20.", 20),
        ("Please try again in 1 hour and 5 minutes", 3_900),
        ("Try again at 2026-11-22T10:05:00Z.", 300),
        ("Your quota renews on 2026-11-22 11:00 UTC", 3_600),
        ("429 Quota exceeded. [violations { } , retry_delay {\n  seconds: 34\n}\n]", 34),
        ('got status 429: {"retryDelay": "34s"}', 34),
        ("Please retry after 5 failed attempts.", None),
        ("It was available for 3 users.", None),
        ("Please try again later.", None),
        ("The engine is currently overloaded, please try again in a moment", None),
        ("try again in 0s", None),
        ("", None),
    ],
)
def test_words(message: str, seconds: float | None) -> None:
    assert wait_asked_for({}, message, now=NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "12"}, 12),
        ({"x-ratelimit-reset-requests": "1m30s"}, 90),
        ({"x-ratelimit-reset-tokens": "6ms"}, 0.006),
        ({"x-ratelimit-reset-tokens": "6ms", "x-ratelimit-remaining-tokens": "100"}, None),
        ({"x-ratelimit-reset-tokens": "6ms", "x-ratelimit-remaining-tokens": "0"}, 0.006),
        ({"x-ratelimit-reset-tokens": "8.64s", "x-ratelimit-remaining-tokens": "100"}, 8.64),
        ({"x-ratelimit-reset-tokens": "2s", "x-ratelimit-reset-requests": "7m12s"}, 432),
        ({"x-ratelimit-reset": "1795341630"}, 30),
        ({"x-ratelimit-reset": "1795341630000"}, 30),
        ({"x-ratelimit-reset-requests": "2026-11-22T10:00:45Z"}, 45),
        ({"x-ratelimit-reset-requests": "Sun, 22 Nov 2026 10:00:50 GMT"}, 50),
        ({"anthropic-ratelimit-tokens-reset": "2026-11-22T10:00:30Z"}, 30),
        ({"ratelimit-reset": "30"}, 30),
        ({"x-ratelimit-reset-requests": "2026-11-22T09:00:00Z"}, None),
        ({"x-ratelimit-reset-requests": "0s"}, None),
        ({"x-ratelimit-reset-requests": "soon"}, None),
        ({"x-ratelimit-limit-requests": "30"}, None),
        ({}, None),
    ],
)
def test_when_a_limit_is_reset(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_until_reset(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"details": [{"@type": "RetryInfo", "retryDelay": "34s"}]}}, 34),
        ([{"error": {"details": [{"retryDelay": "1.5s"}]}}], 1.5),
        ({"retry_delay": {"seconds": 34}}, 34),
        ({"retryDelay": {"seconds": "34", "nanos": 500_000_000}}, 34.5),
        ({"error": {"retry_after": 12}}, 12),
        ({"retryAfter": "12"}, 12),
        ({"retry_after_ms": 1500}, 1.5),
        ({"error": {"metadata": {"headers": {"X-RateLimit-Reset": "1795341630000"}}}}, 30),
        ({"retry_after": True}, None),
        ({"retry_after": None}, None),
        ({"retry_after": "soon"}, None),
        ({"retry": 5}, None),
        ("words", None),
        (None, None),
    ],
)
def test_a_body(body: object, seconds: float | None) -> None:
    assert wait_in_body(body, now=NOW) == seconds


def test_headers_take_precedence_over_words() -> None:
    assert wait_asked_for({"retry-after": "3"}, "Please try again in 9s.") == 3


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ("maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.", 9_001),
        ("However, you requested 41648 tokens (37552 in the messages, 4096 in the completion).", 41_648),
        ("prompt is too long: 214315 tokens > 200000 maximum", 214_315),
        ("input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease", 242_959),
        ("Request too large for gpt-4.1-2025-04-14 in org-lFXO45: Limit 30000, Requested 37313. The", 37_313),
        ("The input token count (1,200,000) exceeds the maximum number of tokens allowed (1048576).", 1_200_000),
        ("the input length exceeds the context length", None),
    ],
)
def test_the_size_of_a_refused_request(message: str, tokens: int | None) -> None:
    assert tokens_refused(message) == tokens
