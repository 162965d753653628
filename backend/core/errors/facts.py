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

from backend.core.errors.retry_after import wait_asked_for, wait_in_body
from backend.core.errors.words import parsed, words_of
from backend.core.redaction import redact

MAX_EXCERPT = 4_000
"""How many characters of a body are kept. The record shortens them again, after it has removed the secrets."""

_REQUEST_ID_HEADERS = (
    *("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "x-goog-request-id"),
    *("x-correlation-id", "cf-ray"),
)
_CODE_NAME = re.compile(r"[A-Za-z][\w.-]*")
_SUM = re.compile(r"(\d[\d,]*) \+ (\d[\d,]*) > ")  # Anthropic: the prompt and its max_tokens
_FAR_BEYOND = 100
_GROUPED = re.compile(r"(?<![\w.,:/-])\d{1,3}(?:[,._' ]\d{3})+(?![\w:/-])|(?<![\w.,:/-])\d{4,12}(?![\w:/-])")
_WITH_UNIT = re.compile(
    r"(?i)\d[\d,._]*\s*(?:bytes?|[kmg]i?b|px|pixels?|ms|s|sec\w*|min\w*|hours?|days?|characters?|chars?|%|x\s*\d+)\b"
)
_OF_THE_ANSWER = re.compile(
    r"(?i)completion tokens|output tokens|max_(?:completion_|output_|new_)?tokens\W*(?:is|must|has to|should|value|:)"
)
_NUMBER = re.compile(r"(?<![\w.-])\d[\d,]{3,}(?![\w.-]*[A-Za-z-])")


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """What one exception says about itself, regardless of its causes.

    :param status: an HTTP status from 400 to 599.
    :param codes: the provider's names for the error, the most specific first, in lower case.
    :param kinds: the provider's names for the error's class, which are less specific than a status.
    :param headers: the response's headers, with names in lower case.
    :param advised_wait: how long the body asks to wait, in seconds.
    :param message: the provider's message, in whatever part of the body it stands.
    :param body: the beginning of the response's body, without secrets.
    :param request_id: the id by which the provider can look up the request.
    """

    status: int | None
    codes: tuple[str, ...]
    kinds: tuple[str, ...]
    headers: Mapping[str, str]
    advised_wait: float | None
    message: str
    body: str
    request_id: str | None

    def wait(self, message: str = "") -> float | None:
        """How long the server asks to wait, in seconds; `message` is what else is known of its words."""
        return wait_asked_for(self.headers, f"{message} {self.message}") or self.advised_wait


def facts_of(error: BaseException) -> ErrorFacts:
    """Read an exception of OpenAI's, Anthropic's, Google's or Ollama's client, of botocore, httpx, or one like them."""
    response = _get(error, "response")
    codes: list[str] = []
    kinds: list[str] = []
    statuses: list[int] = []
    bodies = [body for body in _bodies(error, response) if body is not None]
    for place in (_attributes(error), *map(_error_object, bodies)):
        _read_names(place, codes, kinds, statuses)
    status = next(filter(None, (_status(holder) for holder in (error, response))), None)
    if status is None and isinstance(response, Mapping):
        status = _http_status(_part(response, "ResponseMetadata").get("HTTPStatusCode"))
    headers = _headers(response)
    if named := headers.get("x-amzn-errortype"):
        codes.append(named.partition(":")[0].lower())
    return ErrorFacts(
        status if status is not None else next(iter(statuses), None),
        tuple(dict.fromkeys(codes)),
        tuple(dict.fromkeys(kinds)),
        headers,
        next(filter(None, (wait_in_body(body, headers) for body in bodies)), None),
        next(filter(None, map(words_of, bodies)), ""),
        _excerpt(bodies),
        _request_id(headers, bodies),
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
    """What may be the response's body, or a part of it, the largest part first."""
    if isinstance(response, Mapping):  # botocore's
        yield response
    elif isinstance(text := _get(response, "text"), str) and text:
        yield parsed(text)
    for name in ("body", "details", "error"):  # of OpenAI's and Anthropic's clients, Google's, and Ollama's
        value = _get(error, name)
        if isinstance(value, str) and value:
            yield parsed(value)
        elif not isinstance(value, BaseException) and not callable(value):
            yield value
    if error.args and isinstance(error.args[0], Mapping | list):
        # LangChain raises a `ValueError` with the object under "error" in a response with status 200.
        yield error.args[0]


def _error_object(body: Any) -> dict[str, Any]:
    """The part of a body that describes the error."""
    if isinstance(body, Sequence) and not isinstance(body, str | bytes) and body:
        body = body[0]  # Google's OpenAI-compatible server sends it in a list
    if isinstance(body, Mapping):
        for key in ("error", "Error", "detail"):
            if isinstance(body.get(key), Mapping):
                return _error_object(body[key])
        listed = body.get("errors")
        if isinstance(listed, list) and listed and isinstance(listed[0], Mapping):
            return _error_object(listed[0])
        return {str(name): value for name, value in body.items()}
    if body is not None and not isinstance(body, str | bytes | BaseException):
        # The object under "error" of OpenAI's Responses API.
        return {"code": _get(body, "code"), "message": _get(body, "message")}
    return {}


def _excerpt(bodies: Sequence[Any]) -> str:
    for body in bodies:
        if isinstance(body, str | Mapping | list):
            clean = redact(body)
            text = clean if isinstance(clean, str) else json.dumps(clean, ensure_ascii=False, default=str)
            return text[:MAX_EXCERPT]
    return ""


def _request_id(headers: Mapping[str, str], bodies: Sequence[Any]) -> str | None:
    found = [headers.get(name) for name in _REQUEST_ID_HEADERS]
    for body in bodies:
        for place in (body, _error_object(body)):
            if isinstance(place, Mapping):
                metadata = _part(place, "ResponseMetadata") or place
                found += [metadata.get(name) for name in ("request_id", "requestId", "RequestId")]
    return next((each for each in found if isinstance(each, str) and each), None)


def _read_names(place: Mapping[str, Any], codes: list[str], kinds: list[str], statuses: list[int]) -> None:
    for key in ("code", "Code", "status", "status_code", "error_code", "errorCode", "__type"):
        value = place.get(key)
        status = _http_status(value)
        if status is not None:
            statuses.append(status)
        elif isinstance(value, str) and value:
            codes.append(value.lower())
    if isinstance(named := place.get("error"), str) and _CODE_NAME.fullmatch(named):
        codes.append(named.lower())
    kinds.extend(place[key].lower() for key in ("type", "error_type") if isinstance(place.get(key), str))
    inner = place.get("innererror")
    if isinstance(inner, Mapping) and isinstance(inner.get("code"), str):
        codes.append(str(inner["code"]).lower())
    details = place.get("details")
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, Mapping):
            continue
        if isinstance(detail.get("reason"), str):
            codes.append(str(detail["reason"]).lower())


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


def tokens_beyond(message: str, window: int) -> int | None:
    """The number of tokens by which a refusal shows that the request exceeds a context window; None if it doesn't.

    This does not depend on the words, which every server chooses for itself: the message has a number that is larger
    than the window, and not as large as a date or an id. Numbers with a unit other than tokens, and messages about the
    limit of the answer, don't count.
    """
    if _OF_THE_ANSWER.search(message):
        return None
    numbers = [int(re.sub(r"\D", "", found)) for found in _GROUPED.findall(_WITH_UNIT.sub(" ", message))]
    return max((number for number in numbers if window < number <= window * _FAR_BEYOND), default=None)


def tokens_refused(message: str) -> int | None:
    """The number of tokens in a request that was refused as too long; None if the message does not say.

    The message usually names the limit too, so this is its largest number. Providers that count prompt and answer
    together do so here.
    """
    if found := _SUM.search(message):
        return sum(int(part.replace(",", "")) for part in found.groups())
    numbers = [int(number.replace(",", "")) for number in _NUMBER.findall(message)]
    return max(numbers, default=None)
