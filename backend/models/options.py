"""The options of hosted models that an agent's configuration passes through to the model's request.

An option is checked twice. Its value is checked here, when the DAG is parsed. Whether the provider's integration takes
it depends on the model: that is checked when the DAG is parsed if the agent names its model, and otherwise when the
model is built. Importing this module is cheap: it knows the integrations' options without importing them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from backend.core.errors.input_error import InputError

Parse = Callable[[Any], Any]
"""Returns an option's value. Raises `ValueError` that completes the sentence "<name> has to be …"."""

RESERVED = frozenset(
    {
        *("model", "messages", "input", "instructions", "stream", "stream_options", "n", "tools", "tool_choice"),
        *("functions", "function_call", "response_format", "text", "previous_response_id", "background"),
    }
)
"""What `extra_body` can't set: the product itself does, and records it."""

WIDENING = frozenset(
    {
        *("web_search_options", "search_parameters", "plugins", "mcp_servers"),
        *("conversation", "prompt", "models", "container"),
    }
)
"""What `extra_body` can't set either: providers' fields that give a model tools, other texts or another model."""


def _number(low: float = -math.inf, high: float = math.inf) -> Parse:
    def parse(value: Any) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # templates render to text
        except (TypeError, ValueError):
            number = math.nan
        if not (low <= number <= high and math.isfinite(number)):
            raise ValueError("a number" if math.isinf(low) else f"a number from {low:g} to {high:g}")
        return number

    return parse


def _whole(low: int) -> Parse:
    def parse(value: Any) -> int:
        text = value.strip() if isinstance(value, str) else ""
        number = int(text) if text.removeprefix("-").isdecimal() else value
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number < 2**63:
            raise ValueError(f"a whole number of at least {low}" if low > -(2**63) else "a whole number of 64 bits")
        return number

    return parse


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 100:
        raise ValueError("text of 1 to 100 characters")
    return value.strip()


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list | tuple) or not stops or not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError("text or a list of texts")
    return list(stops)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("a dict with text as its keys")
    return dict(value)


def _body(value: Any) -> dict[str, Any]:
    body = _object(value)
    if taken := sorted(RESERVED.intersection(body)):
        raise ValueError(f"a dict without {taken[0]!r}, which the product sets itself")
    if widening := sorted(WIDENING.intersection(body)):
        raise ValueError(f"a dict without {widening[0]!r}: it must not give an agent tools, texts or other models")
    return body


def _reasoning(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return _text(value) if isinstance(value, str) else _object(value)


def _switch(value: Any) -> bool | str:
    if isinstance(value, Mapping):
        raise ValueError("True, False or text")
    return value if isinstance(value, bool) else _text(value)


OPTIONS: Mapping[str, Parse] = {
    "top_p": _number(0, 1),
    "top_k": _whole(0),
    "seed": _whole(-(2**63)),
    "stop": _stops,
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "logit_bias": _object,
    "reasoning_effort": _text,
    "reasoning": _reasoning,
    "thinking": _object,
    "verbosity": _text,
    "service_tier": _text,
    "num_ctx": _whole(1),
    "num_predict": _whole(-2),
    "repeat_penalty": _number(0, 100),
    "extra_body": _body,
}
"""The options by name. `max_completion_tokens` is another name of `max_tokens` and not among them."""

_INTEGRATIONS: Mapping[str, frozenset[str]] = {
    "langchain_openai": frozenset(
        {
            *("top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias", "reasoning_effort"),
            *("reasoning", "verbosity", "service_tier", "extra_body"),
        }
    ),
    "langchain_anthropic": frozenset({"top_p", "top_k", "stop", "reasoning_effort", "thinking"}),
    "langchain_ollama": frozenset(
        {"top_p", "top_k", "seed", "stop", "reasoning", "num_ctx", "num_predict", "repeat_penalty"}
    ),
}
"""What each integration takes. Of one that is not listed, the built model is asked (`check_taken`)."""

_NARROWER: Mapping[tuple[str, str], Parse] = {
    ("langchain_openai", "reasoning"): _object,
    ("langchain_ollama", "reasoning"): _switch,
}
"""Options whose values have a form of their own in an integration."""

_RENAMED: Mapping[str, Mapping[str, str]] = {"langchain_ollama": {"max_tokens": "num_predict"}}
"""Integrations that have another name for a standard parameter, and would ignore ours in silence."""


def parse_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options in an agent's configuration. Raises `InputError` that names the one with a wrong value."""
    found: dict[str, Any] = {}
    for name, parse in OPTIONS.items():
        if config.get(name) is None:
            continue
        found[name] = _parsed(name, parse, config[name])
    for name in sorted(found.get("extra_body", {}).keys() & config.keys()):
        if config[name] is not None:
            raise InputError(f"extra_body has {name!r}, which stands beside it as well; give it once", field=name)
    return found


def check_options(provider: str, options: Mapping[str, Any]) -> None:
    """Raise `InputError` naming the first option that the provider's integration doesn't take as it is."""
    if refused := refused_options(provider, options):
        module = _module(provider)
        raise InputError(
            f"{refused[0]} is not known to models of {provider} ({module.replace('_', '-')}), which take "
            f"temperature, max_tokens, {', '.join(sorted(_INTEGRATIONS[module]))}",
            field="agent_config",
        )
    for (module, name), parse in _NARROWER.items():
        if name in options and _module(provider) == module:
            _parsed(name, parse, options[name])


def refused_options(provider: str, names: Collection[str]) -> list[str]:
    """Those of the options that the provider's integration doesn't take, as far as that is known beforehand."""
    known = _INTEGRATIONS.get(_module(provider))
    return [] if known is None else sorted(name for name in names if name in OPTIONS and name not in known)


def integration_arguments(provider: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters under the names that the provider's integration has for them."""
    renamed = _RENAMED.get(_module(provider), {})
    return {renamed.get(name, name): value for name, value in params.items()}


def untaken(model: Any, names: Collection[str]) -> list[str]:
    """Those of the options that a built model has no field for: integrations ignore such parameters in silence."""
    fields = type(model).model_fields
    known = {*fields, *(field.alias for field in fields.values())}
    return sorted(name for name in names if (name in OPTIONS or name == "max_tokens") and name not in known)


def _module(provider: str) -> str:
    from backend.models.resolve import PROVIDERS  # not needed by DAG files that name no model

    return PROVIDERS[provider].module if provider in PROVIDERS else ""


def _parsed(name: str, parse: Parse, value: Any) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise InputError(f"{name} has to be {error}", field="agent_config") from None
