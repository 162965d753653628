"""Bodies of workflow templates.

The structure of a definition is described here; its values are checked by the operators' own code.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from backend.agents.config import MAX_SYSTEM_PROMPT
from backend.api.schemas.workflows import BudgetBody, storable_json
from backend.core.models.modes import OutputMethod
from backend.runtime.spec_values import MAX_DESCRIPTION_CHARS, MAX_NAME_CHARS
from backend.runtime.specs import MAX_STEPS, Mode

NAME = r"^[a-z][a-z0-9_-]{0,62}$"
RESERVED = frozenset({"schema"})
MAX_AGENTS = 100
MAX_DEPTH = 50
"""Levels of nesting that a definition may have."""

_REFERENCE = '`{"$input": "name"}` stands for that field of the run\'s input'


def _free(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is reserved; choose another name")
    return name


def _shallow(value: Any) -> Any:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
    return storable_json(value) if isinstance(value, dict) else value


TemplateName = Annotated[str, Field(pattern=NAME, examples=["invoice-check"]), AfterValidator(_free)]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]
ErrorPolicy = Annotated[
    dict[str, Any],
    Field(
        description="How model errors are handled, by category: `rate_limit`, `timeout`, `server`, `context_length`, "
        "`invalid_output`, …; and `fallbacks`, `wait_limit`, `reschedule_limit`",
        examples=[{"rate_limit": {"retries": 8}, "fallbacks": ["openai:gpt-4.1-mini"]}],
    ),
]


class _ModelOptions(BaseModel):
    """The options that are passed through to hosted models; `backend/models/options.py` has them all."""

    model_config = ConfigDict(extra="forbid")

    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, strict=True)
    seed: int | None = Field(None, strict=True)
    stop: str | list[str] | None = Field(None, description="Where the answer is to end")
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Any] | None = None
    reasoning_effort: str | None = Field(None, examples=["low"])
    reasoning: bool | str | dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    verbosity: str | None = None
    service_tier: str | None = None
    num_ctx: int | None = Field(None, ge=1, strict=True, description="Ollama's context window")
    num_predict: int | None = Field(None, strict=True, description="Ollama's name of `max_tokens`")
    repeat_penalty: float | None = Field(None, ge=0, le=100)
    extra_body: dict[str, Any] | None = Field(
        None, description="Further fields of the request, for servers that speak OpenAI's protocol"
    )


class _Setup(_ModelOptions):
    model: ModelName | None = Field(
        None,
        description="A model name as in LangChain's init_chat_model; default: the run's model",
        examples=["openai:gpt-4.1"],
    )
    system_prompt: str | None = Field(None, min_length=1, max_length=MAX_SYSTEM_PROMPT)
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1, strict=True, description="Limit for one response")
    on_incomplete: Literal["fail", "accept"] | None = Field(
        None, description="Whether an incomplete answer fails under the error policy, or is accepted with a `notice`"
    )
    streaming: bool | None = Field(None, strict=True, description="Whether the model streams its answers")
    output_method: OutputMethod | None = Field(None, description="How the model is asked for an `output_schema`")
    max_completion_tokens: int | None = Field(None, ge=1, strict=True, description="Another name of `max_tokens`")
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False, description="Seconds")
    error_policy: ErrorPolicy | None = None


class SynthesisSetup(_Setup):
    """How the results are summarised."""

    output_schema: dict[str, Any] | None = Field(None, description="A JSON Schema for the output's `data`")


class SupervisorSetup(_Setup):
    """The model that picks the next agent in the mode `supervisor`."""


class AgentEntry(_Setup):
    """One agent: a built-in one, by its `type`, or a graph, by its name in the deployment's langgraph.json."""

    name: str = Field(min_length=1, max_length=MAX_NAME_CHARS, pattern=r"^[^/]*$", description="Unique in the template")
    type: Literal["vision", "text", "extraction", "synthesis", "review", "supervisor"] | None = Field(
        None,
        description="vision: answers from a picture (`image_url`). text: answers from `text`. extraction: extracts "
        "data that matches `output_schema` from `text` or `image_url`. synthesis: summarises `results`. review: judges "
        "`subject`, `text` or `results` by `criteria`. supervisor: picks the next of `agents`",
    )
    graph: str | None = Field(
        None, min_length=1, max_length=200, description="A name in langgraph.json; without `type`"
    )
    input_data: dict[str, Any] | None = Field(
        None,
        description="Its own input. It takes precedence over the run's `query`, `image_url` and `text`, which every "
        "built-in agent receives. " + _REFERENCE,
        examples=[{"criteria": ["It names a total."], "subject": {"$input": "draft"}}],
    )
    depends_on: list[str] | None = Field(
        None, max_length=MAX_AGENTS, description="The agents whose results it receives, in the mode `graph`"
    )
    required: bool = Field(True, strict=True, description="Whether its failure fails the task")
    description: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_DESCRIPTION_CHARS,
        description="Describes the agent to a supervisor, and in the result",
    )
    output_schema: dict[str, Any] | None = Field(
        None, description="A JSON Schema of an object, for the output's `data`; extraction requires one"
    )
    context: dict[str, Any] | None = Field(None, description="Passed to a graph as its context")
    configurable: dict[str, Any] | None = Field(None, description="Passed to a graph as its `configurable`")
    config: dict[str, Any] | None = Field(
        None,
        description="LangGraph's `RunnableConfig` for a graph: any of `recursion_limit`, `max_concurrency`, `tags`, "
        "`metadata` and `configurable`",
    )
    output_mapping: dict[str, str] | None = Field(
        None, description="Selects parts of what the agent returns", examples=[{"answer": "messages.-1.content"}]
    )


