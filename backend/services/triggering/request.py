"""A request to trigger a run."""

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any


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

    def fingerprint(self) -> str:
        """A hash that is equal for equal requests only."""
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
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
