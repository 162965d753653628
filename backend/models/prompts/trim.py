"""Shortens a prompt where that loses the least, and marks in the prompt what was left out.

The results of tools are cut first, beginning with the oldest; then the longest texts, in their middle. Instructions
(system messages and the text around fenced documents) and pictures are left unchanged.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from backend.models.prompts.document import documents, with_documents
from backend.models.token_estimate import estimate_messages, estimate_text

KEPT_TOKENS = 200
"""No text is cut to fewer tokens than this, and shorter ones are kept whole."""
_MARK_TOKENS = 30


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A shortened prompt, and how many characters were left out of it."""

    messages: list[BaseMessage]
    left_out: int


def trim_prompt(messages: Sequence[BaseMessage], tokens: int) -> Trimmed:
    """Cut a prompt to about `tokens`, as `estimate_messages` counts them, or as far as possible."""
    cutter = _Cutter()
    kept = list(messages)
    for index, message in enumerate(kept):
        if estimate_messages(kept) <= tokens:
            return Trimmed(kept, cutter.left_out)
        if isinstance(message, ToolMessage):
            kept[index] = _changed(message, lambda text: cutter.cut(text, KEPT_TOKENS))
    excess = estimate_messages(kept) - tokens
    if excess > 0:
        sizes = [estimate_text(text) for message in kept if _may_cut(message) for text in _texts(message)]
        level = _level(sizes, sum(sizes) - excess)
        kept = [
            _changed(message, lambda text: with_documents(text, lambda part: cutter.cut(part, level)))
            if _may_cut(message)
            else message
            for message in kept
        ]
    return Trimmed(kept, cutter.left_out)


def least_tokens(messages: Sequence[BaseMessage]) -> int:
    """The fewest tokens that a prompt can be cut to."""
    return estimate_messages(trim_prompt(messages, 0).messages)


class _Cutter:
    """Cuts texts, and counts the characters that it leaves out."""

    def __init__(self) -> None:
        self.left_out = 0

    def cut(self, text: str, tokens: int) -> str:
        """Return the beginning and the end of a text, with a mark between them."""
        size = estimate_text(text)
        tokens = max(tokens, KEPT_TOKENS)
        if size <= tokens + _MARK_TOKENS:
            return text
        kept = math.floor(len(text) * tokens / size)
        head = kept * 2 // 3
        left_out = len(text) - kept
        self.left_out += left_out
        mark = f"[… {left_out} characters were left out here: the model can't hold the whole text …]"
        return f"{text[:head]}\n{mark}\n{text[len(text) - (kept - head) :]}"


def _level(sizes: Sequence[int], room: int) -> int:
    """The size to which the longest texts must be cut for all texts together to fit."""
    left, room = sorted(sizes), max(room, 0)
    while left and left[0] * len(left) <= room:
        room -= left.pop(0)
    # The marks take tokens as well.
    return max((room // len(left) if left else room) - _MARK_TOKENS, KEPT_TOKENS)


def _may_cut(message: BaseMessage) -> bool:
    return isinstance(message, HumanMessage | AIMessage)


def _texts(message: BaseMessage) -> list[str]:
    content = message.content
    parts: list[Any] = [content] if isinstance(content, str) else list(content)
    texts = [part if isinstance(part, str) else part.get("text") for part in parts]
    return [document for text in texts if isinstance(text, str) for document in documents(text)]


def _changed(message: BaseMessage, change: Callable[[str], str]) -> BaseMessage:
    content = message.content
    if isinstance(content, str):
        return message.model_copy(update={"content": change(content)})
    parts = [
        change(part)
        if isinstance(part, str)
        else {**part, "text": change(part["text"])}
        if isinstance(part.get("text"), str)
        else part
        for part in content
    ]
    return message.model_copy(update={"content": parts})
