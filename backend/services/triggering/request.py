"""A request to trigger a run."""

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson

from backend.core.large_values import LARGE


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """A client's request.

    `template` is `name` or `name@version`; with a template `dag_id` may be empty. If `model` or `budget` is None, the
    template's applies, or else that of the user's preferences. The budget `{}` means no budget.
    """

    dag_id: str
    input_data: dict[str, Any]
    user_id: str | None = None
    model: str | None = None
    run_after: datetime | None = None
    budget: dict[str, Any] | None = None
    template: str | None = None
    logical_date: datetime | None = None
    fork: list[Any] | None = None
    """What the client asked of a fork; the run's input is then that of its source if `input_data` is empty."""
    schedule: str | None = None
    """The id of the schedule that the run is due to. Its idempotency key tells it apart, not the fingerprint."""

    def fingerprint(self) -> str:
        """A hash that is equal for equal requests only. Of a large request it takes a while: see `large_values`."""
        text = orjson.dumps(self._content(), option=orjson.OPT_SORT_KEYS)
        return sha256(text).hexdigest() if len(text) > LARGE else self._former_fingerprint()

    def has_fingerprint(self, known: str) -> bool:
        """Whether `known` is the request's fingerprint."""
        return known in (self.fingerprint(), self._former_fingerprint())

    def _former_fingerprint(self) -> str:
        """The hash of requests of all sizes before large ones got one that is computed ten times as fast."""
        return sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def _content(self) -> list[Any]:
        content: list[Any] = [
            self.dag_id,
            self.input_data,
            self.user_id,
            self.model,
            self.run_after.isoformat() if self.run_after else None,
        ]
        # Appended only if present, so that earlier fingerprints stay valid. With a template `{}` replaces its budget.
        if self.budget or (self.template and self.budget is not None):
            content.append(self.budget)
        if self.template:
            content.append(["template", self.template])
        if self.logical_date:
            content.append(["logical_date", self.logical_date.isoformat()])
        if self.fork:
            content.append(["fork", self.fork])
        return content
