"""What the trigger adds to a run's conf under one key, and how it is told from what others write there.

Whoever may start runs in Airflow writes their confs. So the trigger signs what it adds: for whom the run is, its
template, model and budget. The signature holds for one run, so a copied conf brings nothing along. What isn't signed is
the caller's own input, and is recorded as such.
"""

import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Self

SYSTEM_KEY = "_visual_ai"
"""The only key of `dag_run.conf` that belongs to the system."""

SIGNATURE = "signature"
"""The key, under that key, of the signature."""

UPLOADS = "uploads"
"""The key, under that key, of uploads that the trigger made of pictures in the input: their references."""

SHARED_UPLOADS = "shared_uploads"
"""The key of other people's uploads that the run may read, because whoever started it may."""

FORK = "fork"
"""The key, under the system's key of a run's conf, of the fork."""


def signed(key: bytes, dag_id: str, dag_run_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What stands under `SYSTEM_KEY` in the conf of this run."""
    return {**values, SIGNATURE: _signature(key, dag_id, dag_run_id, values)}


def read_signed(key: bytes, dag_id: str, dag_run_id: str, conf: Mapping[str, Any]) -> dict[str, Any]:
    """What the trigger added to the conf of this run; empty if it added nothing."""
    found = conf.get(SYSTEM_KEY)
    if not isinstance(found, Mapping):
        return {}
    values = {name: value for name, value in found.items() if name != SIGNATURE}
    given = found.get(SIGNATURE)
    if not isinstance(given, str) or not given.isascii():
        return {}
    return values if hmac.compare_digest(given, _signature(key, dag_id, dag_run_id, values)) else {}


def _signature(key: bytes, dag_id: str, dag_run_id: str, values: Mapping[str, Any]) -> str:
    text = json.dumps([dag_id, dag_run_id, _plain(values)], sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), sha256).hexdigest()


def _plain(value: Any) -> Any:
    """The value as it comes out of any database: some write 5.0 for 5, or 5 for 5.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a run was forked: one agent goes on from a state that it had in another run of the DAG. And what is
    different in it."""

    dag_run_id: str
    task_id: str
    map_index: int
    agent: str | None
    """The agent's name; None if nothing is known of it but its thread."""
    thread: str
    """What follows the task's thread in the name of the agent's: empty, `/<agent>`, `/<agent>/<call>` or `/<item>`."""
    checkpoint_id: str | None
    """None: the agent begins anew."""
    namespace: str = ""
    """That of the checkpoint, if it is a subgraph's."""
    root_id: str | None = None
    """The checkpoint of the agent's own graph in which the subgraph ran; else the checkpoint itself."""
    node: str | None = None
    values: Mapping[str, Any] | None = None
    as_node: str | None = None
    other_input: bool = False
    """Whether the new run has another input."""
    model: str | None = None
    system_prompt: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fork as it stands in the conf."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", False)}

    @classmethod
    def of(cls, found: Any) -> Self | None:
        """The fork that stands in a conf, if one does."""
        if not isinstance(found, Mapping):
            return None
        return cls(**{"agent": None, "thread": "", "checkpoint_id": None, **found})

    @property
    def source(self) -> dict[str, Any]:
        """What is recorded of it."""
        return {
            "dag_run_id": self.dag_run_id,
            "task_id": self.task_id,
            "map_index": self.map_index,
            "agent": self.agent,
            "checkpoint_id": self.checkpoint_id,
            "node": self.node,
        }

    @property
    def changes_state(self) -> bool:
        """Whether the checkpoint's state is to be changed before the agent goes on."""
        return self.checkpoint_id is not None and (self.values is not None or self.other_input)
