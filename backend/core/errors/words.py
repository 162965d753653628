"""Finds a provider's own words in the body of an error response, whatever its shape.

Servers that share a protocol do not share a shape of errors: the words are under `error.message`, `error`, `message`,
`detail` or `errors`, in a list, in a page of HTML, or are the whole body. Clients understand some of these, and drop
the rest.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import unescape
from typing import Any

MAX_BODY = 100_000
"""The longest body, in characters, that is parsed."""
MAX_WORDS = 2_000

_KEYS = ("message", "Message", "msg", "error", "Error", "error_message", "errorMessage", "error_description")
_MORE_KEYS = ("detail", "details", "errors", "reason", "title", "description", "error_msg")
_DEPTH = 6
_ITEMS = 5
_PAGE = re.compile(r"(?is)^\s*(?:<!doctype html|<html|<head|<body|<center|<h1|<\?xml[^>]*>\s*<!doctype html)")
_HIDDEN = re.compile(r"(?is)<(script|style|svg|noscript)\b.*?</\1\s*>|<!--.*?-->")
_TITLE = re.compile(r"(?is)<title[^>]*>(.*?)</title>")
_TAG = re.compile(r"(?s)<[^>]*>")


def parsed(text: str) -> Any:
    """The JSON value that a body consists of; the text itself if it is none, or longer than `MAX_BODY`."""
    if len(text) <= MAX_BODY:
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    return text


def is_page(text: str) -> bool:
    """Whether a body is a page of HTML, as proxies and gateways send it."""
    return _PAGE.match(text) is not None


def words_of(body: Any) -> str:
    """What a body says to people, on one line of at most `MAX_WORDS` characters; "" if it says nothing."""
    found = _words(body, _DEPTH)
    if not found and isinstance(body, Mapping | list) and body:
        found = json.dumps(body, ensure_ascii=False, default=str)  # a shape of its own is better than nothing
    return found if len(found) <= MAX_WORDS else f"{found[:MAX_WORDS]}…"


def _words(value: Any, depth: int) -> str:
    if not depth:
        return ""
    if isinstance(value, str):
        inner = parsed(value)
        if isinstance(inner, Mapping | list) and (found := _words(inner, depth - 1)):
            return found
        if value.lstrip().startswith(("{", "[")):
            return ""  # JSON without words, or half of an answer
        return _page_words(value) if is_page(value) else " ".join(value[:MAX_BODY].split())
    if isinstance(value, Mapping):
        return _object_words(value, depth)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return "; ".join(dict.fromkeys(filter(None, (_words(item, depth - 1) for item in value[:_ITEMS]))))
    return ""


def _object_words(value: Mapping[Any, Any], depth: int) -> str:
    said = next(filter(None, (_words(value.get(key), depth - 1) for key in (*_KEYS, *_MORE_KEYS))), "")
    if isinstance(place := value.get("loc"), list | tuple):  # FastAPI's and Pydantic's faults
        said = f"{'.'.join(map(str, place))}: {said}"
    if isinstance(metadata := value.get("metadata"), Mapping) and (raw := _words(metadata.get("raw"), depth - 1)):
        # OpenRouter: what the provider behind it has said.
        said = f"{said} ({metadata.get('provider_name') or 'provider'}: {raw})"
    return said


def _page_words(page: str) -> str:
    """The title and the beginning of the text of a page, without what the title repeats."""
    page = _HIDDEN.sub(" ", page[:MAX_BODY])
    title = _TITLE.search(page)
    head = " ".join(unescape(_TAG.sub(" ", title[1])).split()) if title else ""
    text = " ".join(unescape(_TAG.sub(" ", _TITLE.sub(" ", page))).split())
    while head and text.startswith(head):
        text = text[len(head) :].strip()
    return ": ".join(filter(None, (head, text[:300])))
