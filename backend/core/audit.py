"""What the audit log records: one entry for each act that matters to whoever has to explain what happened.

An entry never contains a secret or what a run is about: no prompt, no answer, no address of a webhook.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.core.roles import Origin, Principal

Action = Literal[
    "sign_in",
    "sign_in.airflow",
    "sign_out",
    "sign_out.everywhere",
    "token.create",
    "token.revoke",
    "role.change",
    "run.trigger",
    "run.trigger_batch",
    "run.cancel",
    "run.retry",
    "run.fork",
    "template.create",
    "template.add_version",
    "template.activate",
    "template.retire",
    "schedule.set",
    "schedule.delete",
    "schedule.stop",
    "preferences.change",
    "limits.change",
    "question.answer",
    "question.assign",
    "image.upload",
    "notification.resend",
    "request.refused",
]

Outcome = Literal["done", "refused", "failed"]
"""`refused`: the caller may not do that, or not yet. `failed`: what they gave was wrong, such as a password."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One act. `user_id` is who did it; of a sign-in that failed, the name that was given."""

    action: Action
    outcome: Outcome = "done"
    user_id: str | None = None
    role: str | None = None
    credential: str | None = None
    origin: Origin | None = None
    object: str | None = None
    """What was acted on: `<dag_id>/<dag_run_id>`, or the name of a template, token or user."""
    details: Mapping[str, Any] = field(default_factory=dict)


def entry_of(
    who: Principal, action: Action, object_name: str | None = None, *, outcome: Outcome = "done", **details: Any
) -> Entry:
    """An entry about what `who` did. Details that are None are left out."""
    return Entry(
        action,
        outcome,
        who.username,
        who.role.label,
        who.credential,
        who.origin,
        object_name,
        {name: value for name, value in details.items() if value is not None},
    )
