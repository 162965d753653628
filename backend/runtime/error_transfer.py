"""Moves a failure from the triggerer, where the agents ran, to the worker that raises it, as JSON.

A trigger can only hand on JSON, and Airflow's retry policy and callbacks only run in a worker. So the triggerer packs
the failure, and the worker builds it anew: with the original error's own type where that can be imported, because a
DAG's author may have named it in a retry policy, and with everything that was found out and decided about it.
"""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backend.core.jsonable import storable, to_jsonable
from backend.core.redaction import hide, redact_text
from backend.core.workflow_error_handler import AgentFailure, Classified, Reschedule, as_failure, error_chain

MESSAGE_LIMIT = 4_000
"""The longest message that is handed on, in characters."""
_KEPT = ("status_code", "code", "retry_after", "retry_in", "field")


class AgentFailedError(RuntimeError):
    """An agent failed with an error whose own type can't be built anew."""


@dataclass(frozen=True, slots=True)
class Cleaner:
    """Removes secrets from texts: what looks like one, and the values in `hidden`."""

    hidden: Sequence[str] = ()

    def __call__(self, text: str) -> str:
        return storable(redact_text(hide(text, self.hidden), limit=MESSAGE_LIMIT))

    def finds_in(self, text: str) -> bool:
        """Whether a text contains a secret."""
        return redact_text(hide(text, self.hidden)) != text


def cleaned(error: Exception, clean: Cleaner) -> Exception:
    """The error itself if neither it nor what led to it contains a secret; otherwise one of its type without them."""
    if not any(clean.finds_in(str(each)) for each in error_chain(error)):
        return error
    return unpack(pack(error, clean)).error


def pack(error: Exception, clean: Cleaner = Cleaner()) -> dict[str, Any]:  # immutable
    """Turn a failure, or an error that was raised outside of agents, into JSON, with all texts cleaned."""
    failure = as_failure(error)
    error, classified = failure.error, failure.classified
    kept = {name: value for name in _KEPT if isinstance(value := getattr(error, name, None), str | int | float)}
    response: Any = getattr(error, "response", None)
    with suppress(Exception):
        if "retry_after" not in kept and (after := response.headers.get("retry-after")):
            kept["retry_after"] = str(after)
    text = str(error) or type(error).__name__
    argument = error.args[0] if error.args and isinstance(error.args[0], str) else text
    return {
        "type": f"{type(error).__module__}:{type(error).__qualname__}",
        "message": clean(text),
        "given": clean(argument),
        "attributes": to_jsonable(kept),
        "category": classified.category,
        "exception_type": classified.exception_type,
        "cause": clean(classified.message),
        "chain": [clean(link) for link in classified.chain],
        "final": classified.final,
        "reschedule_after": failure.reschedule_after,
        "recorded": failure.recorded,
    }


def unpack(packed: Mapping[str, Any]) -> AgentFailure:
    """Build the failure anew in the worker."""
    classified = Classified(
        category=packed["category"],
        exception_type=str(packed["exception_type"]),
        message=str(packed["cause"]),
        final=bool(packed["final"]),
        chain=tuple(packed.get("chain") or ()),
    )
    after = packed.get("reschedule_after")
    decision = None if after is None else Reschedule(float(after))
    return AgentFailure(_rebuild(packed), classified, decision, recorded=bool(packed["recorded"]))


def _rebuild(packed: Mapping[str, Any]) -> Exception:
    """The original error, of its own type if possible."""
    message = str(packed["message"])
    module, _, name = str(packed["type"]).partition(":")
    with suppress(Exception):
        kind: Any = importlib.import_module(module)
        for part in name.split("."):
            kind = getattr(kind, part)
        if isinstance(kind, type) and issubclass(kind, Exception):
            # As `pickle` restores an exception, but without calling `__init__`, which may require an HTTP response.
            error = kind.__new__(kind)
            error.__setstate__({**packed["attributes"], "args": (packed["given"],)})
            if str(error) == message:
                return error
    return AgentFailedError(message)
