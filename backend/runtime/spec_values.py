"""Checks of the single values in the specs of agents. Light to import, because DAG files import it."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from backend.core.errors.input_error import InputError
from backend.core.errors.policy import parse_error_policy

MAX_NAME_CHARS = 100
MAX_THREAD_CHARS = 500
MAX_DESCRIPTION_CHARS = 2_000
MAX_SECONDS = 10 * 366 * 86_400.0
MAX_RECURSION = 1_000_000
MAX_NODES = 10_000


def is_template(value: Any) -> bool:
    """Whether a value, or a part of it, is known only when the task runs."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(is_template(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(is_template(item) for item in value)
    return hasattr(value, "resolve") and hasattr(value, "iter_references")  # an XComArg, without importing Airflow


def is_later(value: Any) -> bool:
    """Whether a value is another task's result, which is known only when the task runs."""
    return value is not None and not isinstance(value, str | Mapping | list | tuple) and is_template(value)


def conversation(value: Any, field_name: str) -> str | None:
    """The name of a conversation, or None. Raises `InputError` naming the field."""
    if value is None:
        return None
    name = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not name or len(name) > MAX_THREAD_CHARS:
        detail = f"has to be a text of up to {MAX_THREAD_CHARS} characters that names a conversation"
        raise InputError(detail, field=field_name)
    return name


def without_ellipsis(input_data: Any) -> Any:
    """Return None, which stands for the run's own input, for `{...}` and `...`."""
    if input_data is ... or (isinstance(input_data, set) and input_data == {...}):
        return None
    return input_data


def whole_number(value: Any, limit: int, field_name: str) -> int:
    """A number from 1 to `limit`, which is text if it comes from a template. Raises `InputError` naming the field."""
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= limit:
        raise InputError(f"has to be a whole number from 1 to {limit}", field=field_name)
    return number


def mapping(value: Any, field_name: str) -> Mapping[str, Any]:
    """A dict with text as its keys. Raises `InputError` naming the field."""
    if not isinstance(value, Mapping):
        raise InputError(f"has to be a dict, not {type(value).__name__}", field=field_name)
    if any(not isinstance(key, str) for key in value):
        raise InputError("has a key that is no string", field=field_name)
    return value


def optional_mapping(value: Any, field_name: str) -> dict[str, Any] | None:
    """A dict, or None for None and for another task's result. Raises `InputError` naming the field."""
    return None if value is None or is_later(value) else dict(mapping(value, field_name))


RUN_CONFIG = ("recursion_limit", "max_concurrency", "tags", "metadata", "configurable")


def run_config(config: Any, configurable: Any, at: Callable[[str], str]) -> dict[str, Any]:
    """What of a graph's `RunnableConfig` its author may set. `at` returns the place of a key, which errors name."""
    place = at("config")
    found = optional_mapping(config, place) or {}
    for key in found:
        if key not in RUN_CONFIG:
            raise InputError(f"has {key!r}; it takes {', '.join(RUN_CONFIG)}", field=place)
    for key, limit in (("recursion_limit", MAX_RECURSION), ("max_concurrency", MAX_NODES)):
        if found.get(key) is not None and not is_template(found[key]):
            found[key] = whole_number(found[key], limit, f"{place}.{key}")
    tags = found.get("tags")
    if tags is not None and not is_later(tags):
        if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
            raise InputError("has to be a list of texts", field=f"{place}.tags")
        found["tags"] = list(tags)
    for key in ("metadata", "configurable"):
        found[key] = optional_mapping(found.get(key), f"{place}.{key}") or {}
    own = optional_mapping(configurable, at("configurable")) or {}
    if own and found["configurable"]:
        raise InputError("is in config as well; give it once", field=at("configurable"))
    found["configurable"] = own or found["configurable"]
    return {key: value for key, value in found.items() if value not in (None, [], {})}


def output_paths(value: Any, field_name: str) -> dict[str, str] | None:
    """An `output_mapping`. Raises `InputError` naming the field."""
    paths = optional_mapping(value, field_name)
    if paths is not None and not all(isinstance(path, str) for path in paths.values()):
        raise InputError("has to map names to paths such as 'messages.-1.content'", field=field_name)
    return paths


