"""The part of a built-in agent's graph that calls tools.

Each call that the model asks for is a run of the node `tool`. It asks people where its terms say so, claims the call in
the ledger, and makes it. A node that runs again, after a kill or an answer, finds the call in the ledger: one with an
outcome is not made again, and of one that was cut off nobody knows whether it had its effect, so people are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp
from langgraph.graph import StateGraph
from langgraph.types import Send, interrupt

from backend.agents.tools.ledger import Outcome, ToolCall, ledger_of_task
from backend.agents.tools.toolbox import OfferedTool, Toolbox
from backend.core.errors.input_error import InputError
from backend.models.call import ModelCall
from backend.models.prompts.document import fence
from backend.models.reply import Model

UNKNOWN_OUTCOME: dict[str, Any] = {
    "type": "object",
    "properties": {
        "outcome": {
            "enum": ["run_again", "done", "failed"],
            "description": "run_again: make the call once more. done: it had its effect. failed: it had none",
        },
        "result": {"type": "string", "description": "What the agent shall be told that the call returned"},
    },
    "required": ["outcome"],
    "additionalProperties": False,
}
MAX_RESULT = 100_000
"""Characters of a tool's result that a model is shown."""


async def asking(model: Model, toolbox: Toolbox | None) -> Model:
    """The model, with the tools that it may call."""
    if toolbox is None:
        return model
    return ModelCall.of(model).bind_tools([offered.tool for offered in (await toolbox.tools()).values()])


def said(toolbox: Toolbox | None, reply: AIMessage) -> dict[str, Any]:
    """The update of the state by a model's reply."""
    return {"reply": reply} if toolbox is None else {"reply": reply, "conversation": [reply]}


def add_tools(
    graph: StateGraph[Any, Any, Any, Any], asks: str, following: str, toolbox: Toolbox | None, agent: str
) -> None:
    """Have `graph` call the tools that the reply of its node `asks` wants, and go on to `following` once it wants none.

    The graph's state has `reply`, and the `conversation` since the first question.
    """
    if toolbox is None:
        graph.add_edge(asks, following)
        return

    def next_nodes(state: Mapping[str, Any]) -> Sequence[Send] | str:
        calls = state["reply"].tool_calls
        return [Send("tool", {"call": call}) for call in calls] or following

    async def tool(state: _Wanted, config: RunnableConfig) -> dict[str, list[BaseMessage]]:
        return {"conversation": [await _called(state["call"], await toolbox.tools(), config, agent)]}

    graph.add_node("tool", tool)
    graph.add_conditional_edges(asks, next_nodes, ["tool", following])
    graph.add_edge("tool", asks)


class _Wanted(TypedDict):
    """The input of the node `tool`: one call that a model wants."""

    call: dict[str, Any]


async def _called(
    call: Mapping[str, Any], tools: Mapping[str, OfferedTool], config: RunnableConfig, agent: str
) -> ToolMessage:
    name, arguments = call["name"], dict(call["args"])
    offered = tools.get(name)
    if offered is None:
        return _message(call, Outcome(f"there is no tool {name!r}; there are {', '.join(tools)}", failed=True))
    if offered.needs_approval(arguments):
        decision = _decided(name, arguments, offered.tool.description)
        if decision["type"] == "reject":
            why = decision.get("message")
            return _message(call, Outcome(f"rejected: {why}" if why else "a person rejected this call", failed=True))
        if decision["type"] == "respond":
            return _message(call, Outcome(decision["message"]))
        if decision["type"] == "edit":
            name, arguments = decision["edited_action"]["name"], dict(decision["edited_action"]["args"])
            offered = tools.get(name)
            if offered is None:
                raise InputError(f"there is no tool {name!r}; there are {', '.join(tools)}", field="edited_action.name")
    return _message(call, await _once(offered, {**call, "name": name, "args": arguments}, config, agent))


