"""Operators that run LangGraph agents as Airflow tasks.

Importing this module is cheap: graphs, models and database drivers are loaded when a task runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TextIO

from airflow.sdk import Asset, AssetAlias, BaseOperator, Connection
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException, TaskDeferralTimeout
from airflow.triggers.base import StartTriggerArgs

from backend.agents.batch_plan import DEFAULT_CONCURRENCY, parse_inputs, parse_plan
from backend.agents.specs import (
    SUPERVISOR,
    AgentSpec,
    is_template,
    parse_agent,
    parse_max_steps,
    parse_supervisor,
    parse_team,
    synthesis_spec,
    without_ellipsis,
)
from backend.core.budget import parse_budget
from visual_ai_deferral import TRIGGER, plain, plain_or_none, renders_in_triggerer
from visual_ai_retries import AgentRetryPolicy, leave_worker

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from backend.agents.models import ModelCredentials
    from backend.agents.runner import TaskContext
    from backend.agents.task import AgentTask, Work

__all__ = ["LangGraphOperator", "MultiAgentOperator"]


class _AgentsOperator(BaseOperator):
    """What the two operators share: they run agents here or in the triggerer, stop them, and tell Airflow which errors
    are final.

    :param deferrable: whether the agents run in the triggerer, where a waiting agent costs no worker. The task starts
        there when its templates can be rendered there, and in a worker otherwise.
    :param llm_conn_id: the Airflow connection with the models' key and address, of the common-ai provider's type
        `langchain`. Without it the environment's. It is for built-in agents. Templated.
    """

    ui_color = "#e8f1ff"

    arguments: ClassVar[tuple[str, ...]] = ()
    """The names of the attributes that say what the agents are to do."""

    def __init__(
        self,
        *,
        deferrable: bool | None = None,
        llm_conn_id: str | None = None,
        budget: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.llm_conn_id = llm_conn_id
        self.budget = budget
        if not is_template(budget):
            parse_budget(budget)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        if self.retry_policy is None:
            self.retry_policy = AgentRetryPolicy()
        self._agent_task: AgentTask | None = None

    @staticmethod
    def work(arguments: Mapping[str, Any]) -> Work:
        """What is to be done, from rendered arguments. Raises `ValueError` naming the one that is wrong."""
        raise NotImplementedError

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the agents. Raises a required agent's error; `AirflowFailException` when a retry can't help."""
        arguments = self._arguments()
        if self.deferrable and (handed_on := plain_or_none({**arguments, "budget": self.budget})) is not None:
            self._defer(context, handed_on)
        work = _parsed(lambda: self.work(arguments))
        return self._run_agents(context, work)

    def resume(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on in a worker when the agents are done in the triggerer: give their result, or raise their error."""
        if event["error"] is None:
            return self._done(context, event["result"], event["execution_id"])
        from backend.agents.failure import unpack

        error = unpack(event["error"])
        if event["error"]["final"]:
            raise _final(event["error"]["message"], recorded=event["error"]["recorded"]) from error
        leave_worker(context, error)
        raise error

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Airflow's way back from the triggerer."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            raise TimeoutError(
                f"the task took longer than its execution_timeout of {self.execution_timeout}"
            ) from error

    def on_kill(self) -> None:
        """Stop the agents: the model calls in flight are dropped."""
        if self._agent_task is not None:
            self._agent_task.cancel()

    def _start_in_triggerer(self) -> None:
        """Let the task start in the triggerer, if it can. Called at the end of each operator's `__init__`."""
        handed_on = plain_or_none({**self._arguments(), "budget": self.budget}) if self.deferrable else None
        if handed_on is None or self._starts_with_code():
            return
        if not renders_in_triggerer([handed_on, self.llm_conn_id], self.get_dag()):
            return
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=TRIGGER, trigger_kwargs=self._trigger_arguments(handed_on), next_method="resume"
        )

    def _defer(self, context: Context, arguments: dict[str, Any]) -> NoReturn:
        from visual_ai_triggers import AgentTrigger

        task = task_context(context)
        self.defer(
            trigger=AgentTrigger(
                **self._trigger_arguments(arguments), conf=plain(dict(task.conf)), run_type=task.run_type
            ),
            method_name="resume",
            timeout=self.execution_timeout,
        )

    def _trigger_arguments(self, handed_on: dict[str, Any]) -> dict[str, Any]:
        arguments = dict(handed_on)
        return {
            "operator": self._kind().__name__,
            "budget": arguments.pop("budget"),
            "arguments": arguments,
            "llm_conn_id": self.llm_conn_id,
            "ends_task": not (
                self.outlets or self.multiple_outputs or self.returns_dag_result or self._post_execute_hook
            ),
            "pushes_xcom": self.do_xcom_push,
        }

    @classmethod
    def _kind(cls) -> type[_AgentsOperator]:
        """The operator itself, also of a class that is made from it."""
        return next(base for base in cls.__mro__ if base.__module__ == __name__ and base.__name__ in __all__)

    def _starts_with_code(self) -> bool:
        """Whether the author's own code runs before the agents."""
        return bool(self._pre_execute_hook or self.on_execute_callback) or type(self) is not self._kind()

    def _arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.arguments}

    def _run_agents(self, context: Context, work: Work) -> dict[str, Any]:
        from airflow.sdk.log import mask_secret

        from backend.agents.models import provider_keys
        from backend.agents.runner import is_final
        from backend.agents.task import AgentTask
        from backend.core.redaction import redact_text
        from backend.core.settings import get_settings
        from backend.core.workflow_error_handler import error_chain

        budget = _parsed(lambda: parse_budget(self.budget))
        credentials = credentials_of(_connection(self.llm_conn_id)) if self.llm_conn_id else None
        settings = get_settings()
        keys = provider_keys(settings, credentials)
        for key in keys:
            mask_secret(key)
        self._agent_task = AgentTask(settings, task_context(context), budget=budget, credentials=credentials)
        try:
            result = self._agent_task.run(work)
        except Exception as error:
            if not is_final(error):
                leave_worker(context, error)
                raise
            # A provider may repeat the key it refuses; LocalExecutor writes a task's exceptions, with all that led to
            # them, into the scheduler's log, where Airflow masks nothing.
            repeated = any(key in str(cause) for cause in error_chain(error) for key in keys)
            raise _final(redact_text(str(error)), recorded=True) from (None if repeated else error)
        return self._done(context, result, self._agent_task.execution_id)

    def _done(self, context: Context, result: dict[str, Any], execution_id: str | None) -> dict[str, Any]:
        """Tell with the task's assets where they come from."""
        told = {"agent", "agents", "model", "usage", "cost_usd", "trace_url"}
        extra = {"execution_id": execution_id, **{key: value for key, value in result.items() if key in told}}
        for outlet in self.outlets:
            if isinstance(outlet, Asset | AssetAlias):
                context["outlet_events"][outlet].extra.update(extra)
        return result


