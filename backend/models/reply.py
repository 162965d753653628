"""What the agents read off a model's answer."""

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

Model = Runnable[LanguageModelInput, AIMessage]
"""A chat model, or whatever is wrapped around one."""


def local_analysis(reply: AIMessage) -> Mapping[str, Any] | None:
    """The structured findings of an offline model; None when a hosted model answered."""
    if not str(reply.response_metadata.get("model_name", "")).startswith("local:"):
        return None
    analysis = reply.additional_kwargs.get("analysis")
    return analysis if isinstance(analysis, dict) else {}
