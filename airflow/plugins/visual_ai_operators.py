"""Operators that run LangGraph agents as Airflow tasks.

Importing this module is cheap: graphs, models and database drivers are only loaded when a task runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from backend.core.errors.input_error import InputError
from backend.runtime.batch.plan import DEFAULT_CONCURRENCY, parse_inputs, parse_plan
from backend.runtime.spec_values import is_template, without_ellipsis
from backend.runtime.specs import (
    AgentSpec,
    check_connection,
    check_team_model,
    parse_max_steps,
    parse_supervisor,
    parse_team,
    synthesis_spec,
)
from visual_ai_agents_operator import AgentsOperator, parsed
from visual_ai_tasks import parse_single

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

__all__ = ["LangGraphOperator", "MultiAgentOperator"]


class LangGraphOperator(AgentsOperator):
    """Runs one agent as a task.

    Several parameters are keys of `agent_config` too. A value may stand in either place; two that differ are refused.

    :param agent_config: the agent, `{"type": "vision" | "text" | "extraction" | "synthesis" | "review" |
        "supervisor"}`, its settings (`system_prompt`, `temperature` from 0 to 2, `max_tokens`, `on_incomplete`,
        `streaming`, `output_method`, options of the model such as `top_p` and `seed`) and its `name`. Templated.
    :param input_data: the agent's input, such as `{"image_url": "{{ dag_run.conf.image_url }}"}`; by default the
        run's own input. A dict, or for a graph whatever JSON it takes. Templated.
    :param model: the model's name as LangChain's `init_chat_model` takes it (`openai:gpt-4.1`); a bare name is
        OpenAI's. By default the model that the trigger requested, or else the one in the settings. Templated.
    :param output_schema: the form of the output's `data`: a JSON Schema of an object, or a Pydantic model as
        "package.module:Class". A model whose answer doesn't fit is asked once more; then the task fails without a retry
        (`invalid_output`). The agent `extraction` needs a schema; other agents need a hosted model for it. Templated.
    :param timeout: how long the agent may take, in seconds or as a `timedelta`. Templated.
    :param graph: the user's own graph instead of `agent_config`: `"package.module:attribute"` (a `StateGraph`, a
        compiled graph, or a function that returns one), a name in the `langgraph.json` that
        `VISUAL_AI_LANGGRAPH_JSON` points to, or `"project/graph"` for a project that was added with an environment of
        its own. `input_data` is its input. Templated.
    :param context: the graph's runtime context. Only for a graph. Templated.
    :param configurable: further entries of `config["configurable"]`. Only for a graph. Templated.
    :param config: LangGraph's `RunnableConfig` for the graph: any of `recursion_limit`, `max_concurrency` (nodes at a
        time), `tags`, `metadata` and `configurable`. Only for a graph. Templated.
    :param thread: the conversation in which the graph takes turns, such as `"{{ dag_run.conf.user }}"`: it goes on with
        the state that the last turn of that name, of any run of the DAG, has left. Turns of a conversation run one
        after another. Only for a graph. Templated.
    :param output_mapping: renames parts of the output, such as `{"answer": "messages.-1.content"}`. Templated.
    :param error_policy: how to handle models' errors, where it differs from the settings: retries, backoff, fallback
        models and repairs by category, such as
        `{"rate_limit": {"retries": 8}, "wait_limit": 120, "fallbacks": ["…"]}`. Templated.
    :param budget: what the task may use over all its tries: any of `max_tokens` (input and output), `max_cost_usd` and
        `max_steps` (executions of nodes). A model call or step that would exceed it isn't made, and fails the task
        without a retry. Templated.
    :param inputs: makes the task a batch: a list of inputs that the agent processes concurrently, each with its own
        checkpoints, trace and errors; `input_data` is common to all of them. May be another task's output. Templated.
    :param max_concurrency: how many inputs are processed at the same time, 1 to 1,000.
    :param on_item_error: `fail` fails the task after all inputs have ended if some have failed, and a retry runs only
        those; `continue` lets the task succeed and lists them.
    :param results_path: a file or object storage address (`s3://…`) to which the items are written as JSON lines. May
        be another task's output. Templated.

    The last three are for batches only.

    XCom: `{output, agent, model, usage: {input_tokens, output_tokens}, cost_usd, trace_id, trace_url, attempts,
    notice}`. Of a batch: `{batch: {items, succeeded, failed, failures}, agent, model, usage, cost_usd, results_url,
    attempts}` and, for up to 100 items and 1 MiB, `results`: the outputs in order, None for a failed item.

    Wrong arguments raise a `ValueError` that names the argument when the DAG is parsed. Wrong input fails the task
    without a retry, and so do errors that the same request would meet again (authentication, quota, context length).
    """

    agents_stand = "alone"
    graph_at_run: ClassVar[str | None] = None
    """What stands for a graph that is known only when the task runs, if there may be one."""

    arguments = (
        "agent_config",
        "input_data",
        "model",
        "timeout",
        "graph",
        "context",
        "configurable",
        "config",
        "thread",
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
        "config",
        "thread",
        "output_mapping",
        "timeout",
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
        input_data: Any = None,
        model: str | None = None,
        output_schema: Mapping[str, Any] | str | None = None,
        timeout: float | timedelta | None = None,
        graph: str | None = None,
        context: Mapping[str, Any] | None = None,
        configurable: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        thread: str | None = None,
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
        self.config = config
        self.thread = thread
        self.output_mapping = output_mapping
        self.input_data = without_ellipsis(input_data)
        self.model = model
        self.output_schema = output_schema
        self.timeout = timeout
        self.error_policy = error_policy
        parse_plan(DEFAULT_CONCURRENCY if is_template(max_concurrency) else max_concurrency, on_item_error)
        if inputs is None:
            self._refuse_batch_arguments()
        elif not _known_later(inputs):
            parse_inputs(inputs, own_graph=_is_graph(graph, agent_config), common=self.input_data)
        if not _known_later(agent_config):
            given = self._arguments()
            if _known_later(self.input_data):
                given["input_data"] = None
            if agent_config is None and graph is None:
                given["graph"] = self.graph_at_run
            spec = parse_single(given, self.llm_conn_id)
            if spec.thread is not None and inputs is not None:
                raise InputError("is for one input; each of a batch would be a turn of its own", field="thread")
            if inputs is None:
                _check_fields(spec, "agent_config.input_data" if self.input_data is None else "input_data")

        if inputs is None:
            self._start_in_triggerer()

    @classmethod
    def check_mapped(cls, given: Mapping[str, Any]) -> None:
        """Check what is the same for all instances. An `output_schema` may be among what is different."""
        arguments = {name: given.get(name) for name in cls.arguments}
        if _known_later(arguments["agent_config"]) or arguments["agent_config"] is arguments["graph"] is None:
            return
        if _known_later(arguments["input_data"]):
            arguments["input_data"] = None
        try:
            parse_single(arguments, given.get("llm_conn_id"))
        except InputError as error:
            if not error.field.endswith("output_schema") or arguments["output_schema"] is not None:
                raise

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the agent. Raises its error, or `AirflowFailException` if a retry can't help."""
        if self.inputs is not None:  # a batch keeps its process busy, so it never runs in the triggerer
            return self._run_batch(context, parsed(lambda: parse_single(self._arguments(), self.llm_conn_id)))
        return super().execute(context)

    def _refuse_batch_arguments(self) -> None:
        usual = {"max_concurrency": DEFAULT_CONCURRENCY, "on_item_error": "fail", "results_path": None}
        for name, default in usual.items():
            if getattr(self, name) != default:
                raise InputError("is for a batch; give its inputs=[…] as well", field=name)

    def _run_batch(self, context: Context, spec: AgentSpec) -> dict[str, Any]:
        from backend.runtime.batch.run import run_batch

        # Another task's output may be a lazy sequence.
        own_graph = spec.graph is not None
        inputs = parsed(lambda: parse_inputs(self.inputs, own_graph=own_graph, common=spec.input_data))
        plan = parsed(lambda: parse_plan(self.max_concurrency, self.on_item_error))
        path = str(self.results_path) if self.results_path else None
        write_to = (lambda: _open_for_writing(path)) if path else None
        return self._run_agents(context, lambda runner: run_batch(runner, spec, inputs, plan, write_to=write_to))


