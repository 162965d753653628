"""What others learn of the attempts at a model call: the listeners' interface, and what an error's record holds.

A model call may take several attempts. LangChain's callbacks report each of them as a call of its own and know nothing
about what connects them. Callback handlers that also implement `AttemptListener` or `AttemptWatcher` are told that.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from backend.core.errors.classify import error_chain
from backend.core.workflow_error_handler import FailedAttempt, facts_of
from backend.models.token_estimate import estimate_messages

CALL_KEY = "visual_ai_call"
"""Key in a model call's metadata: the id of the agent's call, shared by all of its attempts."""
ATTEMPT_KEY = "visual_ai_attempt"
"""Key in a model call's metadata: the attempt's number, from 1."""

PROMPT_EXCERPT = 500
"""How many characters of a prompt are kept with its error."""

_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "x-ms-region", "cf-ray", "server", "date")
_HEADER_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-", "x-envoy-", "x-amzn-errortype")


@dataclass(frozen=True, slots=True)
class RetryTiming:
    """How waits between attempts are carried out: `sleep` waits for some seconds, `draw` returns the jitter (0 to 1).

    Tests replace both.
    """

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Callable[[], float] = random.random


REAL_TIME = RetryTiming()


@runtime_checkable
class AttemptListener(Protocol):
    """A callback handler that wants to know how a model call gets past failed attempts."""

    def attempt_failed(self, failed: FailedAttempt, metadata: Mapping[str, Any]) -> None:
        """An attempt failed, and another one follows. `metadata` is that of the call's config."""
        ...

    def call_recovered(self, failed: Sequence[FailedAttempt], metadata: Mapping[str, Any]) -> None:
        """The call succeeded after these attempts."""
        ...

    def took_over(self, model: str, notice: str) -> None:
        """A fallback model answered instead of the chosen one. `notice` says so to the user."""
        ...


@runtime_checkable
class NoticeListener(Protocol):
    """A callback handler that wants to know what the user should know about an answer."""

    def noticed(self, notice: str) -> None:
        """There is something to know about an answer that was accepted."""
        ...


@runtime_checkable
class AttemptWatcher(Protocol):
    """A callback handler that wants to know the end of every attempt at a model call."""

    def attempt_over(self, number: int, model: str, failed: FailedAttempt | None, metadata: Mapping[str, Any]) -> None:
        """An attempt succeeded (`failed` is None) or failed. `metadata` is that of the call's config."""
        ...


def listeners_of(config: RunnableConfig) -> list[AttemptListener]:
    """The attempt listeners among the callbacks of a run."""
    return [handler for handler in _handlers(config) if isinstance(handler, AttemptListener)]


def notice_listeners_of(config: RunnableConfig) -> list[NoticeListener]:
    """The notice listeners among the callbacks of a run."""
    return [handler for handler in _handlers(config) if isinstance(handler, NoticeListener)]


def watchers_of(config: RunnableConfig) -> list[AttemptWatcher]:
    """The attempt watchers among the callbacks of a run."""
    return [handler for handler in _handlers(config) if isinstance(handler, AttemptWatcher)]


def _handlers(config: RunnableConfig) -> Sequence[Any]:
    callbacks = config.get("callbacks")
    return callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or []


def error_context(error: BaseException, **more: Any) -> dict[str, Any]:
    """What helps to understand an error later: status, codes, request id, relevant headers, the provider's words."""
    found = [facts_of(cause) for cause in error_chain(error)]
    facts = next((each for each in found if each.status is not None or each.body), found[0])
    headers = {
        name: value for name, value in facts.headers.items() if name in _HEADERS or name.startswith(_HEADER_PREFIXES)
    }
    context = {
        "status": facts.status,
        "codes": [*facts.codes, *facts.kinds],
        "request_id": facts.request_id,
        "headers": headers,
        "provider_message": facts.message,
        "body": facts.body,
        **more,
    }
    return {key: value for key, value in context.items() if value not in (None, [], {}, "")}


def prompt_context(messages: Sequence[BaseMessage]) -> dict[str, Any]:
    """The beginning of a prompt's last message, and the prompt's size. Pictures are only counted."""
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
