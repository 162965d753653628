"""What a supervisor may decide. Cheap to import, because DAG files do so when they are parsed."""

from typing import Any

FINISH = "FINISH"
"""The choice that ends the work, instead of an agent's name."""


def decision_schema(agents: list[str]) -> dict[str, Any]:
    """The JSON Schema of a decision, which admits only these agents."""
    return {
        "title": "Decision",
        "type": "object",
        "properties": {
            "next": {"type": "string", "enum": [*agents, FINISH]},
            "instruction": {"type": ["string", "null"], "description": "What the agent should do, if it isn't plain."},
            "reason": {"type": "string", "description": "Why, in a sentence."},
        },
        "required": ["next", "instruction", "reason"],
        "additionalProperties": False,
    }
