"""Errors of a project's process, as errors of this one.

A project's classes don't exist here. What decides about an error are the names of its class and bases, what its client
attached and which modules raised it, so an error is built anew with these. LangGraph's own errors, and those that the
task itself has raised on the way, are the real ones.
"""

import builtins
import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import count
from types import SimpleNamespace
from typing import Any

from backend.checkpoints.state_serializer import NotKeptError
from backend.core.errors.agent_errors import ReportedError
from backend.runtime.langgraph_json import GraphLoadError

_NOTED = "In the project's process:\n"


class ProjectProcessLostError(ConnectionError):
    """The process that ran a project's graph is gone. A retry helps: it goes on from the last checkpoint."""


class Tickets:
    """What the task has refused to a project's process, whose errors come back from there by their tickets."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._errors: dict[int, BaseException] = {}

    def packed(self, error: BaseException) -> dict[str, Any]:
        """What the process is told of an error."""
        number = next(self._numbers)
        self._errors[number] = error
        return {"ticket": number, "message": str(error)}

    def unpacked(self, facts: Mapping[str, Any]) -> BaseException:
        """The error for what `langgraph_flow_host.errors.describe` has found out about one."""
        links: Sequence[Mapping[str, Any]] = facts["chain"]
        for link in links:
            if link["not_kept"] is not None:
                (source, *path), fault = link["not_kept"]
                return NotKeptError(tuple(path), fault, source)
            if link["load"]:
                return GraphLoadError(link["text"])
        error: BaseException | None = None
        for link in reversed(links):
            refused = self._errors.get(link["ticket"] or 0)
            error = refused if refused is not None else _caused_by(error, _rebuilt(link))
        return error or ReportedError("an error without a description")


def _rebuilt(link: Mapping[str, Any]) -> BaseException:
    module, name = link["classes"][0]
    if module == "langgraph.errors":
        with suppress(AttributeError):
            real: BaseException = getattr(importlib.import_module(module), name)(link["text"])
            return real
    known = _class_of(tuple((module, name) for module, name in link["classes"]))
    response = link["response"]
    facts = {
        **link["attributes"],
        "response": SimpleNamespace(**response) if response is not None and "status_code" in response else response,
        "text": link["text"],
        "frames": tuple((module, function) for module, function in link["frames"]),
    }
    kind: Any = type(known.__name__, (known,), {**facts, **_names_of(known)})
    # Without `__init__`, because some of Python's own classes want more than a message.
    error: BaseException = kind.__new__(kind, link["text"] if link["given"] is None else link["given"])
    if link["trace"]:
        error.add_note(_NOTED + "".join(link["trace"]).rstrip())
    return error


def _caused_by(cause: BaseException | None, error: BaseException) -> BaseException:
    if cause is None:
        return error
    try:
        raise error from cause
    except BaseException as raised:  # it is what was raised
        return raised


def _names_of(kind: type) -> dict[str, str]:
    return {"__module__": kind.__module__, "__qualname__": kind.__qualname__}


@lru_cache(maxsize=256)
def _class_of(classes: tuple[tuple[str, str], ...]) -> type[ReportedError]:
    """A class with the names of these, each of which inherits from the next; the last is one that Python has, too."""
    own = next((getattr(builtins, name, Exception) for module, name in classes if module == "builtins"), Exception)
    bases = (ReportedError,) if own in (Exception, BaseException) else (ReportedError, own)
    kind: Any = type(own.__name__, bases, {"__module__": "builtins", "__qualname__": own.__name__})
    for module, name in reversed([one for one in classes if one[0] != "builtins"]):
        kind = type(name.rpartition(".")[2], (kind,), {"__module__": module, "__qualname__": name})
    found: type[ReportedError] = kind
    return found
