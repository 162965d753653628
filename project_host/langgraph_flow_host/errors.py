"""Errors as facts: what of an exception matters to the task, which has none of the project's classes.

The task decides by the names of a class and its bases, by what HTTP clients attach, and by which module raised it.
"""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

_KEPT = ("status_code", "code", "type", "status", "retry_after", "retry_in", "field", "body", "details", "error")
_LONGEST = 100_000
_DEEPEST = 20


class RefusedError(Exception):
    """The task has refused something: a model call, or a checkpoint. It knows its own error by the `ticket`."""

    def __init__(self, ticket: int, message: str) -> None:
        super().__init__(message)
        self.ticket = ticket


class NotKeptError(ValueError):
    """A value can't be kept in a checkpoint. `path` leads to it: a channel first."""

    def __init__(self, path: list[Any], fault: str) -> None:
        super().__init__(fault)
        self.path = path
        self.fault = fault


class ProjectError(Exception):
    """A graph of the project can't be loaded. The message says why; a retry doesn't help."""


def refused(facts: Mapping[str, Any]) -> RefusedError:
    """The error for what the task has refused."""
    return RefusedError(int(facts["ticket"]), str(facts["message"]))


def describe(error: BaseException) -> dict[str, Any]:
    """The error and what led to it, the outermost first."""
    return {"chain": [_facts(one) for one in _chain(error)]}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < _DEEPEST:
        seen.add(id(current))
        yield current
        group = getattr(current, "exceptions", None)
        if isinstance(group, tuple | list) and group and isinstance(group[0], BaseException):
            current = group[0]
        else:
            current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _facts(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    given = error.args[0] if error.args and isinstance(error.args[0], str | Mapping | list) else None
    return {
        "classes": [[kind.__module__, kind.__qualname__] for kind in type(error).__mro__ if kind is not object],
        "text": _text(error),
        "given": _plain(given),
        "attributes": {name: plain for name in _KEPT if (plain := _plain(_get(error, name))) is not None},
        "response": _response(_get(error, "response")),
        "frames": [[module, frame.name] for module, frame in zip(modules, frames, strict=False)],
        "trace": traceback.format_list(frames)[-_DEEPEST:],
        "ticket": error.ticket if isinstance(error, RefusedError) else None,
        "not_kept": [error.path, error.fault] if isinstance(error, NotKeptError) else None,
        "load": isinstance(error, ProjectError),
    }


def _response(response: Any) -> Any:
    if response is None or isinstance(response, Mapping):
        return _plain(response)
    headers = _get(response, "headers")
    found: dict[str, str] = {}
    with suppress(Exception):
        found = {str(name): str(value) for name, value in headers.items()}
    text = _get(response, "text")
    return {
        "status_code": _plain(_get(response, "status_code")),
        "headers": found,
        "text": text[:_LONGEST] if isinstance(text, str) else None,
    }


def _get(holder: Any, name: str) -> Any:
    """An attribute, or None. Reading one may raise: the body of a streamed response, for example, may be unread."""
    with suppress(Exception):
        return getattr(holder, name, None)
    return None


def _plain(value: Any, depth: int = 6) -> Any:
    """The value's texts, numbers, lists and mappings; None for anything else."""
    if isinstance(value, str):
        return str(value)[:_LONGEST]
    if isinstance(value, bool | int | float):
        return value
    if depth and isinstance(value, Mapping):
        return {str(name): _plain(part, depth - 1) for name, part in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_plain(part, depth - 1) for part in value[:100]]
    return None


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_LONGEST]
    except Exception:  # a user's own __str__ may raise anything
        return type(error).__qualname__
