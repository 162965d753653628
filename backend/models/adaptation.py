"""Asks a model in the ways that its server supports: streamed or whole, with a schema, a tool, JSON or a prompt.

A server that refuses one of these is asked again at once in another way, within the same attempt: nothing was answered,
so nothing was paid, and no error has to be recorded. What has worked is remembered for each model and account at an
address as long as the process lives, and told once as a notice.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, cast

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from backend.core.errors.classify import error_chain
from backend.core.errors.facts import facts_of
from backend.core.models.modes import OUTPUT_METHODS, ModelModes, OutputMethod
from backend.models.attempts import NoticeListener
from backend.models.refusals import Feature, is_about_one_schema, refused_feature

log = logging.getLogger(__name__)

MAX_REASON = 200

_TITLES: Mapping[Feature, str] = {
    "streaming": "doesn't stream its answers here, so they arrive whole",
    "stream_usage": "doesn't count the tokens of a stream here",
    "json_schema": "doesn't take a schema for its answers here",
    "function_calling": "doesn't take tools here",
    "json_mode": "has no JSON mode here",
}


class UnknownMethodError(ValueError):
    """A model's integration doesn't have a way to structured answers."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked. `output` None is the way that its integration prefers."""

    streaming: bool = True
    stream_usage: bool = True
    output: OutputMethod | None = None

    def without(self, feature: Feature) -> "Asking | None":
        """The next way to ask if the server refuses a feature; None if there is none."""
        if feature == "streaming":
            return replace(self, streaming=False)
        if feature == "stream_usage":
            return replace(self, stream_usage=False)
        following = OUTPUT_METHODS[OUTPUT_METHODS.index(feature) + 1 :]
        return replace(self, output=following[0]) if following else None


class ModeMemory:
    """What this process has learned about one model at one address."""

    def __init__(self) -> None:
        self._refused: set[tuple[Feature, str]] = set()
        self._news: list[str] = []

    def refuses(self, feature: Feature, schema: str = "") -> bool:
        """Whether the server refuses a feature, for all schemas or for this one."""
        return bool({(feature, ""), (feature, schema)} & self._refused)

    def learn(self, feature: Feature, notice: str, schema: str = "") -> None:
        """Remember that a server refuses or ignores a feature. What is known already is no news."""
        if not self.refuses(feature, schema):
            self._refused.add((feature, schema))
            self._news.append(notice)
            log.warning(notice)

    def take_news(self) -> list[str]:
        """What was learned and has not been told yet."""
        news, self._news = self._news, []
        return news


_MEMORIES: dict[str, ModeMemory] = {}


def memory_of(key: str) -> ModeMemory:
    """The memory of this process for a model, by its key in the rate limiter, which names account and address."""
    return _MEMORIES.setdefault(key, ModeMemory())


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model's name, what is configured about how to ask it, and what was learned about its server."""

    name: str
    modes: ModelModes = field(default_factory=lambda: ModelModes(streaming=None))
    stream_usage: bool = True
    memory: ModeMemory = field(default_factory=ModeMemory)


@dataclass(frozen=True, slots=True)
class StructuredAnswer:
    """Turns a model into one that answers with JSON in the form of a schema, as an `AIMessage`."""

    schema: dict[str, Any]

    def shape(self, model: BaseChatModel, method: OutputMethod | None) -> Runnable[Any, Any]:
        """The model, asked in one of the ways. Raises `UnknownMethodError` if its integration doesn't have that."""
        if method == "prompt":
            return RunnableLambda(self.instructed) | model
        if method == "function_calling" and hasattr(model, "disabled_params"):
            # Some of OpenAI's models refuse this parameter, which only forbids what nobody asks for.
            disabled = {**(model.disabled_params or {}), "parallel_tool_calls": None}
            model = model.model_copy(update={"disabled_params": disabled})
        given = {} if method is None else {"method": method}
        try:
            shaped = model.with_structured_output(self.schema, include_raw=True, **given) | RunnableLambda(_raw)
        except (ValueError, TypeError, NotImplementedError) as error:  # each integration says so in its own way
            raise UnknownMethodError(str(error)) from error
        return RunnableLambda(self.instructed) | shaped if method == "json_mode" else shaped

    def instructed(self, prompt: LanguageModelInput) -> list[BaseMessage]:
        """The prompt, with the form of the answer in words at its end."""
        *before, last = messages_of(prompt)
        if not isinstance(last, HumanMessage):
            return [*before, last, HumanMessage(self.instruction)]
        # Not as a message of its own, because some servers want the roles to alternate.
        if isinstance(last.content, str):
            return [*before, HumanMessage(f"{last.content}\n\n{self.instruction}")]
        return [*before, HumanMessage([*last.content, {"type": "text", "text": self.instruction}])]

    @property
    def instruction(self) -> str:
        """What asks for the form in words."""
        return (
            "Answer with one JSON object that fits this JSON Schema, and with nothing else: "
            f"{json.dumps(self.schema, ensure_ascii=False)}"
        )

    @property
    def digest(self) -> str:
        """Identifies the schema in a `ModeMemory`."""
        return sha256(json.dumps(self.schema, sort_keys=True, default=str).encode()).hexdigest()[:12]


