"""The gate that all agents of all processes share: one turn after the other where a model is limited, none at all while
its provider is down, and no delay where nothing limits it."""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import uuid4

from backend.core.ratelimit.adaptive_rate import Admitted
from backend.core.ratelimit.configured import ModelLimit, limit_of
from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError
from backend.ratelimit.queue import Lane, Outcome
from backend.ratelimit.stores import LimitStore

log = logging.getLogger(__name__)

OWN_MACHINE = "local:"
"""Models that nobody limits."""


@dataclass(frozen=True, slots=True)
class _Admission:
    """What is remembered of a call under way, in the context of the task that makes it."""

    model: str
    admitted: Admitted | None
    tokens: int
    caller: str


_admission: ContextVar[_Admission | None] = ContextVar("visual_ai_model_admission", default=None)


class SharedGate:
    """A `ModelGate` for the calls of one event loop. `store` keeps what it shares with the others."""

    def __init__(self, store: LimitStore, limits: Mapping[str, ModelLimit]) -> None:
        self._store = store
        self._limits = limits
        self._lanes: dict[str, Lane] = {}

    async def admit(self, model: str, *, tokens: int, max_wait: float) -> None:
        """Wait for the call's turn; see `ModelGate`."""
        if model.startswith(OWN_MACHINE):
            return
        before = _admission.get()
        admitted = None
        try:
            admitted = await self._lane(model).admit(tokens, max_wait)
        except (HeldBackError, CircuitOpenError):
            raise
        except Exception:
            log.exception("the gate of %s failed and lets a call pass", model)
        _admission.set(_Admission(model, admitted, tokens, before.caller if before else uuid4().hex[:12]))

    async def report(
        self, model: str, outcome: Outcome, *, retry_after: float | None = None, tokens: int | None = None
    ) -> None:
        """Tell how an admitted call went; see `ModelGate`."""
        if model.startswith(OWN_MACHINE):
            return
        latest = _admission.get()
        admission = latest if latest is not None and latest.model == model else None
        if tokens is None and outcome != "ok":  # nothing was used
            tokens = 0
        try:
            await self._lane(model).report(
                outcome,
                caller=latest.caller if latest is not None else uuid4().hex[:12],
                admitted=admission.admitted if admission is not None else None,
                retry_after=retry_after,
                more_tokens=tokens - admission.tokens if admission is not None and tokens is not None else 0,
            )
        except Exception:
            log.exception("the gate of %s could not be told of a call", model)

    async def close(self) -> None:
        """Write down what was counted and close the store. Never raises."""
        for model, lane in self._lanes.items():
            try:
                await lane.close()
            except Exception as error:
                log.warning("what was counted of %s is lost: %s", model, type(error).__name__)
        try:
            await self._store.close()
        except Exception as error:
            log.warning("the store of models' limits was not closed: %s", type(error).__name__)

    def _lane(self, model: str) -> Lane:
        lane = self._lanes.get(model)
        if lane is None:
            lane = self._lanes[model] = Lane(model, self._store, limit_of(self._limits, model))
        return lane
