"""What tests of templates share."""

from typing import Any

_TEXT = {"value": None, "description": None, "schema": {"type": ["null", "string"]}}

MULTI_AGENT_PARAMS: dict[str, Any] = {
    "query": _TEXT,
    "image_url": _TEXT,
    "text": _TEXT,
    "agents": {
        "value": None,
        "description": None,
        "schema": {"type": ["null", "array"], "items": {"type": "object", "required": ["name"]}},
    },
    "orchestration_mode": {
        "value": "parallel",
        "description": None,
        "schema": {"type": "string", "enum": ["parallel", "sequential", "graph", "supervisor"]},
    },
    "synthesis": {"value": True, "description": None, "schema": {"type": ["boolean", "object"]}},
    "supervisor": {"value": None, "description": None, "schema": {"type": ["null", "object"]}},
    "max_steps": {"value": None, "description": None, "schema": {"type": ["null", "integer"], "minimum": 1}},
    "error_policy": {"value": None, "description": None, "schema": {"type": ["null", "object"]}},
}
"""Params as `/details` shows those of `multi_agent_workflow`."""
