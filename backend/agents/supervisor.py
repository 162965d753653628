"""The supervisor agent decides which of several agents works next, or that the work is done. Node: decide.

Offline there is no model to decide: each agent works once, in the given order.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph

from backend.agents.config import AgentConfig, AgentDeps, optional_text
from backend.agents.output_schema import load_output_schema
from backend.agents.structured import ask
from backend.agents.supervisor_choice import FINISH, decision_schema
from backend.agents.synthesis import finding
from backend.core.errors.input_error import InputError
from backend.models.prompts.document import fence, instructions
from backend.models.reply import Model

SYSTEM_PROMPT = (
    "You lead a team of agents that work on a request. Say who works next, and what that agent should do if it isn't "
    f"plain; or {FINISH} when the results answer the request, or when no agent can add to them. Call an agent again "
    "only when its last result lacks something that you can name."
)
DEFAULT_QUERY = "Let each agent do its part."
NOTICE = "Offline supervision: without a hosted model nothing is decided; each agent works once, in the order given."
MAX_RESULT_CHARS = 20_000
"""The most characters that one agent's result may add to the prompt."""


class SupervisorInput(TypedDict, total=False):
    """`agents` says what each agent can do, by its name. `query` is the request.

    `results` has the latest result of each agent so far, and `errors` says why agents failed, both by name. `called`
    lists the agents that have worked, in order. `steps_left` is how many more calls are allowed; None means no limit.
    """

    query: str | None
    agents: dict[str, str]
    results: dict[str, Any] | None
    errors: dict[str, str] | None
    called: list[str] | None
    steps_left: int | None


class SupervisorOutput(TypedDict, total=False):
    """`next` is an agent's name or "FINISH". `instruction` is for that agent, or None. `reason` is a sentence.

    `offline` says that no hosted model was involved; `notice` explains what that means.
    """

    next: str
    instruction: str | None
    reason: str
    offline: bool
    notice: str | None


class SupervisorState(SupervisorInput, SupervisorOutput, total=False):
    """The graph's state."""


def build(
    config: AgentConfig, model: Model, deps: AgentDeps
) -> StateGraph[SupervisorState, None, SupervisorInput, SupervisorOutput]:
    """Build the agent's graph. The caller compiles it, with a checkpointer."""

    async def decide(state: SupervisorState) -> dict[str, Any]:
        agents = _required_agents(state)
        if deps.offline:
            called = state.get("called") or []
            following = next((name for name in agents if name not in called), FINISH)
            reason = "Every agent has worked." if following == FINISH else "The next in the order given."
            return {"next": following, "instruction": None, "reason": reason, "offline": True, "notice": NOTICE}
        messages = [instructions(config.system_prompt or SYSTEM_PROMPT), HumanMessage(_prompt(state, agents))]
        decision = await ask(model, messages, load_output_schema(decision_schema(list(agents))))
        return {
            "next": decision["next"],
            "instruction": (decision.get("instruction") or "").strip() or None,
            "reason": decision["reason"],
            "offline": False,
            "notice": None,
        }

    graph = StateGraph(SupervisorState, input_schema=SupervisorInput, output_schema=SupervisorOutput)
    graph.add_node("decide", decide)
    graph.add_edge(START, "decide")
    graph.add_edge("decide", END)
    return graph


def _required_agents(state: Mapping[str, Any]) -> dict[str, str]:
    agents = state.get("agents")
    if isinstance(agents, list | tuple):
        agents = dict.fromkeys(agents, "")
    if not isinstance(agents, dict) or not agents or not all(isinstance(name, str) and name for name in agents):
        raise InputError("has to hold at least one agent's name, with what the agent can do", field="agents")
    if FINISH in agents:
        raise InputError(f"holds {FINISH!r}, which says that the work is done", field="agents")
    return agents


def _prompt(state: SupervisorState, agents: Mapping[str, str]) -> str:
    lines = [f"The request: {optional_text(state, 'query') or DEFAULT_QUERY}", "The agents:"]
    lines += [f"- {name}: {purpose}" if purpose else f"- {name}" for name, purpose in agents.items()]
    called = state.get("called") or []
    lines.append(f"Calls so far: {', '.join(called) or 'none'}.")
    if (left := state.get("steps_left")) is not None:
        only = f"; only {FINISH} can be chosen" if left == 0 else ""
        lines.append(f"Calls left: {left}{only}.")
    for name, error in (state.get("errors") or {}).items():
        lines.append(f"The last call of {name} failed:\n{fence(error[:MAX_RESULT_CHARS], name)}")
    for name, result in (state.get("results") or {}).items():
        lines.append(f"The latest result of {name}:\n{fence(finding(result)[:MAX_RESULT_CHARS], name)}")
    return "\n".join(lines)
