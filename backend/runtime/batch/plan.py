"""An operator's `inputs`, `max_concurrency` and `on_item_error`. Light to import, because DAG files import it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from backend.core.errors.input_error import InputError
from backend.runtime.spec_values import whole_number

OnItemError = Literal["fail", "continue"]

MAX_CONCURRENCY = 1_000
"""OpenAI's client opens at most this many connections."""
DEFAULT_CONCURRENCY = 50


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How to run a batch: at most `max_concurrency` items at once, and what happens to the task when items fail."""

    max_concurrency: int = DEFAULT_CONCURRENCY
    on_item_error: OnItemError = "fail"


def parse_plan(max_concurrency: Any, on_item_error: Any) -> BatchPlan:
    """Check the arguments. Raises `InputError` naming the invalid one."""
    max_concurrency = whole_number(max_concurrency, MAX_CONCURRENCY, "max_concurrency")
    if on_item_error not in get_args(OnItemError):
        known = " or ".join(map(repr, get_args(OnItemError)))
        raise InputError(f"is {on_item_error!r}; it has to be {known}", field="on_item_error")
    return BatchPlan(max_concurrency, cast(OnItemError, on_item_error))


def parse_inputs(inputs: Any, *, own_graph: bool = False, common: Any = None) -> list[Any]:
    """The inputs of a batch, which may have none. Each is a dict or, for a graph without a `common` input, any JSON.

    Raises `InputError` naming the entry that isn't.
    """
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Sequence):
        raise InputError(f"has to be a list of dicts, not {type(inputs).__name__}", field="inputs")
    if common is not None and not isinstance(common, Mapping):
        raise InputError("has to be a dict, because it is common to all inputs", field="input_data")
    for index, entry in enumerate(inputs):
        if not isinstance(entry, Mapping):
            if own_graph and not common:
                continue
            why = ", because input_data is common to all inputs" if own_graph else ""
            raise InputError(f"has to be a dict, not {type(entry).__name__}{why}", field=f"inputs[{index}]")
        if any(not isinstance(key, str) for key in entry):
            raise InputError("has a key that is no string", field=f"inputs[{index}]")
    return list(inputs)
