"""Estimates how many tokens a prompt has. It uses no tokenizer, because those of most models aren't available offline.

The estimate is one token per four bytes of UTF-8 text, four per message and 1,000 per picture.
"""

import json
import math
from collections.abc import Iterable

from langchain_core.messages import AIMessage, BaseMessage

MESSAGE_TOKENS = 4
"""The overhead of a message: OpenAI's cookbook counts three or four tokens for each."""
PICTURE_TOKENS = 1_000
"""Approximately what a large picture takes with the models of OpenAI and Anthropic."""
BYTES_PER_TOKEN = 4


def estimate_messages(messages: Iterable[BaseMessage]) -> int:
    """Estimate the tokens of a prompt."""
    return sum(MESSAGE_TOKENS + _estimate_content(message) for message in messages)


def estimate_text(text: str) -> int:
    """Estimate the tokens of a text."""
    return math.ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN)


def _estimate_content(message: BaseMessage) -> int:
    content = message.content
    tokens = 0
    for part in [content] if isinstance(content, str) else content:
        if isinstance(part, str):
            tokens += estimate_text(part)
        elif part.get("type") in ("text", "reasoning"):
            tokens += estimate_text(str(part.get("text") or part.get("reasoning") or ""))
        else:
            tokens += PICTURE_TOKENS
    if isinstance(message, AIMessage) and message.tool_calls:
        tokens += estimate_text(json.dumps(message.tool_calls, default=str))
    return tokens
