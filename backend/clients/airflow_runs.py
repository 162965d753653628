"""Runs as Airflow's API sends and takes them, each with its whole conf.

A conf may have megabytes, and a list of runs comes every few seconds: a large conf is left as the text it is.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from backend.core.jsonable import dumps, loads
from backend.core.large_values import LARGE

CONF_TEXT = "conf_text"
"""The key under which a run has its conf as JSON text, if that is large; `conf` is then null."""

_Members = dict[str, msgspec.Raw]


def trigger_body(
    dag_run_id: str, conf: Iterable[bytes], *, run_after: datetime | None = None, logical_date: datetime | None = None
) -> bytes:
    """The body of a request that starts a run; `conf` is JSON text in pieces."""
    body = {"dag_run_id": dag_run_id, "logical_date": logical_date.isoformat() if logical_date is not None else None}
    if run_after is not None:
        body["run_after"] = run_after.isoformat()
    return b"".join([dumps(body)[:-1].encode(), b',"conf":', *conf, b"}"])


def decode_run(text: bytes) -> dict[str, Any]:
    """A run. Raises `ValueError` if this is no JSON object."""
    return _decoded(msgspec.json.decode(text, type=_Members))


def decode_runs(text: bytes) -> list[dict[str, Any]]:
    """The runs of a page. Raises `ValueError` if this is no page of runs."""
    page = msgspec.json.decode(text, type=_Members)
    if "dag_runs" not in page:
        raise ValueError("no runs")
    return [_decoded(run) for run in msgspec.json.decode(page["dag_runs"], type=list[_Members])]


def _decoded(run: _Members) -> dict[str, Any]:
    conf = bytes(run.pop("conf", b"null"))
    decoded: dict[str, Any] = {name: loads(bytes(value)) for name, value in run.items()}
    return {**decoded, "conf": None, CONF_TEXT: conf} if len(conf) > LARGE else {**decoded, "conf": loads(conf)}