Shape = Callable[[BaseChatModel], Runnable[Any, Any]] | StructuredAnswer
"""Turns a model into what is called: the model with tools bound, for example, or with a structured answer."""


async def ask_adapting(
    model: BaseChatModel,
    served: ServedModel,
    shape: Shape | None,
    prompt: LanguageModelInput,
    config: RunnableConfig,
    listeners: Sequence[NoticeListener] = (),
    **kwargs: Any,
) -> Any:
    """Ask a model in a way that its server accepts; returns its answer.

    Raises whatever the call raises, unless the server refuses the way and there is another one. Ways that the server
    has refused are remembered, and told to the listeners, once another one has worked.
    """
    structured = shape if isinstance(shape, StructuredAnswer) else None
    asking = _begin(served, structured)
    refused: list[tuple[Feature, str, str]] = []
    while True:
        try:
            answer = await _shaped(model, asking, shape).ainvoke(prompt, config, **kwargs)
            break
        except Exception as error:
            feature = _refused(error, asking, structured, model)
            following = asking.without(feature) if feature is not None else None
            if feature is None or following is None:
                raise
            schema = structured.digest if structured is not None and is_about_one_schema(error) else ""
            refused.append((feature, f"{served.name} {_TITLES[feature]} ({_reason(error)})", schema))
            asking = _skip(following, served, structured)
    for feature, notice, schema in refused:
        served.memory.learn(feature, notice, schema)
    for notice in served.memory.take_news():
        for listener in listeners:
            listener.noticed(notice)
    return answer


def messages_of(prompt: LanguageModelInput) -> list[BaseMessage]:
    """A prompt as messages."""
    if isinstance(prompt, str):
        return [HumanMessage(prompt)]
    return prompt.to_messages() if isinstance(prompt, PromptValue) else convert_to_messages(prompt)


def _begin(served: ServedModel, structured: StructuredAnswer | None) -> Asking:
    memory, modes = served.memory, served.modes
    streaming = modes.streaming is not False and not memory.refuses("streaming")
    usage = served.stream_usage and not memory.refuses("stream_usage")
    return _skip(Asking(streaming, usage, modes.output_method), served, structured)


def _skip(asking: Asking, served: ServedModel, structured: StructuredAnswer | None) -> Asking:
    """The next way to a structured answer that isn't known to be refused."""
    if structured is None:
        return asking
    while (feature := _output_feature(asking.output)) is not None and served.memory.refuses(feature, structured.digest):
        following = asking.without(feature)
        if following is None:
            break
        asking = following
    return asking


def _output_feature(method: OutputMethod | None) -> Feature | None:
    """The feature that a way relies on. The integrations that have none of their own prefer a schema or a tool."""
    return None if method == "prompt" else cast(Feature, method or "json_schema")


def _shaped(model: BaseChatModel, asking: Asking, shape: Shape | None) -> Runnable[Any, Any]:
    changes: dict[str, Any] = {}
    if not asking.streaming:
        changes["disable_streaming"] = True
    if not asking.stream_usage and "stream_usage" in type(model).model_fields:
        changes["stream_usage"] = False
    if changes:
        model = model.model_copy(update=changes)
    if shape is None:
        return model
    return shape.shape(model, asking.output) if isinstance(shape, StructuredAnswer) else shape(model)


def _refused(
    error: Exception, asking: Asking, structured: StructuredAnswer | None, model: BaseChatModel
) -> Feature | None:
    used: set[Feature] = set()
    if asking.streaming and not model.disable_streaming:
        used.add("streaming")
        if asking.stream_usage:
            used.add("stream_usage")
    output = _output_feature(asking.output) if structured is not None else None
    if output is not None:
        used.add(output)
    if isinstance(error, UnknownMethodError):
        return output
    found = refused_feature(error, used)
    if found is None and asking.output is None and refused_feature(error, {"function_calling"}):
        return output  # the way that the integration prefers may be a tool
    return found


def _reason(error: BaseException) -> str:
    said = next(filter(None, (facts_of(cause).message for cause in error_chain(error))), "") or str(error)
    return said if len(said) <= MAX_REASON else f"{said[:MAX_REASON]}…"


def _raw(answer: Any) -> Any:
    return answer["raw"]