class MultiAgentOperator(AgentsOperator):
    """Runs several agents as one task.

    :param agents: a list of `{"name", "type", "input_data", "model", "required", "timeout", "depends_on",
        "description", "output_schema", "error_policy"}` and the agent's own configuration; names are unique, `timeout`
        is in seconds. An agent without `input_data` gets the run's own input. One with `"required": False` may fail
        without failing the task: its error takes the place of its result, and the others continue without it. After a
        required agent fails, running agents finish, no further one starts, and the task fails. Templated.
    :param orchestration_mode: Templated.

        - `parallel`: all agents at once.
        - `sequential`: one after another; each gets the results of those before it.
        - `graph`: each starts when the agents in its `depends_on` have finished, and gets their results.
        - `supervisor`: a model picks the next agent from the run's `query`, each agent's `description` and the results
          so far, until the work is done; an agent may work several times. Offline, each works once, in the given order.
    :param model: the model of agents that name none. Templated.
    :param budget: as with `LangGraphOperator`, for all agents together.
    :param error_policy: as with `LangGraphOperator`, for all agents; an entry of `agents`, `synthesis` and `supervisor`
        may have its own. Templated.
    :param synthesis: whether an agent sums up the results; a dict (`model`, `system_prompt`, …) configures it.
    :param supervisor: configures the supervisor (`model`, `system_prompt`, `timeout`, …). Templated.
    :param max_steps: how often the supervisor may call an agent, at most 200; by default twice per agent plus two. A
        supervisor that wants to continue after that fails the task without a retry (`budget`). Templated.

    XCom: `{results: {name: output}, summary, agents: {name: {state, model, usage, cost_usd, trace_id}}, usage,
    cost_usd}`, in the mode `supervisor` also `decisions: [{next, instruction, reason}]`.

    A retry resumes each agent where it stopped; agents that have finished are neither run nor paid for again. Errors
    are as with `LangGraphOperator`.
    """

    agents_stand = "team"
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
            if synthesis is False and orchestration_mode in ("parallel", "sequential", "graph"):
                check_team_model(specs, model)
                check_connection(specs, self.llm_conn_id)
        if not is_template(max_steps):
            parse_max_steps(max_steps, orchestration_mode, agents=1)
        if not _known_later(supervisor):
            parse_supervisor(supervisor, orchestration_mode, model=model)

        self._start_in_triggerer()

    @classmethod
    def check_mapped(cls, given: Mapping[str, Any]) -> None:
        """Check what is the same for all instances. The mode may be among what is different."""
        agents, mode = given.get("agents"), given.get("orchestration_mode", UNKNOWN_MODE)
        if agents is not None and not _known_later(agents):
            parse_team(_plain_agents(agents), mode, model=given.get("model"), error_policy=given.get("error_policy"))
        if not _known_later(given.get("synthesis", True)):
            synthesis_spec(given.get("synthesis", True), (), given.get("model"), given.get("error_policy"))
        if not _known_later(given.get("supervisor")):
            parse_supervisor(given.get("supervisor"), mode)


