"""Operators that run LangGraph agents as Airflow tasks.

Importing this module is cheap: graphs, models and database drivers are loaded when a task runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from backend.runtime.batch.plan import DEFAULT_CONCURRENCY, parse_inputs, parse_plan
from backend.runtime.specs import (
    AgentSpec,
    is_template,
    parse_agent,
    parse_max_steps,
    parse_supervisor,
    parse_team,
    synthesis_spec,
    without_ellipsis,
)
from visual_ai_agents_operator import AgentsOperator, parsed

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

__all__ = ["LangGraphOperator", "MultiAgentOperator"]


class LangGraphOperator(AgentsOperator):
    """Runs one agent as a task.

    :param agent_config: which agent, `{"type": "vision" | "text" | "extraction" | "synthesis" | "review" |
        "supervisor"}`, and how it is set up: `system_prompt`, `temperature` (0-2), `max_tokens`. Templated.
    :param input_data: the agent's input, such as `{"image_url": "{{ dag_run.conf.image_url }}"}`; without it the
        run's own input. Templated.
    :param model: the model's name as LangChain's `init_chat_model` takes it (`openai:gpt-4.1`); a bare name is
        OpenAI's. Without it the model that the trigger asked for, or the default. Templated.
    :param output_schema: the form of the output's `data`: a JSON Schema of an object, or a Pydantic model as
        "package.module:Class". An answer that doesn't fit is asked for once more, then the task fails without a retry
        (`invalid_output`). The agent `extraction` needs one; others need a hosted model for it. Templated.
    :param timeout: how long the agent may take, in seconds or as a `timedelta`.
    :param graph: the user's own graph instead of `agent_config`: `"package.module:attribute"` (a `StateGraph`, a
        compiled graph, or a function that returns one) or a name in the `langgraph.json` that
        `VISUAL_AI_LANGGRAPH_JSON` points to. `input_data` is its input. Templated.
    :param context: the graph's runtime context. Templated.
    :param configurable: further entries of `config["configurable"]`. Templated.
    :param output_mapping: parts of the graph's output under names of one's own, such as
        `{"answer": "messages.-1.content"}`.

    :param error_policy: what to do about models' errors where it differs from the settings: retries, backoff, other
        models, repairs by category, such as `{"rate_limit": {"retries": 8}, "wait_limit": 120, "fallbacks": ["…"]}`.
        Templated.
    :param budget: what the task may use over all its tries: `max_tokens` (input and output), `max_cost_usd` and
        `max_steps` (executions of nodes), any of them. A model call or step that would go over it isn't made and fails
        the task without a retry. Templated.
    :param inputs: makes the task a batch: a list of inputs that the agent works on side by side, each with its own
        checkpoints, trace and errors; what `input_data` holds is common to all. May be another task's output.
        Templated.
    :param max_concurrency: how many inputs at once, 1 to 1,000.
    :param on_item_error: `fail` fails the task when all inputs have come to their end and some have failed, and a
        retry runs only those; `continue` lets it succeed and lists them.
    :param results_path: a file or object storage address (`s3://…`) that gets the items as JSON lines. May be another
        task's output. Templated.

    XCom: `{output, agent, model, usage: {input_tokens, output_tokens}, cost_usd, trace_id, trace_url, attempts,
    notice}`. Of a batch: `{batch: {items, succeeded, failed, failures}, agent, model, usage, cost_usd, results_url,
    attempts}` and, for up to 100 items and 1 MiB, `results`: the outputs in order, None for a failed item.

    Wrong arguments raise `ValueError` naming the argument when the DAG is parsed; wrong input fails the task without
    a retry, and so do errors that the same request would meet again (authentication, quota, context length).
    """

    arguments = (
        "agent_config",
        "input_data",
        "model",
        "timeout",
        "graph",
        "context",
        "configurable",
        "output_mapping",
        "output_schema",
        "error_policy",
    )
    template_fields: Sequence[str] = (
        "agent_config",
        "input_data",
        "model",
        "graph",
        "context",
        "configurable",
        "inputs",
        "max_concurrency",
        "results_path",
        "budget",
        "output_schema",
        "error_policy",
        "llm_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "agent_config": "json",
        "input_data": "json",
        "output_schema": "json",
    }

    def __init__(
        self,
        *,
        agent_config: Mapping[str, Any] | XComArg | None = None,
        input_data: Mapping[str, Any] | XComArg | None = None,
        model: str | None = None,
        output_schema: Mapping[str, Any] | str | None = None,
        timeout: float | timedelta | None = None,
        graph: str | None = None,
        context: Mapping[str, Any] | None = None,
        configurable: Mapping[str, Any] | None = None,
        output_mapping: Mapping[str, str] | None = None,
        error_policy: Mapping[str, Any] | None = None,
        inputs: Sequence[Mapping[str, Any]] | XComArg | str | None = None,
        max_concurrency: int | str = DEFAULT_CONCURRENCY,
        on_item_error: str = "fail",
        results_path: str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inputs = inputs
        self.max_concurrency = max_concurrency
        self.on_item_error = on_item_error
        self.results_path = results_path
        self.agent_config = agent_config
        self.graph = graph
        self.context = context
        self.configurable = configurable
        self.output_mapping = output_mapping
        self.input_data = without_ellipsis(input_data)
        self.model = model
        self.output_schema = output_schema
        self.timeout = timeout
        self.error_policy = error_policy
        parse_plan(DEFAULT_CONCURRENCY if is_template(max_concurrency) else max_concurrency, on_item_error)
        if inputs is not None and not _known_later(inputs):
            parse_inputs(inputs)
        if not _known_later(agent_config):
            given = self._arguments()
            if _known_later(self.input_data):
                given["input_data"] = None
            spec = parse_agent(**given)
            if inputs is None:
                _check_fields(spec, "input_data")

        if inputs is None:
            self._start_in_triggerer()

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the agent. Raises its error; `AirflowFailException` when a retry can't help."""
        if self.inputs is not None:  # a batch keeps a process busy: not one that others share
            return self._run_batch(context, parsed(lambda: parse_agent(**self._arguments())))
        return super().execute(context)

    def _run_batch(self, context: Context, spec: AgentSpec) -> dict[str, Any]:
        from backend.runtime.batch.run import run_batch

        # What another task hands on may be a lazy sequence.
        inputs = parsed(lambda: parse_inputs(self.inputs))
        plan = parsed(lambda: parse_plan(self.max_concurrency, self.on_item_error))
        path = str(self.results_path) if self.results_path else None
        write_to = (lambda: _open_for_writing(path)) if path else None
        return self._run_agents(context, lambda runner: run_batch(runner, spec, inputs, plan, write_to=write_to))


