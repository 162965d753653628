"""Moves a failure from the triggerer, where the agents ran, to the worker that raises it, as JSON.

A trigger can only hand on JSON, and Airflow's retry policy and callbacks only run in a worker. So the triggerer packs
the failure, and the worker builds it anew: with the original error's own type where that can be imported, because a
DAG's author may have named it in a retry policy, and with everything that was found out and decided about it.
"""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from backend.core.jsonable import storable, to_jsonable
from backend.core.redaction import REDACTED, redact_text
from backend.core.workflow_error_handler import AgentFailure, Classified, Reschedule, as_failure

MESSAGE_LIMIT = 4_000
"""The longest message that is handed on, in characters."""
_KEPT = ("status_code", "code", "retry_after", "retry_in", "field")


class AgentFailedError(RuntimeError):
    """An agent failed in the triggerer with an error whose own type can't be rebuilt in the worker."""


def pack(error: Exception, *, hide: Sequence[str] = ()) -> dict[str, Any]:
    """Turn a failure, or an error that was raised outside of agents, into JSON.

    Secrets, and the keys in `hide`, are removed from all texts.
    """

    def clean(text: str) -> str:
        for key in hide:
            text = text.replace(key, REDACTED)
        return storable(redact_text(text, limit=MESSAGE_LIMIT))

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
