"""What graphs ask people, and what counts as an answer. Pure: the runtime asks with it, and the API checks with it.

There are three kinds of pauses in a graph:

- a `question`: `interrupt(value)`, whose answer may be any JSON, or what the question's schema says;
- an `approval`: an `interrupt` of LangChain's `HumanInTheLoopMiddleware`. Its `HITLRequest` lists tool calls and the
  decisions that each allows; in its mode `per_call` each call asks by itself, with a schema;
- a `breakpoint`: the graph was compiled with `interrupt_before` or `interrupt_after`, and asks nothing but to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backend.core.json_schema import JsonSchema, SchemaFaultError

Kind = Literal["question", "approval", "breakpoint"]
Decision = Literal["approve", "reject"]

MAX_SUBJECT = 200
_TELLING = (
    "question",
    "query",
    "message",
    "description",
    "prompt",
    "subject",
    "title",
    "instruction",
    "task",
    "action",
)
_SCHEMAS = ("response_schema", "answer_schema", "json_schema", "schema")
DECISIONS = ("approve", "edit", "reject", "respond")


class AnswerError(ValueError):
    """An answer that its question doesn't take. `path` leads to the part that is wrong."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class Asked:
    """What a pause asks. `content` is what the graph shows, as JSON; `schema` is that of the answer, if it has one."""

    kind: Kind
    subject: str
    content: Any
    schema: dict[str, Any] | None


def asked(content: Any, schema: Any, node: str | None) -> Asked:
    """What `interrupt(content)` in a node asks; `schema` is LangGraph's `response_schema`."""
    if is_tool_approval(content) and isinstance(schema, Mapping):
        return Asked("approval", _short(f"Approve {content['name']}?"), content, dict(schema))
    calls = tool_calls(content)
    if calls is not None:
        return Asked("approval", _short(_calls_in_words(calls)), content, None)
    return Asked("question", _short(_in_words(content, node)), content, _schema(content, schema))


def shown_without(asked: Asked, hide: Callable[[Any], Any]) -> Asked:
    """What is stored and shown of a question: its words without what `hide` removes from a value."""
    return Asked(asked.kind, hide(asked.subject), hide(asked.content), asked.schema)


def breakpoint_at(nodes: list[str], content: Any) -> Asked:
    """What a graph asks that stops before these nodes."""
    return Asked("breakpoint", _short(f"Go on with {', '.join(nodes)}?"), content, None)


def tool_calls(content: Any) -> list[dict[str, Any]] | None:
    """The tool calls of a `HITLRequest`, each with the decisions that it `allows`; None for anything else."""
    if not isinstance(content, Mapping):
        return None
    calls, reviews = content.get("action_requests"), content.get("review_configs")
    if not isinstance(calls, list) or not calls or not isinstance(reviews, list):
        return None
    if not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in calls):
        return None
    allowed = {
        one["action_name"]: [decision for decision in one.get("allowed_decisions", ()) if decision in DECISIONS]
        for one in reviews
        if isinstance(one, Mapping) and isinstance(one.get("action_name"), str)
    }
    return [{**call, "allows": allowed.get(call["name"]) or list(DECISIONS[:3])} for call in calls]


def is_tool_approval(content: Any) -> bool:
    """Whether it is the `ToolApprovalRequest` of one tool call."""
    named = isinstance(content, Mapping) and isinstance(content.get("name"), str)
    return named and content.get("type") == "tool_approval"


def resume_value(asked: Asked, *, decision: str | None, answer: Any, given: bool) -> Any:
    """What the graph's `interrupt()` returns for an answer. `given`: whether there is an `answer`, which may be null.

    Raises `AnswerError` naming the part that doesn't fit.
    """
    if asked.kind == "breakpoint":
        if given or decision is None:
            raise AnswerError(
                "this graph asks nothing but to go on: give a `decision`, approve or reject, and no answer"
            )
        return None
    if asked.kind == "approval" and asked.schema is None:
        return _decisions(tool_calls(asked.content) or [], decision, answer, given)
    if asked.kind == "approval" and not given and decision is not None:
        answer, given = {"type": decision}, True
    if not given:
        raise AnswerError("is missing: this question takes an `answer`, not a `decision`", ("answer",))
    if asked.schema is not None:
        fault = next(iter(JsonSchema(asked.schema).faults(answer)), None)
        if fault is not None:
            raise AnswerError(fault.message, ("answer", *fault.path))
    return answer


def decides(asked: Asked) -> bool:
    """Whether a plain approval or rejection answers it, as Airflow's required actions offer."""
    if asked.kind == "approval" and asked.schema is not None:
        schema = JsonSchema(asked.schema)
        return all(schema.is_valid({"type": decision}) for decision in ("approve", "reject"))
    if asked.kind == "approval":
        return all({"approve", "reject"} <= set(call["allows"]) for call in tool_calls(asked.content) or [])
    return asked.kind == "breakpoint"


def _decisions(calls: list[dict[str, Any]], decision: str | None, answer: Any, given: bool) -> dict[str, Any]:
    if not given:
        if decision is None:
            raise AnswerError("is missing: give a `decision`, or an `answer` with one of each tool call")
        answer = {"decisions": [{"type": decision} for _ in calls]}
    taken = answer.get("decisions") if isinstance(answer, Mapping) else None
    if not isinstance(taken, list) or len(taken) != len(calls):
        plural = "decision" if len(calls) == 1 else "decisions"
        raise AnswerError(
            f"has to hold a list of {len(calls)} {plural}, one of each tool call", ("answer", "decisions")
        )
    for index, (call, one) in enumerate(zip(calls, taken, strict=True)):
        path = ("answer", "decisions", index)
        kind = one.get("type") if isinstance(one, Mapping) else None
        if kind not in call["allows"]:
            raise AnswerError(f"has to be one of {', '.join(call['allows'])}", (*path, "type"))
        if kind == "edit":
            edited = one.get("edited_action")
            if not isinstance(edited, Mapping) or not isinstance(edited.get("name"), str):
                raise AnswerError("has to hold the `name` of the tool and its `args`", (*path, "edited_action"))
            if not isinstance(edited.get("args"), Mapping):
                raise AnswerError("has to be an object", (*path, "edited_action", "args"))
        if kind == "respond" and not isinstance(one.get("message"), str):
            raise AnswerError("has to be the text to respond with", (*path, "message"))
    return {**answer, "decisions": taken}


def _schema(content: Any, schema: Any) -> dict[str, Any] | None:
    candidates = [schema]
    if isinstance(content, Mapping):
        candidates += [content.get(name) for name in _SCHEMAS]
    for candidate in candidates:
        if isinstance(candidate, Mapping) and candidate:
            try:
                JsonSchema(candidate)
            except SchemaFaultError:
                continue  # it is content that only looks like a schema
            if "type" in candidate or "properties" in candidate or "enum" in candidate or "$ref" in candidate:
                return dict(candidate)
    return None


def _in_words(content: Any, node: str | None) -> str:
    if isinstance(content, str) and content.strip():
        return content
    if isinstance(content, Mapping):
        for name in _TELLING:
            if isinstance(content.get(name), str) and content[name].strip():
                return str(content[name])
    return f"The node {node} asks for input" if node else "The graph asks for input"


def _calls_in_words(calls: list[dict[str, Any]]) -> str:
    return f"Approve {', '.join(call['name'] for call in calls)}?"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SUBJECT else f"{line[: MAX_SUBJECT - 1]}…"
