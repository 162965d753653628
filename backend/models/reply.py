"""A model as the agents see it, and what they read from its replies."""

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from backend.models.completeness import INCOMPLETE_KEY

Model = Runnable[LanguageModelInput, AIMessage]
"""A chat model, or a wrapper around one."""


def notice_of(reply: AIMessage) -> str | None:
    """What the user should know about an answer: that of an offline model, or one that is incomplete and accepted."""
    analysis = local_analysis(reply)
    notice = analysis.get("notice") if analysis is not None else reply.additional_kwargs.get(INCOMPLETE_KEY)
    return str(notice) if notice else None


def local_analysis(reply: AIMessage) -> Mapping[str, Any] | None:
    """The structured findings of an offline model; None if a hosted model answered."""
    if not str(reply.response_metadata.get("model_name", "")).startswith("local:"):
        return None
    analysis = reply.additional_kwargs.get("analysis")
    return analysis if isinstance(analysis, dict) else {}
