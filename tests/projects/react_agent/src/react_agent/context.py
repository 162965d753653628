"""What can be set about the agent."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Context:
    """The context of a run."""

    system_prompt: str = field(default="You are a helpful assistant.")
    model: str = field(default="openai/gpt-4.1-mini")
    max_search_results: int = field(default=3)