class Definition(BaseModel):
    """A workflow template's content: the DAG that it runs, its input and its agents."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "dag_id": "multi_agent_workflow",
                "description": "Reads an invoice, checks it, and judges the answer",
                "model": "openai:gpt-4.1",
                "budget": {"max_cost_usd": 0.5},
                "input_data": {"query": "Is the total right?"},
                "orchestration_mode": "graph",
                "agents": [
                    {"name": "seen", "type": "vision"},
                    {"name": "terms", "type": "text", "input_data": {"text": {"$input": "contract"}}},
                    {
                        "name": "checked",
                        "type": "review",
                        "input_data": {"criteria": ["It names the total."]},
                        "depends_on": ["seen", "terms"],
                    },
                ],
            }
        },
    )

    dag_id: str = Field(
        min_length=1, max_length=250, description="The DAG that runs it; `multi_agent_workflow` runs any agents"
    )
    description: str | None = Field(None, min_length=1, max_length=MAX_DESCRIPTION_CHARS)
    input_data: dict[str, Any] | None = Field(
        None,
        description="Defaults for a run's input. Objects are merged with the request's key by key, everything else is "
        "replaced as a whole",
    )
    model: ModelName | None = Field(
        None, description="The model of agents that name none; default: that of the user's preferences"
    )
    budget: BudgetBody | None = Field(None, description="The budget of a run; default: that of the user's preferences")
    agents: list[AgentEntry] | None = Field(
        None, min_length=1, max_length=MAX_AGENTS, description="The agents, for a DAG that accepts them"
    )
    orchestration_mode: Mode | None = Field(
        None,
        description="parallel (the default): all at once. sequential: each receives the results before it. graph: by "
        "`depends_on`. supervisor: a model picks the next agent",
    )
    synthesis: bool | SynthesisSetup | None = Field(
        None, description="Whether the results are summarised (the default), or how"
    )
    supervisor: SupervisorSetup | None = None
    max_steps: int | None = Field(
        None, ge=1, le=MAX_STEPS, strict=True, description="How often the supervisor may call an agent"
    )
    error_policy: ErrorPolicy | None = None

    def as_given(self) -> dict[str, Any]:
        """The definition, with only the fields that were given."""
        return self.model_dump(mode="json", exclude_unset=True)


DefinitionIn = Annotated[Definition, BeforeValidator(_shallow)]


def definition_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a definition."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Definition.model_json_schema()}


class TemplateBody(BaseModel):
    """A template to create."""

    model_config = ConfigDict(extra="forbid")

    name: TemplateName
    definition: DefinitionIn


class VersionBody(BaseModel):
    """A version to create."""

    model_config = ConfigDict(extra="forbid")

    definition: DefinitionIn
    base_version: int | None = Field(
        None, ge=1, strict=True, description="The latest version that you know of; 409 if there is a later one"
    )
    activate: bool = Field(False, strict=True, description="Whether it becomes the active version at once")


class VersionSummary(BaseModel):
    """A version without its definition. `activated_…` says when and by whom it was last activated, `deactivated_…`
    when and by whom another version was activated instead or the template was retired."""

    name: str
    version: int
    dag_id: str
    description: str | None
    active: bool
    created_by: str | None
    created_at: datetime
    activated_by: str | None
    activated_at: datetime | None
    deactivated_by: str | None
    deactivated_at: datetime | None


class VersionOut(VersionSummary):
    """A version. It never changes, except for whether it is active."""

    definition: dict[str, Any]


class TemplateSummary(VersionSummary):
    """A template without its definition: its active version, or its latest if it is retired (`active` is false)."""

    owner: str | None = Field(description="The user who created the template")
    latest_version: int


class TemplateOut(TemplateSummary, VersionOut):
    """A template: its active version, or its latest if it is retired (`active` is false)."""


class TemplateList(BaseModel):
    """A page of templates by name; `next_cursor` is null on the last page."""

    templates: list[TemplateSummary]
    next_cursor: str | None


class VersionList(BaseModel):
    """A page of versions, newest first; `next_cursor` is null on the last page."""

    versions: list[VersionSummary]
    next_cursor: str | None
