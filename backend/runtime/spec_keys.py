"""The keys of an agent, and where each of them has an effect: what is accepted acts, and the rest is refused.

An agent stands in one of three places: alone, as the `agent_config` of a `LangGraphOperator` and the arguments beside
it; in a team, as an entry of `agents`; or in a role, as the `synthesis` or `supervisor` of a team. In the first two it
is a built-in agent or a graph of one's own. Light to import, because DAG files import it.
"""

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any, Literal

from backend.agents.config_keys import CONFIG_KEYS, unknown_key
from backend.core.errors.category import TRANSIENT
from backend.core.errors.input_error import InputError
from backend.core.errors.policy import FIELD as ERROR_POLICY

Place = Literal["alone", "team", "role"]

TEAM_KEYS = ("required", "depends_on", "description")
GRAPH_KEYS = ("context", "configurable", "config")
THREAD = "thread"
AGENT_KEYS = frozenset(
    {
        *("name", "type", "graph", "input_data", "model", "timeout", "output_mapping", ERROR_POLICY),
        *(THREAD, *TEAM_KEYS, *GRAPH_KEYS),
    }
)
"""The keys of an agent that aren't a built-in agent's own configuration."""
ROLE_KEYS = ("model", "timeout", ERROR_POLICY, *(key for key in CONFIG_KEYS if key != "tools"))

OPERATOR_ARGUMENTS = frozenset(
    {
        *("llm_conn_id", "budget", "deferrable", "checkpoint", "durability"),
        *("inputs", "max_concurrency", "on_item_error", "results_path"),
        *("agent_config", "agents", "orchestration_mode", "synthesis", "supervisor", "max_steps"),
        *("task_id", "retries", "retry_delay", "retry_policy", "execution_timeout", "trigger_rule", "outlets", "pool"),
    }
)
"""What an operator takes and an agent doesn't."""

_ALONE = {
    "required": "is for the agents of a team. To let the tasks after this one run although it failed, set their "
    "trigger_rule",
    "depends_on": "is for the agents of a MultiAgentOperator in the mode 'graph'; put tasks in order with >>",
    "description": "is for the agents of a MultiAgentOperator; a task is described by its doc_md",
}


def check_keys(fields: Mapping[str, Any], place: Place, holder: str, at: Callable[[str], str]) -> None:
    """Raise `InputError` for the first key that has no effect in this place, with the remedy.

    `holder` is what the keys stand in, such as `agents[0]`; `at` returns the place of a key.
    """
    own_graph = is_given(fields.get("graph")) and place != "role"
    known = _known(place, own_graph)
    for key, value in fields.items():
        if key in known or ((key in AGENT_KEYS or key in CONFIG_KEYS) and not is_given(value)):
            continue
        if key in OPERATOR_ARGUMENTS:
            raise InputError(f"is an argument of the operator: write {key}=… beside {_outer(holder)}", field=at(key))
        if key not in AGENT_KEYS and key not in CONFIG_KEYS:
            raise InputError(unknown_key(key, known), field=holder)
        if place == "role":
            raise InputError(f"can't set {key!r}; it takes {', '.join(known)}", field=holder)
        raise InputError(refusal(key, place, own_graph=own_graph), field=at(key))


def is_given(value: Any) -> bool:
    """Whether a key says anything: not with None, nor with an empty dict, list or text."""
    return value is not None and not (isinstance(value, str | Mapping | list | tuple) and not value)


def refusal(key: str, place: Place, *, own_graph: bool) -> str:
    """Why a key has no effect there, and what to do instead."""
    if place == "alone" and key in _ALONE:
        return _ALONE[key]
    if key == THREAD:
        return "is for a LangGraphOperator with a graph of one's own, which takes turns in a conversation"
    if not own_graph:
        return "is for a graph of one's own (graph=…); a built-in agent gets what it is to know in input_data"
    if key == "output_schema":
        return "is not for a graph of one's own, whose output has its own form"
    if key == "model":
        return (
            "is not for a graph of one's own, which makes its models itself; pass the name in configurable or context"
        )
    return f"is for built-in agents: a graph of one's own doesn't take {key!r}; pass it in configurable or context"


def check_graph_policy(policy: Mapping[str, Any] | None, field_name: str) -> None:
    """Raise `InputError` for what an error policy can't do for a graph of one's own, which makes its models itself."""
    for key, rule in (policy or {}).items():
        place = f"{field_name}.{key}"
        if key in ("wait_limit", "reschedule_limit"):
            continue
        useless = [name for name in ("fallback", "timeout_factor") if isinstance(rule, Mapping) and name in rule]
        if key not in TRANSIENT or useless:
            raise InputError(
                "is for built-in agents: a graph of one's own makes its models itself, and takes retries, backoff and "
                f"max_backoff of {', '.join(sorted(TRANSIENT))}, and wait_limit and reschedule_limit",
                field=f"{place}.{useless[0]}" if key in TRANSIENT else place,
            )


def argument_remedy(name: str, place: Place, arguments: Collection[str]) -> str | None:
    """What to do about an argument that an operator doesn't have but whose author had something in mind.

    `place` is where the operator's agents stand, and `arguments` are those that the operator takes. None if nothing
    resembles the name.
    """
    if place == "alone" and name in _ALONE:
        return _ALONE[name]
    if name in AGENT_KEYS or name in CONFIG_KEYS:
        example = f"agent_config={{…, {name!r}: …}}" if place == "alone" else f"agents=[{{…, {name!r}: …}}]"
        return (
            f"is no argument of this operator, but a key of its {'agent' if place == 'alone' else 'agents'}: {example}"
        )
    if name in OPERATOR_ARGUMENTS:
        return f"is an argument of {'MultiAgentOperator' if place == 'alone' else 'LangGraphOperator'} only"
    nearest = get_close_matches(name.lower(), arguments, n=1, cutoff=0.75)
    return f"is not known; did you mean {nearest[0]!r}?" if nearest else None


def _known(place: Place, own_graph: bool) -> tuple[str, ...]:
    if place == "role":
        return ROLE_KEYS
    common = ("name", "type", "graph", "input_data", "timeout", ERROR_POLICY, "output_mapping")
    of_place = TEAM_KEYS if place == "team" else (THREAD,) if own_graph else ()
    return (*common, *of_place, *(GRAPH_KEYS if own_graph else ("model", *CONFIG_KEYS)))


def _outer(holder: str) -> str:
    return holder.partition("[")[0]
