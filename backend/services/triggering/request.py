"""What is asked for when a run is to be started."""

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """What a client asks for.

    `template` is `name` or `name@version`; with one, `dag_id` may be empty. Where the request names no model or budget
    (`{}` names none), those of the template, and then its user's preferences apply.
    """

    dag_id: str
    input_data: dict[str, Any]
    user_id: str | None = None
    model: str | None = None
    run_after: datetime | None = None
    budget: dict[str, Any] | None = None
    template: str | None = None

    def fingerprint(self) -> str:
        """The same for the same request only."""
        content: list[Any] = [
            self.dag_id,
            self.input_data,
            self.user_id,
            self.model,
            self.run_after.isoformat() if self.run_after else None,
        ]
        # Appended, so that the keys of requests without them stay good. `{}` is one that a template's would replace.
        if self.budget or (self.template and self.budget is not None):
            content.append(self.budget)
        if self.template:
            content.append(["template", self.template])
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
