"""The circuit breaker of a model: when several callers in a row find its provider down, the others need not try.

Closed, until `FAILURES` calls of several callers have failed in a row; then open: every call is refused at once. After
a time one call is let through as a probe. If the provider answers, the circuit is closed; if not, it stays open for
twice as long. Everything here is a function of a circuit and a time, in seconds of the clock that all callers share.
"""

from dataclasses import dataclass, replace

FAILURES = 5
CALLERS = 2
"""One caller alone may be the reason itself."""
FAILURE_WINDOW = 60.0
"""Failures further apart than this, in seconds, are not in a row."""
OPEN_SECONDS = 10.0
MAX_OPEN_SECONDS = 120.0
MAX_ASKED_SECONDS = 600.0
"""For how long the circuit is open: at first, at most, and at most on the provider's own word."""
PROBE_SECONDS = 30.0
"""How long a probe has to be answered before another one is let through: its process may have died."""
PROBE_PAUSE = 5.0
"""When to ask again while a probe is under way."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """The state of a model's breaker; `opened_at` tells since when the provider has been down.

    `failed_by` are the callers of the failures in a row, as far as they must be known. `open_until` is when the next
    probe may go; with `probing`, when the one under way is given up.
    """

    failures: int = 0
    failed_by: tuple[str, ...] = ()
    failed_at: float = 0.0
    opened_at: float | None = None
    open_until: float = 0.0
    open_seconds: float = 0.0
    probing: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the provider is known to be down."""
        return self.opened_at is not None

    def refusal(self, now: float) -> float | None:
        """For how many seconds a call is refused; None: it may go, if the circuit is open as a probe."""
        if self.opened_at is None or self.open_until <= now:
            return None
        left = self.open_until - now
        return min(left, PROBE_PAUSE) if self.probing else left


def probe(circuit: Circuit, now: float) -> Circuit:
    """The circuit while a call finds out whether the provider is back."""
    return replace(circuit, probing=True, open_until=now + PROBE_SECONDS)


def failed(circuit: Circuit, now: float, caller: str, retry_after: float | None) -> Circuit:
    """The circuit after a call that found the provider down."""
    if circuit.is_open and not circuit.probing:
        return circuit  # a call from before: nothing new
    if circuit.is_open:
        seconds = min(MAX_OPEN_SECONDS, 2 * circuit.open_seconds)
        return replace(_opened(circuit, now, seconds, retry_after), open_seconds=seconds)
    in_a_row = now - circuit.failed_at <= FAILURE_WINDOW
    failures = circuit.failures + 1 if in_a_row else 1
    failed_by = circuit.failed_by if in_a_row else ()
    if caller not in failed_by and len(failed_by) < CALLERS:
        failed_by = (*failed_by, caller)
    counted = replace(circuit, failures=failures, failed_by=failed_by, failed_at=now)
    if failures < FAILURES or len(failed_by) < CALLERS:
        return counted
    return replace(_opened(counted, now, OPEN_SECONDS, retry_after), opened_at=now, open_seconds=OPEN_SECONDS)


def answered(circuit: Circuit) -> Circuit:
    """The circuit after a call that the provider answered, be it with an error of the caller's."""
    if circuit.is_open and not circuit.probing:
        return circuit  # a call from before: it tells nothing of new ones
    return Circuit()


def _opened(circuit: Circuit, now: float, seconds: float, retry_after: float | None) -> Circuit:
    asked = min(MAX_ASKED_SECONDS, retry_after or 0.0)
    return replace(circuit, probing=False, open_until=now + max(seconds, asked))
