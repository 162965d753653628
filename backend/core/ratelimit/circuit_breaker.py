"""A circuit breaker per model: once several callers in a row have found a provider down, the others need not try.

The circuit is closed until `FAILURES` calls from at least `CALLERS` callers have failed in a row. It is then open, and
every call is refused at once. After `OPEN_SECONDS` one call is admitted as a probe. If the provider answers it, the
circuit closes; otherwise it stays open for twice as long as before.

All functions are pure. Times are seconds since 1970 on the clock of the store that all callers share.
"""

from dataclasses import dataclass, replace

FAILURES = 5
CALLERS = 2
"""A single caller may itself be the cause of its failures."""
FAILURE_WINDOW = 60.0
"""Failures further apart than this, in seconds, are not in a row."""
OPEN_SECONDS = 10.0
MAX_OPEN_SECONDS = 120.0
MAX_RETRY_AFTER = 600.0
"""How long the circuit stays open: at first, at most, and at most if the provider asks for longer."""
PROBE_SECONDS = 30.0
"""A probe without an answer is given up after this time: its process may have died."""
PROBE_RETRY_SECONDS = 5.0
"""When a refused caller should ask again while a probe is in flight."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """The state of one breaker. `opened_at` is since when the provider has been down; None while the circuit is closed.

    `failed_by` are the first callers of the current series of failures, at most `CALLERS` of them. At `open_until` the
    next probe may start; while `probing`, it is when the probe in flight is given up.
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
        """Whether the provider is considered down."""
        return self.opened_at is not None

    def refusal(self, now: float) -> float | None:
        """Seconds for which calls are refused. None: a call may start, as a probe if the circuit is open."""
        if self.opened_at is None or self.open_until <= now:
            return None
        left = self.open_until - now
        return min(left, PROBE_RETRY_SECONDS) if self.probing else left


def probe(circuit: Circuit, now: float) -> Circuit:
    """The circuit while one call checks whether the provider is back."""
    return replace(circuit, probing=True, open_until=now + PROBE_SECONDS)


def failed(circuit: Circuit, now: float, caller: str, retry_after: float | None) -> Circuit:
    """The circuit after a call that found the provider down. `retry_after` is what it asked for, in seconds."""
    if circuit.is_open and not circuit.probing:
        return circuit  # the call started before the circuit opened
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
    """The circuit after a call that the provider answered, even if it answered with an error of the caller."""
    if circuit.is_open and not circuit.probing:
        return circuit  # the call started before the circuit opened, so it says nothing about new calls
    return Circuit()


def _opened(circuit: Circuit, now: float, seconds: float, retry_after: float | None) -> Circuit:
    asked_for = min(MAX_RETRY_AFTER, retry_after or 0.0)
    return replace(circuit, probing=False, open_until=now + max(seconds, asked_for))
