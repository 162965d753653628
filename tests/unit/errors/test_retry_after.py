"""How long providers ask to wait, in headers and in words."""

from datetime import UTC, datetime

import pytest

from backend.core.errors.facts import tokens_refused
from backend.core.errors.retry_after import wait_asked_for

NOW = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": " 7 "}, 7),
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
        ("Please try again later.", None),
        ("The engine is currently overloaded, please try again in a moment", None),
        ("try again in 0s", None),
        ("", None),
    ],
)
def test_words(message: str, seconds: float | None) -> None:
    assert wait_asked_for({}, message) == seconds


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
