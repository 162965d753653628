"""Graphs that ask people, written as LangGraph's documentation writes them."""

import operator
from typing import Annotated, Any, Literal, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel

RAN: list[str] = []
"""Which nodes have run, in order."""


class Draft(TypedDict, total=False):
    topic: str
    draft: str
    status: str


def _write(state: Draft) -> dict[str, Any]:
    RAN.append("write")
    return {"draft": f"A draft about {state['topic']}."}


def _review(state: Draft) -> dict[str, Any]:
    RAN.append("review")
    return {"draft": interrupt({"task": "Review and edit this draft", "draft": state["draft"]})}


def editing() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A person edits a draft."""
    graph = StateGraph(Draft)
    graph.add_node("write", _write)
    graph.add_node("review", _review)
    graph.add_edge(START, "write")
    graph.add_edge("write", "review")
    graph.add_edge("review", END)
    return graph.compile()


def approving() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A person approves, or the graph takes another way."""

    def ask(state: Draft) -> Command[Literal["proceed", "cancel"]]:
        approved = interrupt({"question": "Do you approve this action?", "details": state["topic"]})
        return Command(goto="proceed" if approved else "cancel")

    graph = StateGraph(Draft)
    graph.add_node("ask", ask)
    graph.add_node("proceed", lambda _: {"status": "approved"})
    graph.add_node("cancel", lambda _: {"status": "rejected"})
    graph.add_edge(START, "ask")
    return graph.compile()


class Form(TypedDict, total=False):
    age: int
    name: str


class Letter(TypedDict, total=False):
    key: str
    said: Annotated[list[str], operator.add]


def paying() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Asks, pays for a model's answer, and asks again."""

    def first(state: Letter) -> dict[str, Any]:
        return {"said": [interrupt(f"First of {state['key']}?")]}

    async def write(state: Letter) -> dict[str, Any]:
        await ChatOpenAI(model="gpt-4.1", max_retries=0).ainvoke(f"Write to {state['key']}.")
        return {}

    def second(state: Letter) -> dict[str, Any]:
        return {"said": [interrupt(f"Second of {state['key']}?")]}

    graph = StateGraph(Letter)
    for node in (first, write, second):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "first")
    graph.add_edge("first", "write")
    graph.add_edge("write", "second")
    graph.add_edge("second", END)
    return graph.compile()


BREAKS: list[str] = []
"""Errors that the next runs of `breaking` raise between its two questions."""


def breaking() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Asks, fails if it shall, and asks again in the same node."""

    def ask(state: Form) -> dict[str, Any]:  # prescribed
        age = interrupt("Age?")
        if BREAKS:
            raise RuntimeError(BREAKS.pop())
        return {"age": age, "name": interrupt("Name?")}

    graph = StateGraph(Form)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph.compile()


def breaking_inside() -> CompiledStateGraph[Any, Any, Any, Any]:
    """The same in a subgraph."""
    graph = StateGraph(Form)
    graph.add_node("inner", breaking())
    graph.add_edge(START, "inner")
    graph.add_edge("inner", END)
    return graph.compile()


def choosy() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Asks about some topics only, and fails for others."""

    def write(state: Draft) -> dict[str, Any]:
        topic = state["topic"]
        RAN.append(topic)
        if topic == "error":
            raise ValueError("no such topic")
        asks = topic in ("secret", "private")
        return {"draft": interrupt(f"Publish {topic}?") if asks else topic}

    graph = StateGraph(Draft)
    graph.add_node("write", write)
    graph.add_edge(START, "write")
    graph.add_edge("write", END)
    return graph.compile()


def looping() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A node asks until the answer is valid, and then something else."""

    def collect(state: Form) -> dict[str, Any]:  # prescribed
        prompt = "What is your age?"
        while True:
            answer = interrupt(prompt)
            if isinstance(answer, int) and answer > 0:
                break
            prompt = f"'{answer}' is not a valid age. Please enter a positive number."
        return {"age": answer, "name": interrupt("And your name?")}

    graph = StateGraph(Form)
    graph.add_node("collect", collect)
    graph.add_edge(START, "collect")
    graph.add_edge("collect", END)
    return graph.compile()


class Votes(TypedDict, total=False):
    votes: Annotated[list[str], operator.add]


def parallel() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Three branches ask at once, and a fourth doesn't."""

    def asks(name: str) -> Any:
        return lambda _: {"votes": [f"{name}: {interrupt(f'What does {name} say?')}"]}

    graph = StateGraph(Votes)
    for name in ("a", "b", "c"):
        graph.add_node(name, asks(name))
        graph.add_edge(START, name)

    def works(state: Votes) -> dict[str, Any]:  # prescribed
        RAN.append("works")
        return {"votes": ["d"]}

    graph.add_node("d", works)
    graph.add_edge(START, "d")
    return graph.compile()


