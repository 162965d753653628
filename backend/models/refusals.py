"""Recognises that a server refuses the way in which a model was asked, rather than what it was asked.

Servers that speak OpenAI's protocol have no common code for this: one names the parameter, another the feature, and the
status is mostly 400, but also 404, 422 or 500. So the server's words are read, and only about what the request used. A
wrong guess costs one more request that is refused, because nothing is remembered before the other way has worked.
"""

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Literal

from backend.core.errors.classify import classify, error_chain
from backend.core.errors.facts import ErrorFacts, facts_of

Feature = Literal["stream_usage", "streaming", "json_schema", "function_calling", "json_mode"]

MAX_WORDS = 2_000

_STATUSES = frozenset({400, 403, 404, 405, 406, 415, 422, 500, 501})
_OTHER_REASONS = frozenset(
    {"rate_limit", "quota", "context_length", "content_filter", "timeout", "budget", "cancelled"}
)

# What a refusal is about, by its words or by the parameter that it names. The order matters: the usage of streams is
# refused in words that also name streams, and a stream of tool calls can be replaced by a whole one.
_SUBJECTS: dict[Feature, re.Pattern[str]] = {
    "stream_usage": re.compile(r"(?i)stream[_ ]options|include[_ ]usage"),
    "streaming": re.compile(r"(?i)\bstream(?:s|ed|ing)?\b"),
    "json_schema": re.compile(
        r"(?i)response[_ ]?format|json[_ -]?(?:schema|mode|object)|structured[_ ](?:output|response|generation)"
        r"|\bguided[_ ]|\bgrammar\b|\bschema\b|text\.format|output_(?:format|config)"
    ),
    "function_calling": re.compile(
        r"(?i)\btools?\b|\btool[_ ]\w+|parallel_tool_calls|\bfunctions?\b|function[_ -]call"
    ),
    "json_mode": re.compile(
        r"(?i)response[_ ]?format|json[_ -]?(?:mode|object|output)|\bgrammar\b|text\.format|output_(?:format|config)"
    ),
}
_REFUSED = re.compile(
    r"(?i)\bnot (?:\w+ )?(?:support|available|allowed|permitted|enabled|implemented|recogni[sz]ed|accepted|known|valid"
    r"|possible|compatible|configured)"
    r"|\b(?:does|do|is|are|can|could|may|must|will)(?: not|n['’]t)\b|\bcannot\b|\bno support\b|\bunable to\b"
    r"|\bun(?:supported|available|recogni[sz]ed|known|expected|implemented|verified)"
    r"|\bmust be (?:verified|one of|set|false|['\"`]?text|['\"`]?json)|\bshould be\b|\bonly\b|\brequires?\b"
    r"|\bextra (?:inputs|fields|properties)\b|extra_forbidden|\binvalid\b|\bno endpoints found\b|\bdisabled\b"
    r"|\bfailed to\b|\bincompatible\b"
)
_OF_ONE_SCHEMA = re.compile(
    r"(?i)(?:invalid|unsupported|bad|failed to \w+)[^.]{0,40}\b(?:schema|grammar)\b|in context=\("
)


def refused_feature(error: BaseException, used: Collection[Feature]) -> Feature | None:
    """The feature, out of those that the request used, that the server refuses; None if the error is another one."""
    facts = _facts(error)
    if facts is None or classify(error).category in _OTHER_REASONS:
        return None
    words = _words(error, facts)
    if not _REFUSED.search(words):
        return None
    return next((feature for feature, subject in _SUBJECTS.items() if feature in used and subject.search(words)), None)


def is_about_one_schema(error: BaseException) -> bool:
    """Whether the server refuses a certain schema, while it may accept others."""
    facts = _facts(error)
    return facts is not None and _OF_ONE_SCHEMA.search(_words(error, facts)) is not None


def _facts(error: BaseException) -> ErrorFacts | None:
    """What is known of the refused request, or of an error that came instead of a stream."""
    for cause in error_chain(error):
        facts = facts_of(cause)
        if facts.status in _STATUSES:
            return facts
        if facts.status is not None:
            return None
        if any(base.__name__ in ("APIError", "ResponseError") for base in type(cause).__mro__):
            # Without an object from the server, the words are a client's about a stream that it can't read.
            return facts if isinstance(getattr(cause, "body", None), Mapping) else None
    return None


def _words(error: BaseException, facts: ErrorFacts) -> str:
    """What the server says, with the parameter that it names."""
    return f"{(facts.message or str(error))[:MAX_WORDS]} {_parameter(facts.body)}"


def _parameter(body: str) -> str:
    with suppress(ValueError, RecursionError):
        found = json.loads(body)
        for place in (found, found.get("error") if isinstance(found, dict) else None):
            if isinstance(place, dict) and isinstance(place.get("param"), str):
                return str(place["param"])
    return ""
