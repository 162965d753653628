"""What kind of error something is, found on it or on what caused it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backend.core.errors.category import FINAL, Category
from backend.core.errors.recognition import category_of, never_connects


@dataclass(frozen=True, slots=True)
class Classified:
    """What an error is. `final`: the task must not be tried again."""

    category: Category
    exception_type: str
    message: str
    final: bool
    chain: tuple[str, ...]


def classify(error: BaseException) -> Classified:
    """The category of an error, found on it or on what caused it."""
    causes = list(error_chain(error))
    for cause in causes:
        known = getattr(cause, "visual_ai_classified", None)
        if isinstance(known, Classified):  # in another process, where there was more to see
            return known
    telling, category = _telling(causes)
    return Classified(
        category=category,
        exception_type=_name(type(telling)),
        message=str(telling) or type(telling).__name__,
        final=category in FINAL,
        chain=tuple(f"{_name(type(cause))}: {cause}" for cause in causes if cause is not telling),
    )


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, the outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup) and current.exceptions:
            current = current.exceptions[0]
        else:
            current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _telling(causes: Sequence[BaseException]) -> tuple[BaseException, Category]:
    """The error of the chain that says what happened, and its category."""
    found = ((cause, None if _is_airflows(cause) else category_of(cause)) for cause in causes)
    known = [(cause, category) for cause, category in found if category is not None]
    if not known:
        return next((cause for cause in causes if not _is_airflows(cause)), causes[0]), "internal"
    telling, category = known[0]
    if category == "server":
        # A client says "connection error" also of a request that can never be sent, or a server that can't be trusted.
        category = next(filter(None, map(never_connects, _underneath(telling))), category)
    return telling, category


def _underneath(error: BaseException) -> Iterator[BaseException]:
    """All that led to an error, also what was hidden with `from None`, as HTTP clients hide what broke below them."""
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