def nested() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A subgraph asks."""
    graph = StateGraph(Draft)
    graph.add_node("editors", editing())
    graph.add_edge(START, "editors")
    return graph.compile()


def called() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A subgraph that a node calls asks."""
    inner = editing()
    graph = StateGraph(Draft)
    graph.add_node("desk", lambda state: {"draft": inner.invoke({"topic": state["topic"]})["draft"]})
    graph.add_edge(START, "desk")
    return graph.compile()


@tool
def send_email(to: str, body: str) -> str:
    """Send an e-mail."""
    RAN.append(f"send_email {to}")
    return f"Sent to {to}: {body}"


def _agent(**options: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
    middleware = HumanInTheLoopMiddleware({"send_email": True}, **options)
    return create_agent(ChatOpenAI(model="gpt-4.1"), tools=[send_email], middleware=[middleware])


def middleware() -> CompiledStateGraph[Any, Any, Any, Any]:
    """LangChain's middleware asks for approval of a tool call."""
    return _agent()


def middleware_per_call() -> CompiledStateGraph[Any, Any, Any, Any]:
    """The same, call by call, with a schema."""
    return _agent(interrupt_mode="per_call")


class Booking(BaseModel):
    """What a person fills in."""

    seats: int
    note: str = ""


def with_schema() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A question that says what its answer is like."""

    def book(state: Form) -> dict[str, Any]:  # prescribed
        booking: Booking = interrupt("How many seats?", response_schema=Booking)
        return {"age": booking.seats, "name": booking.note}

    graph = StateGraph(Form)
    graph.add_node("book", book)
    graph.add_edge(START, "book")
    return graph.compile()


def _steps(**options: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
    def step(name: str) -> Any:
        def run(state: Votes) -> dict[str, Any]:  # prescribed
            RAN.append(name)
            return {"votes": [name]}

        return run

    graph = StateGraph(Votes)
    for name in ("first", "second", "third"):
        graph.add_node(name, step(name))
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.add_edge("second", "third")
    return graph.compile(**options)


def before() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A graph that stops before a node."""
    return _steps(interrupt_before=["second"])


def after() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A graph that stops after a node."""
    return _steps(interrupt_after=["second"])


def nested_before() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A subgraph that stops before a node."""
    graph = StateGraph(Votes)
    graph.add_node("inner", before())
    graph.add_edge(START, "inner")
    return graph.compile()


def nested_twice() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A subgraph that stops before two of its nodes, within one step of the graph around it."""
    graph = StateGraph(Votes)
    graph.add_node("inner", _steps(interrupt_before=["second", "third"]))
    graph.add_edge(START, "inner")
    return graph.compile()


def nested_after() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A subgraph that stops after a node."""
    graph = StateGraph(Votes)
    graph.add_node("inner", after())
    graph.add_edge(START, "inner")
    return graph.compile()


@task
def _asked(question: str) -> Any:
    return interrupt(question)


@entrypoint()
def functional(given: dict[str, Any]) -> dict[str, Any]:
    """LangGraph's functional API: tasks ask, and so does the entrypoint."""
    first = _asked(f"{given['topic']}, one?").result()
    second = _asked("Two?").result()
    return {"answers": [first, second, interrupt("Three?")]}


def messages() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A model is asked before a person is, in the same node, and after them in another."""
    model = ChatOpenAI(model="gpt-4.1")

    def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    def ask(state: MessagesState) -> dict[str, Any]:
        summary = model.invoke("Sum it up in a sentence.")
        return {"messages": [("user", interrupt({"question": "Is that right?", "summary": summary.text}))]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("ask", ask)
    graph.add_node("conclude", think)
    graph.add_edge(START, "think")
    graph.add_edge("think", "ask")
    graph.add_edge("ask", "conclude")
    return graph.compile()
