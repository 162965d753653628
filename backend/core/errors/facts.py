"""Reads the facts off an exception: status, error codes, headers, advised wait, wherever its library keeps them.

Libraries differ in their classes but agree on a few attributes (`response`, `body`, `status_code`, …). Only these are
read, so no provider's library has to be imported.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

MAX_BODY = 100_000
"""The longest body, in characters, that is parsed for its error codes."""

_SUM = re.compile(r"(\d[\d,]*) \+ (\d[\d,]*) > ")  # Anthropic: the prompt and its max_tokens
_NUMBER = re.compile(r"(?<![\w.-])\d[\d,]{3,}(?![\w.-]*[A-Za-z-])")


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """What one exception says about itself, regardless of its causes.

    :param status: an HTTP status from 400 to 599.
    :param codes: the provider's names for the error, the most specific first, in lower case.
    :param kinds: the provider's names for the error's class, which are less specific than a status.
    :param headers: the response's headers, with names in lower case.
    :param advised_wait: how long the body asks to wait, in seconds.
    :param message: the provider's message.
    """

    status: int | None
    codes: tuple[str, ...]
    kinds: tuple[str, ...]
    headers: Mapping[str, str]
    advised_wait: float | None
    message: str

    @property
    def request_id(self) -> str | None:
        """The id by which the provider can look up the request."""
        names = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "x-goog-request-id", "cf-ray")
        return next((self.headers[name] for name in names if self.headers.get(name)), None)


def facts_of(error: BaseException) -> ErrorFacts:
    """Read an exception of OpenAI's, Anthropic's, Google's or Ollama's client, of botocore, httpx, or one like them."""
    response = _get(error, "response")
    codes: list[str] = []
    kinds: list[str] = []
    statuses: list[int] = []
    waits: list[float] = []
    messages: list[str] = []
    for place in (_attributes(error), *map(_error_object, _bodies(error, response))):
        _read_names(place, codes, kinds, statuses, waits)
        messages += [str(place[key]) for key in ("message", "Message") if isinstance(place.get(key), str)]
    status = next(filter(None, (_status(holder) for holder in (error, response))), None)
    if status is None and isinstance(response, Mapping):
        status = _http_status(_part(response, "ResponseMetadata").get("HTTPStatusCode"))
    return ErrorFacts(
        status if status is not None else next(iter(statuses), None),
        tuple(dict.fromkeys(codes)),
        tuple(dict.fromkeys(kinds)),
        _headers(response),
        next(iter(waits), None),
        next(iter(messages), ""),
    )


def _get(holder: Any, name: str) -> Any:
    """An attribute, or None. Reading one may raise: the body of a streamed response, for example, may be unread."""
    with suppress(Exception):
        return getattr(holder, name, None)
    return None


def _attributes(error: BaseException) -> dict[str, Any]:
    """What the exception itself may carry. Google's `status` is a name, such as "RESOURCE_EXHAUSTED"."""
    return {name: _get(error, name) for name in ("code", "type", "status")}


def _bodies(error: BaseException, response: Any) -> Iterator[Any]:
    yield _get(error, "body")
    yield _get(error, "details")
    if isinstance(response, Mapping):  # botocore's
        yield response
    elif _get(error, "body") is None and isinstance(text := _get(response, "text"), str) and len(text) <= MAX_BODY:
        with suppress(ValueError):
            yield json.loads(text)
    if error.args:
        # LangChain raises a `ValueError` with the object under "error" in a response with status 200.
        yield error.args[0]


def _error_object(body: Any) -> dict[str, Any]:
    """The part of a body that describes the error; Google's OpenAI-compatible server sends it in a list."""
    if isinstance(body, Sequence) and not isinstance(body, str | bytes) and body:
        body = body[0]
    if isinstance(body, Mapping):
        for key in ("error", "Error"):
            if isinstance(body.get(key), Mapping):
                return {str(name): value for name, value in body[key].items()}
        return {str(name): value for name, value in body.items()}
    if body is not None and not isinstance(body, str | bytes | BaseException):
        # The object under "error" of OpenAI's Responses API.
        return {"code": _get(body, "code"), "message": _get(body, "message")}
    return {}


def _read_names(
    place: Mapping[str, Any], codes: list[str], kinds: list[str], statuses: list[int], waits: list[float]
) -> None:
    for key in ("code", "Code", "status"):
        value = place.get(key)
        status = _http_status(value)
        if status is not None:
            statuses.append(status)
        elif isinstance(value, str) and value:
            codes.append(value.lower())
    if isinstance(place.get("type"), str):
        kinds.append(str(place["type"]).lower())
    inner = place.get("innererror")
    if isinstance(inner, Mapping) and isinstance(inner.get("code"), str):
        codes.append(str(inner["code"]).lower())
    details = place.get("details")
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, Mapping):
            continue
        if isinstance(detail.get("reason"), str):
            codes.append(str(detail["reason"]).lower())
        with suppress(ValueError):
            if isinstance(detail.get("retryDelay"), str):  # google.rpc.RetryInfo
                waits.append(float(detail["retryDelay"].removesuffix("s")))


def _status(holder: Any) -> int | None:
    # LangChain attaches the response even to errors that it did not cause.
    return _http_status(_get(holder, "status_code"))


def _http_status(value: Any) -> int | None:
    """A status given as a number, or as text (Azure, LiteLLM)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isdecimal() and len(value) == 3:
        value = int(value)
    return int(value) if isinstance(value, int) and 400 <= value < 600 else None


def _headers(response: Any) -> dict[str, str]:
    found = _get(response, "headers")
    if found is None and isinstance(response, Mapping):
        found = _part(response, "ResponseMetadata").get("HTTPHeaders")
    if found is not None:
        with suppress(Exception):
            return {str(name).lower(): str(value) for name, value in found.items()}
    return {}


def _part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = value.get(name)
    return part if isinstance(part, Mapping) else {}


def tokens_refused(message: str) -> int | None:
    """The number of tokens in a request that was refused as too long; None if the message does not say.

    The message usually names the limit too, so this is its largest number. Providers that count prompt and answer
    together do so here.
    """
    if found := _SUM.search(message):
        return sum(int(part.replace(",", "")) for part in found.groups())
    numbers = [int(number.replace(",", "")) for number in _NUMBER.findall(message)]
    return max(numbers, default=None)
