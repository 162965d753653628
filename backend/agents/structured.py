"""Structured answers: asks a model for data in a given form, checks it, and has the model repair what doesn't fit."""

from collections.abc import Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.graph import END, StateGraph

from backend.agents.answer_data import candidates, written
from backend.agents.config import AgentConfig, AgentDeps
from backend.agents.output_schema import FIELD, DataError, OutputSchema, load_output_schema
from backend.core.errors.agent_errors import AnswerRefusedError, InvalidOutputError
from backend.core.errors.input_error import InputError
from backend.models.adaptation import StructuredAnswer
from backend.models.call import ModelCall
from backend.models.prompts.document import fence, instructions
from backend.models.reply import Model

SYSTEM_PROMPT = (
    "You put the answer inside the <text> element into the form that is asked for. Take everything from the answer "
    "and add nothing of your own."
)

_MAX_QUOTED = 10_000


async def ask(model: Model, messages: Sequence[BaseMessage], schema: OutputSchema) -> dict[str, Any]:
    """Ask the model for an answer to `messages` in the form of `schema`.

    An answer that doesn't fit is sent back with what is wrong, as often as the error policy allows (once by default).
    Raises an `AgentFailure` with `InvalidOutputError` if the last answer doesn't fit either, or with
    `AnswerRefusedError` if the model refuses to answer.
    """
    # Providers use the title as the schema's name.
    form = StructuredAnswer({"title": "Output", **schema.json_schema})
    again = ""

    def fit(reply: AIMessage) -> dict[str, Any]:
        nonlocal again
        if refusal := reply.additional_kwargs.get("refusal"):
            raise AnswerRefusedError(f"the model refused to answer: {refusal}")
        try:
            return _fitting(reply, schema)
        except DataError as error:
            message = f"the answer does not fit the schema{again}: {error}"
            again = ", also when asked again"
            raise InvalidOutputError(message) from error

    def repair(reply: AIMessage, error: InvalidOutputError) -> str:
        return (
            f"Your answer was:\n{fence(written(reply)[:_MAX_QUOTED])}\nIt does not fit the form that was asked for: "
            f"{error.__cause__}\n{form.instruction}"
        )

    call = ModelCall.of(model).shaped(form)
    return cast(dict[str, Any], await call.ask(list(messages), check=fit, repair=repair))


def add_structure(
    graph: StateGraph[Any, Any, Any, Any], last: str, answer: str, config: AgentConfig, model: Model, deps: AgentDeps
) -> None:
    """End `graph` after its node `last`, or, with an `output_schema`, after a further node `structure`.

    That node converts the state's text `answer` to the schema's form and stores it as the state's `data`. Raises
    `InputError` if the schema can't be imported, or if an offline model would have to fill it.
    """
    if config.output_schema is None:
        graph.add_edge(last, END)
        return
    schema = load_output_schema(config.output_schema)
    if deps.offline:
        raise InputError(
            "needs a hosted model: set OPENAI_API_KEY or name a model that has a key. Offline only the agent "
            "“extraction” fills a schema",
            field=FIELD,
        )

    async def structure(state: Any) -> dict[str, Any]:
        messages = [instructions(SYSTEM_PROMPT), HumanMessage(fence(state[answer]))]
        return {"data": await ask(model, messages, schema)}

    graph.add_node("structure", structure)
    graph.add_edge(last, "structure")
    graph.add_edge("structure", END)


def _fitting(reply: AIMessage, schema: OutputSchema) -> dict[str, Any]:
    """The data in an answer: the first of what it may be that fits the schema. Raises `DataError` about the first."""
    first: DataError | None = None
    for data in candidates(reply):
        try:
            return schema.fit(data)
        except DataError as error:
            first = first or error
    raise first or DataError("it holds no data")
