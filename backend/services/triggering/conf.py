"""The conf of a run as JSON text: what Airflow is sent, and what is recorded of it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from backend.core.jsonable import dumps
from backend.core.redaction import redact
from backend.core.run_envelope import SYSTEM_KEY


@dataclass(frozen=True, slots=True)
class EncodedInput:
    """A run's input as JSON, encoded once: whatever comes after passes texts on."""

    text: bytes
    recorded: str
    """Without secrets."""
    uploads: Collection[str] = ()
    """The references that stand for pictures which the input contained."""

    def conf(self, system: dict[str, Any]) -> list[bytes]:
        """The pieces of the run's conf: its input, and what the system adds under its own key."""
        joint = "{" if self.text == b"{}" else ","
        return [self.text[:-1] if joint == "," else b"", f"{joint}{dumps(SYSTEM_KEY)}:{dumps(system)}}}".encode()]


def encode_input(input_data: dict[str, Any], uploads: Collection[str] = ()) -> EncodedInput:
    """Encode a run's input."""
    return EncodedInput(dumps(input_data).encode(), dumps(redact(input_data)), uploads)