class LangGraphOperator(_AgentsOperator):
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
    :param results_path: a file or object storage address (`s3://…`) that gets the items as JSON lines. Templated.

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
        results_path: str | None = None,
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
        if not _known_later(agent_config) and not _known_later(self.input_data):
            spec = parse_agent(**self._arguments())
            if inputs is None:
                _check_fields(spec, "input_data")

        if inputs is None:
            self._start_in_triggerer()

    @staticmethod
    def work(arguments: Mapping[str, Any]) -> Work:
        """What is to be done, from rendered arguments. Raises `ValueError` naming the one that is wrong."""
        from backend.agents.runner import run_single

        spec = parse_agent(**arguments)
        return lambda runner: run_single(runner, spec)

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the agent. Raises its error; `AirflowFailException` when a retry can't help."""
        if self.inputs is not None:  # a batch keeps a process busy: not one that others share
            return self._run_batch(context, _parsed(lambda: parse_agent(**self._arguments())))
        return super().execute(context)

    def _run_batch(self, context: Context, spec: AgentSpec) -> dict[str, Any]:
        from backend.agents.batch import run_batch

        # What another task hands on may be a lazy sequence.
        inputs = _parsed(lambda: parse_inputs(self.inputs))
        plan = _parsed(lambda: parse_plan(self.max_concurrency, self.on_item_error))
        path = self.results_path
        write_to = (lambda: _open_for_writing(path)) if path else None
        return self._run_agents(context, lambda runner: run_batch(runner, spec, inputs, plan, write_to=write_to))


