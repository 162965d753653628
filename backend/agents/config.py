"""The configuration of a built-in agent, and the dependencies of its nodes.

Importing this module is cheap, because every DAG file that names an agent does so when it is parsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from backend.agents.config_keys import CONFIG_KEYS, MAX_TOKENS_NAMES, unknown_key
from backend.agents.tools.terms import ToolTerms, parse_tools
from backend.core.errors.input_error import InputError
from backend.core.models.modes import UNDECIDED, ModelModes, read_output_method, read_streaming
from backend.models.options import parse_options

if TYPE_CHECKING:
    from backend.agents.tools.toolbox import Toolbox
    from backend.core.settings import Settings
    from backend.pictures.cache import ImageCache
    from backend.pictures.load import ReadUpload

MAX_SYSTEM_PROMPT = 20_000


class AgentConfigError(InputError):
    """`agent_config` has an unknown or invalid entry. A retry doesn't help."""

    field = "agent_config"


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The parsed `agent_config`.

    `temperature` is between 0 and 2, and `max_tokens` limits the answer. `output_schema` is the form of the agent's
    `data`: a JSON Schema, or a Pydantic model as "package.module:Class". `on_incomplete` says whether an incomplete
    answer fails under the error policy ("fail") or is accepted with a notice ("accept"). `modes` says how the model is
    asked: the keys `streaming` and `output_method`. `options` are passed through to hosted models. `tools` are what the
    agent may call.
    """

    system_prompt: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    output_schema: dict[str, Any] | str | None = None
    on_incomplete: Literal["fail", "accept"] = "fail"
    modes: ModelModes = UNDECIDED
    options: dict[str, Any] = field(default_factory=dict)
    tools: tuple[ToolTerms, ...] = ()

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> AgentConfig:
        """Check a DAG author's dictionary, without its "type". Raises `AgentConfigError` that names the key."""
        for key in config:
            if key not in (*CONFIG_KEYS, "type"):
                raise AgentConfigError(unknown_key(key, ("type", *CONFIG_KEYS)))
        try:
            options = parse_options(config)
        except InputError as error:
            raise AgentConfigError(error.message) from None
        return cls(
            system_prompt=_text(config.get("system_prompt")),
            temperature=_number(config.get("temperature")),
            max_tokens=_max_tokens(config),
            output_schema=_schema(config.get("output_schema")),
            on_incomplete=_on_incomplete(config.get("on_incomplete")),
            modes=_modes(config),
            options=options,
            tools=_tools(config.get("tools")),
        )

    def model_params(self) -> dict[str, Any]:
        """The parameters for `build_model`. Offline models ignore them."""
        params = {"temperature": self.temperature, "max_tokens": self.max_tokens, **self.options}
        return {name: value for name, value in params.items() if value is not None}


def _process_images() -> ImageCache:
    from backend.pictures.cache import process_images

    return process_images()


@dataclass(frozen=True, slots=True)
class AgentDeps:
    """What an agent's nodes need besides the model: settings, uploads, and the cache of pictures.

    `max_image_side`, in pixels, is that of the `ModelChoice`; None means the one in the settings. `offline` says that
    the model is an offline one, which can't answer in the form of a schema. `toolbox` holds the agent's tools, if any.
    """

    settings: Settings
    read_upload: ReadUpload | None = None
    max_image_side: int | None = None
    images: ImageCache = field(default_factory=_process_images)
    offline: bool = False
    toolbox: Toolbox | None = None


def required_text(state: Mapping[str, Any], name: str) -> str:
    """Return an input field that must hold text. Raises `InputError` that names the field."""
    value = state.get(name)
    if value is None:
        raise InputError("is missing; the agent needs it", field=name)
    if not isinstance(value, str):
        raise InputError(f"has to be text, not {type(value).__name__}", field=name)
    if not value.strip():
        raise InputError("is blank; the agent needs it", field=name)
    return value


def optional_text(state: Mapping[str, Any], name: str) -> str | None:
    """Return an input field that may hold text; None if it is blank. Raises `InputError` that names the field."""
    value = state.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return required_text(state, name)


def check_length(text: str, deps: AgentDeps, field: str = "text") -> None:
    """Raise `InputError` that names the field if a text exceeds the limit in the settings."""
    check_text(field, text, deps.settings.max_text_chars)


def check_texts(input_data: Mapping[str, Any], limit: int) -> None:
    """Raise `InputError` that names the first field of an agent's input with a text above the limit, in characters."""
    for name, value in input_data.items():
        check_text(name, value, limit)


def check_text(name: str, value: Any, limit: int, field: str | None = None) -> None:
    """Raise `InputError` if a text in the field exceeds the limit. Pictures have limits of their own."""
    texts = value if isinstance(value, list) else [value]
    longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
    if name != "image_url" and longest > limit:
        raise InputError(
            f"has {longest} characters, more than the limit of {limit}; send a shorter one "
            "or raise VISUAL_AI_MAX_TEXT_CHARS",
            field=field or name,
        )


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_SYSTEM_PROMPT:
        raise AgentConfigError(f"system_prompt has to be text of 1 to {MAX_SYSTEM_PROMPT} characters")
    return value


def _schema(value: Any) -> dict[str, Any] | str | None:
    if value is None:
        return None
    from backend.agents.output_schema import check_output_schema  # importing it takes a moment

    return check_output_schema(value)


def _on_incomplete(value: Any) -> Literal["fail", "accept"]:
    if value not in (None, "fail", "accept"):
        raise AgentConfigError("on_incomplete has to be “fail” or “accept”")
    return "accept" if value == "accept" else "fail"


def _modes(config: Mapping[str, Any]) -> ModelModes:
    try:
        return ModelModes(
            streaming=read_streaming(config.get("streaming")),
            output_method=read_output_method(config.get("output_method")),
        )
    except ValueError as error:
        raise AgentConfigError(str(error)) from None


def _tools(value: Any) -> tuple[ToolTerms, ...]:
    try:
        return parse_tools(value)
    except InputError as error:
        raise AgentConfigError(f"{error.field} {error.message}") from None


def _number(value: Any) -> float | None:
    # Templates render to text.
    try:
        number = None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = None
    if value is not None and (number is None or not 0 <= number <= 2):
        raise AgentConfigError("temperature has to be a number from 0 to 2")
    return number


def _max_tokens(config: Mapping[str, Any]) -> int | None:
    """The limit of the answer. OpenAI's API has another name for it, and Ollama's a third."""
    given = {name: config[name] for name in MAX_TOKENS_NAMES if config.get(name) is not None}
    if len(given) > 1:
        first, second = list(given)[:2]
        raise AgentConfigError(f"{first} and {second} say the same; give one of them")
    if "num_predict" in given:
        return None  # passed through, because it has values of its own
    return next((_count(name, value) for name, value in given.items()), None)


def _count(name: str, value: Any) -> int:
    try:
        number = None if isinstance(value, bool | float) else int(value)
    except (TypeError, ValueError):
        number = None
    if number is None or number < 1:
        raise AgentConfigError(f"{name} has to be a whole number of at least 1")
    return number