class MultiAgentOperator(AgentsOperator):
    """Runs several agents as one task.

    :param agents: a list of `{"name", "type", "input_data", "model", "required", "timeout", "depends_on",
        "description", "output_schema", "error_policy"}` and the agent's own configuration; names are unique, `timeout`
        is in seconds. An agent without `input_data` gets the run's own input. One with `"required": False` may fail
        without failing the task; its error stays in its place and the others go on without its result. After the
        failure of another one those that run go on to their end, no other starts, and the task fails. Templated.
    :param orchestration_mode: Templated.

        - `parallel`: all at once.
        - `sequential`: each gets the results before it.
        - `graph`: each gets the results of the agents that its `depends_on` names, as soon as they are there.
        - `supervisor`: a model picks who works next, from the run's `query`, each agent's `description` and the results
          so far, until it finishes; an agent may work several times. Offline each works once, in the order given.
    :param model: the model of agents that name none. Templated.
    :param budget: as with `LangGraphOperator`, for all agents together.
    :param error_policy: as with `LangGraphOperator`, for all agents; an entry of `agents`, `synthesis` and `supervisor`
        may have one of its own. Templated.
    :param synthesis: whether an agent sums up the results; a dict (`model`, `system_prompt`, …) sets it up.
    :param supervisor: sets up the supervisor (`model`, `system_prompt`, `timeout`, …). Templated.
    :param max_steps: how often the supervisor may call an agent, at most 200; by default twice for each agent and two
        more. A supervisor that wants to go on fails the task without a retry (`budget`). Templated.

    XCom: `{results: {name: output}, summary, agents: {name: {state, model, usage, cost_usd, trace_id}}, usage,
    cost_usd}`, in the mode `supervisor` also `decisions: [{next, instruction, reason}]`.

    A retry takes up each agent where it stopped: those that came to their end are not run, or paid for, again. Errors
    are as with `LangGraphOperator`.
    """

    arguments = ("agents", "orchestration_mode", "model", "synthesis", "supervisor", "max_steps", "error_policy")
    template_fields: Sequence[str] = (*arguments, "budget", "llm_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"agents": "json", "synthesis": "json", "supervisor": "json"}

    def __init__(
        self,
        *,
        agents: Sequence[Mapping[str, Any]] | XComArg,
        orchestration_mode: str = "parallel",
        model: str | None = None,
        synthesis: bool | str | Mapping[str, Any] = True,
        supervisor: Mapping[str, Any] | str | None = None,
        max_steps: int | str | None = None,
        error_policy: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.error_policy = error_policy
        self.agents = agents if _known_later(agents) else _plain_agents(agents)
        self.orchestration_mode = orchestration_mode
        self.model = model
        self.synthesis = synthesis
        self.supervisor = supervisor
        self.max_steps = max_steps
        if not _known_later(synthesis):
            synthesis_spec(synthesis, (), model, error_policy)
        if not _known_later(self.agents):
            specs = parse_team(self.agents, orchestration_mode, model=model, error_policy=error_policy)
            for index, spec in enumerate(specs):
                chained = orchestration_mode not in ("parallel", "graph") or bool(spec.depends_on)
                _check_fields(spec, f"agents[{index}].input_data", chained=chained)
        if not is_template(max_steps):
            parse_max_steps(max_steps, orchestration_mode, agents=1)
        if supervisor is not None and not _known_later(supervisor):
            parse_supervisor(supervisor, model=model)

        self._start_in_triggerer()


def _known_later(value: Any) -> bool:
    """Whether the whole of a value, and not just some texts in it, is only known when the task runs."""
    return value is not None and not isinstance(value, Mapping | list | tuple) and is_template(value)


def _plain_agents(agents: Any) -> Any:
    if not isinstance(agents, list | tuple):
        return agents
    return [
        {**agent, "input_data": without_ellipsis(agent.get("input_data"))} if isinstance(agent, Mapping) else agent
        for agent in agents
    ]


def _check_fields(spec: AgentSpec, argument: str, *, chained: bool = False) -> None:
    """Refuse input that lacks a field the agent can't do without; what the fields hold is checked at run time."""
    from backend.agents.registry import AGENTS
    from backend.core.errors.input_error import InputError

    if spec.input_data is None or spec.type not in AGENTS:
        return
    missing = AGENTS[spec.type].lacks(spec.input_data)
    # An agent that follows others may get a text from their results.
    if missing is not None and not (chained and spec.type not in ("vision", "supervisor")):
        raise InputError(f"lacks {missing!r}, which the agent {spec.type!r} needs", field=argument)


def _open_for_writing(path: str) -> TextIO:
    from airflow.sdk import ObjectStoragePath

    target = ObjectStoragePath(path)
    if target.protocol in ("", "file"):
        target.parent.mkdir(parents=True, exist_ok=True)
    file: TextIO = target.open("w", encoding="utf-8")  # type: ignore[no-untyped-call]  # Airflow's isn't typed
    return file
