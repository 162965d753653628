"""How an agent ended."""

from dataclasses import dataclass
from typing import Any

from backend.models.usage import Usage


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an agent ended. `error` is the exception of a failed one."""

    state: str
    output: Any
    model: str | None
    notice: str | None
    usage: Usage
    trace_id: str
    error: Exception | None = None

    def usage_json(self) -> dict[str, int]:
        """The tokens as XCom has them."""
        return {"input_tokens": self.usage.input_tokens, "output_tokens": self.usage.output_tokens}
