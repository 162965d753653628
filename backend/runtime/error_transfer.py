"""An error on its way from the triggerer to the worker that raises it, as JSON."""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from backend.core.jsonable import to_jsonable
from backend.core.redaction import REDACTED, redact_text
from backend.core.workflow_error_handler import Classified, Reschedule, classify, mark, reschedule_after

MESSAGE_LIMIT = 4_000
_KEPT = ("status_code", "code", "retry_after", "retry_in", "field")


class AgentFailedError(RuntimeError):
    """An agent failed in the triggerer with an error whose own type can't be made again here."""


def pack(error: Exception, *, final: bool, hide: Sequence[str] = ()) -> dict[str, Any]:
    """What is needed to raise the error elsewhere; secrets, and the keys to `hide`, are taken out of its text."""

    def clean(text: str) -> str:
        for key in hide:
            text = text.replace(key, REDACTED)
        return redact_text(text, limit=MESSAGE_LIMIT)

    found = classify(error)
    kept = {name: value for name in _KEPT if isinstance(value := getattr(error, name, None), str | int | float)}
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None)
    with suppress(Exception):
        if "retry_after" not in kept and headers is not None and headers.get("retry-after"):
            kept["retry_after"] = str(headers.get("retry-after"))
    text = str(error) or type(error).__name__
    given = error.args[0] if error.args and isinstance(error.args[0], str) else text
    return {
        "type": f"{type(error).__module__}:{type(error).__qualname__}",
        "message": clean(text),
        "given": clean(given),
        "attributes": to_jsonable(kept),
        "category": found.category,
        "exception_type": found.exception_type,
        "cause": clean(found.message),
        "chain": [clean(link) for link in found.chain],
        "final": final,
        "reschedule_after": reschedule_after(error),
        "recorded": bool(getattr(error, "visual_ai_recorded", False)),
    }


def unpack(packed: Mapping[str, Any]) -> Exception:
    """The error again, of its own type where that can be found, so that a retry policy recognises it.

    It is classified and waited out as it was, and recorded again only if it was not.
    """
    error: Any = _made_again(packed)
    if (after := packed.get("reschedule_after")) is not None:
        mark(error, Reschedule(float(after)))
    error.visual_ai_recorded = bool(packed["recorded"])
    error.visual_ai_classified = Classified(
        category=packed["category"],
        exception_type=str(packed["exception_type"]),
        message=str(packed["cause"]),
        final=bool(packed["final"]),
        chain=tuple(packed.get("chain") or ()),
    )
    return error  # type: ignore[no-any-return]  # it is an Exception


def _made_again(packed: Mapping[str, Any]) -> Exception:
    message = str(packed["message"])
    module, _, name = str(packed["type"]).partition(":")
    with suppress(Exception):
        kind: Any = importlib.import_module(module)
        for part in name.split("."):
            kind = getattr(kind, part)
        if isinstance(kind, type) and issubclass(kind, Exception):
            # Not its `__init__`: that may want an HTTP response.
            error = kind.__new__(kind)
            error.args = (packed["given"],)
            for attribute, value in packed["attributes"].items():
                with suppress(AttributeError):
                    setattr(error, attribute, value)
            if str(error) == message:
                return error
    return AgentFailedError(message)
