"""What a run's timeline says of the run itself: the payload of `workflow_update`; and large values by reference."""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

from backend.core.states import TERMINAL_RUN_STATES

WHOLE_BYTES = 32_768
"""Bytes of JSON text up to which an input or a result stands in snapshots and events as it is. The migration
`022_large_values` computes the references of larger ones."""

EXCERPT_CHARACTERS = 4_000
"""Characters of its JSON text with which a larger value begins there."""

MEDIA_TYPE = "application/json"

_REPORTED = (
    "dag_id", "dag_run_id", "state", "progress", "tasks_total", "tasks_done", "started_at", "finished_at", "attempt",
)  # fmt: skip


def workflow_payload(row: Mapping[str, Any], result: Any = None) -> dict[str, Any]:
    """The payload of a `workflow_update`. The last one has the `result`, as `results.shown` returns it."""
    payload = {name: row[name] for name in _REPORTED}
    return payload if result is None or row["state"] not in TERMINAL_RUN_STATES else {**payload, "result": result}


def truncated(
    row: Mapping[str, Any], leaf: Literal["input", "result"], *, size: int, excerpt: str, sha256: str
) -> dict[str, Any]:
    """What stands for a large input or result of the run of this row."""
    run = "/".join(quote(row[name], safe="") for name in ("dag_id", "dag_run_id"))
    # The result of a run that did not succeed has to be asked for.
    query = "?partial=true" if leaf == "result" and row["state"] in ("failed", "cancelled") else ""
    return reference(f"/workflow-status/{run}/{leaf}{query}", size=size, excerpt=excerpt, sha256=sha256)


def reference(url: str, *, size: int, excerpt: str, sha256: str) -> dict[str, Any]:
    """What stands for a large value: its size in bytes, the beginning of its JSON text, and where the whole is."""
    return {
        "truncated": True,
        "bytes": size,
        "media_type": MEDIA_TYPE,
        "sha256": sha256,
        "excerpt": excerpt,
        "url": url,
    }
