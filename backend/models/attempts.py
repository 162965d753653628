"""What is known of an attempt that failed: for the record, the stream and whoever decides what follows."""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from backend.core.workflow_error_handler import Classified, Decision, classify, facts_of
from backend.models.token_estimate import estimate_messages

CALL_KEY = "visual_ai_call"
"""In the metadata of a model call: which call of the agent it belongs to, the same for all of its attempts."""
ATTEMPT_KEY = "visual_ai_attempt"

PROMPT_EXCERPT = 500
"""Characters of a prompt that are kept with its error."""

_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "x-ms-region", "cf-ray", "server", "date")
_HEADER_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-", "x-envoy-", "x-amzn-errortype")


@dataclass(frozen=True, slots=True)
class Pace:
    """How waits between attempts are carried out: `sleep` waits, and `draw` gives the jitter, from 0 to 1."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Callable[[], float] = random.random


REAL_TIME = Pace()


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt at a model call or a node. `number` counts the attempts at it from 1."""

    error: Exception
    decision: Decision
    number: int
    model: str | None
    context: Mapping[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def found(self) -> Classified:
        """What the error is."""
        return classify(self.error)


@runtime_checkable
class AttemptListener(Protocol):
    """A callback handler that is told of attempts at model calls which something follows."""

    def attempt_failed(self, failed: FailedAttempt, metadata: Mapping[str, Any]) -> None:
        """An attempt failed, and another one follows. `metadata` is the config's."""
        ...

    def call_recovered(self, failed: Sequence[FailedAttempt], metadata: Mapping[str, Any]) -> None:
        """A call succeeded after these attempts."""
        ...

    def took_over(self, model: str, notice: str) -> None:
        """Another model answered than the chosen one."""
        ...


@runtime_checkable
class AttemptWatcher(Protocol):
    """A callback handler that is told of the end of each attempt at a model call, whatever follows."""

    def attempt_over(self, number: int, model: str, failed: FailedAttempt | None, metadata: Mapping[str, Any]) -> None:
        """An attempt succeeded (None) or failed. `metadata` is the config's."""
        ...


def listeners_of(config: RunnableConfig) -> list[AttemptListener]:
    """Those among the callbacks of a run that are told of attempts."""
    return [handler for handler in _handlers(config) if isinstance(handler, AttemptListener)]


def watchers_of(config: RunnableConfig) -> list[AttemptWatcher]:
    """Those that are told of the end of each."""
    return [handler for handler in _handlers(config) if isinstance(handler, AttemptWatcher)]


def _handlers(config: RunnableConfig) -> Sequence[Any]:
    callbacks = config.get("callbacks")
    return callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or []


def attempt_on(error: BaseException) -> FailedAttempt | None:
    """The attempt that an error ended, with nothing following."""
    attempt = getattr(error, "visual_ai_attempt", None)
    return attempt if isinstance(attempt, FailedAttempt) else None


def end_with(attempt: FailedAttempt) -> None:
    """Say at the attempt's error that it was the last one."""
    attempt.error.visual_ai_attempt = attempt  # type: ignore[attr-defined]  # read by `attempt_on`


def error_context(error: BaseException, **more: Any) -> dict[str, Any]:
    """What helps to understand an error later: status, codes, request id and the headers that matter."""
    facts = facts_of(error)
    headers = {
        name: value for name, value in facts.headers.items() if name in _HEADERS or name.startswith(_HEADER_PREFIXES)
    }
    context = {
        "status": facts.status,
        "codes": [*facts.codes, *facts.kinds],
        "request_id": facts.request_id,
        "headers": headers,
        **more,
    }
    return {key: value for key, value in context.items() if value not in (None, [], {})}


def prompt_context(messages: Sequence[BaseMessage]) -> dict[str, Any]:
    """The beginning of a prompt's last message, and the prompt's sizes. Pictures are only counted."""
    text = "".join(message.text for message in messages)
    pictures = sum(
        isinstance(part, Mapping) and part.get("type") in ("image", "image_url")
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
    )
    return {
        "prompt": messages[-1].text[:PROMPT_EXCERPT] if messages else "",
        "prompt_chars": len(text),
        "prompt_tokens": estimate_messages(messages),
        "messages": len(messages),
        "pictures": pictures,
    }