def seconds(value: Any, field_name: str) -> float | None:
    """A time above 0, which is text if it comes from a template. Raises `InputError` naming the field."""
    if value is None or is_template(value):
        return None
    found = value.total_seconds() if hasattr(value, "total_seconds") else value
    if isinstance(found, str) and found.strip().replace(".", "", 1).isdecimal():
        found = float(found)
    # NaN is not above 0 either.
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= MAX_SECONDS:
        raise InputError("has to be a number of seconds above 0 or a timedelta", field=field_name)
    return float(found)


def flag(value: Any, field_name: str, default: bool) -> bool:
    """True or False, which is text if it comes from a template. Raises `InputError` naming the field."""
    if value is None or is_template(value):
        return default
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        value = value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise InputError("has to be True or False", field=field_name)
    return value


def check_agent_name(name: Any, others: Collection[str], reserved: Collection[str], field_name: str) -> None:
    """Raise `InputError` naming the field unless the name is one, and no other agent's."""
    if not isinstance(name, str) or not name.strip():
        raise InputError("is missing; every agent has a name", field=field_name)
    if is_template(name):
        return  # known when the task runs
    if len(name) > MAX_NAME_CHARS:
        raise InputError(f"has {len(name)} characters; {MAX_NAME_CHARS} are the limit", field=field_name)
    if "/" in name:
        raise InputError(f"is {name!r}; a name can't hold a slash", field=field_name)
    if name in others:
        raise InputError(f"is {name!r}, which another agent has; names are unique", field=field_name)
    if name in reserved:
        raise InputError(f"is {name!r}, which has a meaning of its own in the mode 'supervisor'", field=field_name)


def names(value: Any, field_name: str) -> tuple[str, ...]:
    """A list of agents' names without repetitions. Raises `InputError` naming the field."""
    if value is None or is_later(value):
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise InputError("has to be a list of agents' names", field=field_name)
    if len(set(value)) < len(value):
        raise InputError("names an agent twice", field=field_name)
    return tuple(value)


def description(value: Any, field_name: str) -> str | None:
    """An agent's purpose. Raises `InputError` naming the field."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_DESCRIPTION_CHARS:
        raise InputError(f"has to be text of 1 to {MAX_DESCRIPTION_CHARS} characters", field=field_name)
    return value.strip()


def model_name(value: Any, field_name: str) -> str | None:
    """A model's name; None if there is none. Raises `InputError` naming the field."""
    from backend.models.resolve import check_name  # not needed by DAG files without models

    if is_later(value):
        return None
    if value is not None and not isinstance(value, str):
        raise InputError("has to be a model's name, such as 'openai:gpt-4.1'", field=field_name)
    if not value or not value.strip():
        return None
    if not is_template(value):
        try:
            check_name(value)
        except InputError as error:
            raise InputError(error.message, field=field_name) from None
    return value


def policy(argument: Any, field_name: str) -> dict[str, Any] | None:
    """An error policy, unchanged. One with templates is checked when the task runs."""
    if argument is None or is_later(argument):
        return None
    given = dict(mapping(argument, field_name))
    if not is_template(given):
        parse_error_policy(given, field_name=field_name)
    return given


def both_policies(common: dict[str, Any] | None, own: dict[str, Any] | None) -> dict[str, Any] | None:
    """The agent's own policy merged over the common one, category by category."""
    if not common or not own:
        return own or common
    merged = dict(common)
    for key, value in own.items():
        known = common.get(key)
        merged[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def check_schema(schema: Any, kind: str, use: str, field_name: str) -> None:
    """Check an `output_schema` that the agent `kind` may have, has to have or can't have, as `use` says.

    Raises `InputError` naming the field.
    """
    if schema is None:
        if use == "required":
            raise InputError(f"is missing; the agent {kind!r} needs it", field=field_name)
        return
    if use == "none":
        raise InputError(f"is given, but the output of the agent {kind!r} has its own form", field=field_name)
    if is_template(schema):
        return
    # Imported here because few DAG files have a schema.
    from backend.agents.output_schema import check_output_schema

    try:
        check_output_schema(schema)
    except InputError as error:
        raise InputError(error.message, field=field_name) from None