def _decided(name: str, arguments: dict[str, Any], description: str) -> Mapping[str, Any]:
    """What a person decides about a call, in the form of LangChain's `HumanInTheLoopMiddleware`."""
    answer = interrupt(
        {
            "action_requests": [{"name": name, "args": arguments, "description": description}],
            "review_configs": [
                {"action_name": name, "allowed_decisions": ["approve", "edit", "reject", "respond"]},
            ],
        }
    )
    decision: Mapping[str, Any] = answer["decisions"][0]
    return decision


async def _once(offered: OfferedTool, call: Mapping[str, Any], config: RunnableConfig, agent: str) -> Outcome:
    """Make a call, unless it was made before. Asks people about one that was cut off."""
    ledger = ledger_of_task.get()
    if ledger is None:
        if offered.repeatable:
            return await _result(offered, call)
        raise InputError(
            f"the tool {call['name']!r} needs the agent's states and the database, without which a retry would repeat "
            "its effect unknowingly: leave checkpoint at True, or declare the tool repeatable",
            field="agent_config.tools",
        )
    configurable, metadata = config.get("configurable", {}), config.get("metadata", {})
    attempt = 0
    while True:
        attempt += 1
        one = ToolCall(
            thread_id=configurable["thread_id"],
            place=metadata["langgraph_checkpoint_ns"],  # names the step's checkpoint and the call in it
            attempt=attempt,
            call_id=str(call["id"]),
            agent=agent,
            tool=call["name"],
            arguments=call["args"],
        )
        claimed = await ledger.claim(one)
        if claimed.outcome is not None:
            return claimed.outcome
        if claimed.mine:
            try:
                outcome = await _result(offered, call)
            except GraphBubbleUp:  # it asks people itself, and has not come to its end
                await ledger.release(one)
                raise
            await ledger.finish(one, outcome)
            return outcome
        if offered.repeatable:
            continue
        known = _what_came_of(call)
        if known["outcome"] != "run_again":
            outcome = _told(known)
            await ledger.finish(one, outcome)
            return outcome


def _what_came_of(call: Mapping[str, Any]) -> Mapping[str, Any]:
    question = (
        f"Did the call of {call['name']} take effect? The agent was cut off while it was under way, and the outcome is "
        "not known."
    )
    shown = {"question": question, "tool": call["name"], "arguments": call["args"]}
    answer: Mapping[str, Any] = interrupt(shown, response_schema=UNKNOWN_OUTCOME)
    return answer


def _told(known: Mapping[str, Any]) -> Outcome:
    if known["outcome"] == "done":
        return Outcome(known.get("result") or "The call took effect. What it returned is not known.")
    return Outcome(known.get("result") or "The call failed and had no effect.", failed=True)


async def _result(offered: OfferedTool, call: Mapping[str, Any]) -> Outcome:
    request = {"name": offered.tool.name, "args": call["args"], "id": call["id"], "type": "tool_call"}
    try:
        message = await offered.tool.ainvoke(request)
    except GraphBubbleUp:
        raise
    except Exception as error:  # whatever it is, the model may find another way
        return Outcome(f"{type(error).__name__}: {error}"[:MAX_RESULT], failed=True)
    content = message.content if isinstance(message, ToolMessage) else message
    failed = isinstance(message, ToolMessage) and message.status == "error"
    return Outcome(content if isinstance(content, str | list) else str(content), failed)


def _message(call: Mapping[str, Any], outcome: Outcome) -> ToolMessage:
    status: Literal["success", "error"] = "error" if outcome.failed else "success"
    content = outcome.content
    if isinstance(content, str):
        # What a tool returns is content, not an instruction: agents' prompts say so of what stands in the element.
        cut = content if len(content) <= MAX_RESULT else f"{content[:MAX_RESULT]}… ({len(content)} characters)"
        content = fence(cut)
    return ToolMessage(content, tool_call_id=call["id"], name=call["name"], status=status)