UNKNOWN_MODE = "{{ mapped }}"
"""Stands for a mode that is known when the task runs."""


def _known_later(value: Any) -> bool:
    """Whether a value as a whole, and not just a text in it, is only known when the task runs."""
    return value is not None and not isinstance(value, Mapping | list | tuple) and is_template(value)


def _is_graph(graph: Any, agent_config: Any) -> bool:
    return graph is not None or (isinstance(agent_config, Mapping) and agent_config.get("graph") is not None)


def _plain_agents(agents: Any) -> Any:
    if not isinstance(agents, list | tuple):
        return agents
    return [
        {**agent, "input_data": without_ellipsis(agent.get("input_data"))} if isinstance(agent, Mapping) else agent
        for agent in agents
    ]


def _check_fields(spec: AgentSpec, argument: str, *, chained: bool = False) -> None:
    """Refuse input without a field that the agent needs. The fields' contents are checked when the task runs."""
    from backend.agents.registry import AGENTS

    if spec.input_data is None or spec.type not in AGENTS:
        return
    missing = AGENTS[spec.type].lacks(spec.input_data)
    # An agent that follows others may get its text from their results.
    if missing is not None and not (chained and spec.type not in ("vision", "supervisor")):
        raise InputError(f"lacks {missing!r}, which the agent {spec.type!r} needs", field=argument)


def _open_for_writing(path: str) -> TextIO:
    from airflow.sdk import ObjectStoragePath

    target = ObjectStoragePath(path)
    if target.protocol in ("", "file"):
        target.parent.mkdir(parents=True, exist_ok=True)
    file: TextIO = target.open("w", encoding="utf-8")  # type: ignore[no-untyped-call]  # Airflow's isn't typed
    return file
