"""The graph of the agent."""

from typing import Literal, cast

from langchain.chat_models import init_chat_model
from langchain_core.messages import AIMessage
from langgraph.graph import StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime

from react_agent.context import Context
from react_agent.state import InputState, State
from react_agent.tools import TOOLS


async def call_model(state: State, runtime: Runtime[Context]) -> dict[str, list[AIMessage]]:
    """Ask the model what to do next."""
    provider, model = runtime.context.model.split("/", maxsplit=1)
    llm = init_chat_model(model, model_provider=provider).bind_tools(TOOLS)
    response = cast(
        AIMessage,
        await llm.ainvoke([{"role": "system", "content": runtime.context.system_prompt}, *state.messages]),
    )
    if state.is_last_step and response.tool_calls:
        return {"messages": [AIMessage(id=response.id, content="Sorry, I ran out of steps.")]}
    return {"messages": [response]}


def route_model_output(state: State) -> Literal["__end__", "tools"]:
    """Whether the model wants a tool."""
    last = state.messages[-1]
    if not isinstance(last, AIMessage):
        raise TypeError(f"expected an AIMessage, got {type(last).__name__}")
    return "tools" if last.tool_calls else "__end__"


builder = StateGraph(State, input_schema=InputState, context_schema=Context)
builder.add_node(call_model)
builder.add_node("tools", ToolNode(TOOLS))
builder.add_edge("__start__", "call_model")
builder.add_conditional_edges("call_model", route_model_output)
builder.add_edge("tools", "call_model")

graph = builder.compile(name="ReAct Agent")
