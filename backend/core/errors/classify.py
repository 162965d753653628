"""Classifies an error by looking through its whole chain of causes.

What reaches us is seldom the exception that says what happened: LangGraph, Airflow and a user's own code wrap it. The
category is therefore that of the first exception in the chain, from the outside in, that `recognition` recognises.
"""

from collections.abc import Iterator, Sequence

from backend.core.errors.category import FINAL, Category, Classified
from backend.core.errors.failure import AgentFailure
from backend.core.errors.recognition import category_of, never_connects


def classify(error: BaseException) -> Classified:
    """What an error is. An `AgentFailure` in its chain has been classified already, where more was known about it."""
    causes = list(error_chain(error))
    for cause in causes:
        if isinstance(cause, AgentFailure):
            return cause.classified
    source, category = _source(causes)
    return Classified(
        category=category,
        exception_type=_name(type(source)),
        message=str(source) or type(source).__name__,
        final=category in FINAL,
        chain=tuple(f"{_name(type(cause))}: {cause}" for cause in causes if cause is not source),
    )


def as_failure(error: Exception) -> AgentFailure:
    """The error itself if it is an `AgentFailure`; one around it, unrecorded, if it was raised outside of agents."""
    return error if isinstance(error, AgentFailure) else AgentFailure(error, classify(error))


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, the outermost first. Of a group, the first exception stands for all."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup) and current.exceptions:
            current = current.exceptions[0]
        else:
            current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _source(causes: Sequence[BaseException]) -> tuple[BaseException, Category]:
    """The exception of the chain that says what happened, and its category."""
    found = ((cause, None if _is_airflows(cause) else category_of(cause)) for cause in causes)
    known = [(cause, category) for cause, category in found if category is not None]
    if not known:
        return next((cause for cause in causes if not _is_airflows(cause)), causes[0]), "internal"
    source, category = known[0]
    if category == "server":
        # Clients report a "connection error" even for a request that can never be sent or a server without a valid
        # certificate.
        category = next(filter(None, map(never_connects, _underneath(source))), category)
    return source, category


def _underneath(error: BaseException) -> Iterator[BaseException]:
    """All that led to an error, including what HTTP clients hide with `from None`."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _is_airflows(error: BaseException) -> bool:
    """Airflow's own exceptions wrap what happened, and all of them carry the status 500."""
    return any(base.__name__ == "AirflowException" for base in type(error).__mro__)


def _name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