class MultiAgentOperator(_AgentsOperator):
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
        synthesis: bool | Mapping[str, Any] = True,
        supervisor: Mapping[str, Any] | None = None,
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

    @staticmethod
    def work(arguments: Mapping[str, Any]) -> Work:
        """What is to be done, from rendered arguments. Raises `ValueError` naming the one that is wrong."""
        from backend.agents.team import run_team

        mode, model, policy = arguments["orchestration_mode"], arguments["model"], arguments["error_policy"]
        specs = parse_team(arguments["agents"], mode, model=model, error_policy=policy)
        synthesis = synthesis_spec(arguments["synthesis"], specs, model, policy)
        supervisor = parse_supervisor(arguments["supervisor"], model=model, error_policy=policy)
        # The mode may be another one now that it is known; then this has no meaning.
        max_steps = parse_max_steps(arguments["max_steps"], SUPERVISOR, agents=len(specs))
        return lambda runner: run_team(
            runner, specs, mode, synthesis=synthesis, supervisor=supervisor, max_steps=max_steps
        )


def credentials_of(connection: Any) -> ModelCredentials:
    """What an Airflow connection says of models."""
    from backend.agents.models import ModelCredentials

    address = connection.host
    if address and "://" not in address:
        address = f"https://{address}" + (f":{connection.port}" if connection.port else "")
    return ModelCredentials.of_connection(
        conn_type=connection.conn_type, password=connection.password, address=address, extra=connection.extra_dejson
    )


def no_connection(conn_id: str) -> AirflowFailException:
    """The error for a connection that isn't there."""
    return _final(f"llm_conn_id: there is no connection {conn_id!r}", recorded=False)


def _connection(conn_id: str) -> Any:
    try:
        return Connection.get(conn_id)
    except AirflowNotFoundException:
        raise no_connection(conn_id) from None


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
    from backend.core.input_error import InputError

    if spec.input_data is None or spec.type not in AGENTS:
        return
    missing = AGENTS[spec.type].lacks(spec.input_data)
    # An agent that follows others may get a text from their results.
    if missing is not None and not (chained and spec.type not in ("vision", "supervisor")):
        raise InputError(f"lacks {missing!r}, which the agent {spec.type!r} needs", field=argument)


def _parsed(parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except ValueError as error:
        raise AirflowFailException(str(error)) from error


def _final(message: str, *, recorded: bool) -> AirflowFailException:
    failure = AirflowFailException(message)
    failure.visual_ai_recorded = recorded  # type: ignore[attr-defined]  # read by the listener
    return failure


def _open_for_writing(path: str) -> TextIO:
    from airflow.sdk import ObjectStoragePath

    target = ObjectStoragePath(path)
    if target.protocol in ("", "file"):
        target.parent.mkdir(parents=True, exist_ok=True)
    file: TextIO = target.open("w", encoding="utf-8")  # type: ignore[no-untyped-call]  # Airflow's isn't typed
    return file


def task_context(context: Context) -> TaskContext:
    """The task as the runner knows it."""
    from backend.agents.runner import TaskContext

    task_instance = context["ti"]
    dag_run = context["dag_run"]
    conf = dict(dag_run.conf or {})
    return TaskContext(
        dag_id=task_instance.dag_id,
        dag_run_id=task_instance.run_id,
        task_id=task_instance.task_id,
        map_index=-1 if task_instance.map_index is None else task_instance.map_index,
        try_number=task_instance.try_number,
        conf={**dict(context["params"]), **conf},
        run_type=str(getattr(dag_run.run_type, "value", dag_run.run_type)),
        instance=str(task_instance.id),
    )
