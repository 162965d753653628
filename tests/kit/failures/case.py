"""Failures of model providers: what each looks like, what should follow from it, and the bodies that providers send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.core.workflow_error_handler import Action, Category
from tests.kit.openai.behaviour import Json, error_object

Speaks = Literal["openai", "azure_openai", "anthropic", "ollama"]
"""The protocol, hence the client."""

FALLBACK = "gpt-4.1-nano"
"""The model that takes over from the one that the cases call."""

PASSED: tuple[Action, ...] = ("retry",)
"""The call fails once and then succeeds."""
HTML = {"content-type": "text/html"}


@dataclass(frozen=True)
class Case:
    """A failure, and what should follow from it.

    `behaviour` is what the server does, `times` to how many requests, None: to all. `category` is that of every error,
    `actions` what was done about each in turn; `waits` are the seconds between the requests. `whole` asks for an answer
    in one piece. `address` replaces the server's.
    """

    name: str
    category: Category
    behaviour: Mapping[str, Any] = field(default_factory=dict)
    actions: tuple[Action, ...] = PASSED
    waits: tuple[float, ...] = (1.0,)
    times: int | None = 1
    speaks: Speaks = "openai"
    whole: bool = False
    timeout: float = 10.0
    address: str | None = None
    key: str = "test-key"

    @property
    def answered(self) -> bool:
        """Whether the agent finally succeeds."""
        return self.actions[-1] in ("retry", "fallback", "repair")

    def __str__(self) -> str:
        return self.name


def final(name: str, category: Category, status: int, body: Any, **more: Any) -> Case:
    """The task fails at once: one request, no wait."""
    behaviour = {"status": status, "body": body, **more.pop("behaviour", {})}
    return Case(name, category, behaviour, ("fail",), (), None, **more)


def passing(name: str, category: Category, status: int, body: Any, wait: float = 1.0, **more: Any) -> Case:
    """The failure is gone when the call is retried."""
    behaviour = {"status": status, "body": body, "headers": more.pop("headers", {})}
    return Case(name, category, behaviour, waits=(wait,), **more)


def overflow(name: str, status: int, body: Any) -> Case:
    """Another model can hold the prompt: one request to each of the two, no wait."""
    return Case(name, "context_length", {"status": status, "body": body}, ("fallback",), (0.0,))


def error(message: str, type_: str | None = None, code: Any = None, **more: Any) -> Json:
    """OpenAI's body."""
    return {"error": {**error_object(message, type_, None), "code": code, **more}}


def vllm(message: str, type_: str, code: int) -> Json:
    """vLLM's body, without OpenAI's envelope."""
    return {"object": "error", "message": message, "type": type_, "param": None, "code": code}


def google(code: int, status: str, message: str, *details: Json) -> list[Json]:
    """The body of Google's OpenAI-compatible server: a list."""
    return [{"error": {"code": code, "message": message, "status": status, "details": list(details)}}]


def claude(type_: str, message: str) -> Json:
    """Anthropic's body."""
    return {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_011CUB2XUHWkFnQzxcKBbjpF"}


TPM = "Rate limit reached for gpt-4.1-mini in organization org-x on tokens per min (TPM): Limit 30000, Used 29937"
HTML_PAGE = "<html>\r\n<head><title>{0}</title></head>\r\n<body><center><h1>{0}</h1></center></body>\r\n</html>\r\n"
EXHAUSTED: tuple[Action, ...] = ("retry", "retry", "retry", "fallback", "retry", "retry", "retry", "task_retry")
"""A server that stays broken, for the fallback model as well."""
