"""What a run's timeline says of the run itself: the payload of `workflow_update`."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from backend.core.jsonable import is_larger
from backend.core.redaction import redact
from backend.core.states import TERMINAL_RUN_STATES

EVENT_RESULT_LIMIT = 16_000
"""Characters of a result's JSON text up to which it is part of the run's last event. Up to 64 KB in UTF-8: some clients
read no longer lines."""

_REPORTED = (
    "dag_id", "dag_run_id", "state", "progress", "tasks_total", "tasks_done", "started_at", "finished_at", "attempt",
)  # fmt: skip


def workflow_payload(row: Mapping[str, Any]) -> dict[str, Any]:
    """The payload of a `workflow_update`. A large result travels by reference: every subscriber gets the event."""
    payload = {name: row[name] for name in _REPORTED}
    result = row["output_data"]
    if row["state"] not in TERMINAL_RUN_STATES or result is None:
        return payload
    if not is_larger(result, EVENT_RESULT_LIMIT):
        return {**payload, "result": result}
    run = "/".join(quote(row[name], safe="") for name in ("dag_id", "dag_run_id"))
    reference = {
        "url": f"/workflow-status/{run}/result",
        "media_type": "application/json",
        "excerpt": redact(result, limit=1_000, total=4_000),
    }
    return {**payload, "result_ref": reference}
