"""What the operators share. As cheap to import as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.sdk import Asset, AssetAlias, BaseOperator, Connection
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException, TaskDeferralTimeout
from airflow.triggers.base import StartTriggerArgs

from backend.core.budget import parse_budget
from backend.runtime.specs import is_template
from visual_ai_deferral import TRIGGER, plain, plain_or_none, renders_in_triggerer
from visual_ai_retries import AgentRetryPolicy, leave_worker

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from backend.models.resolve import ModelCredentials
    from backend.runtime.runner import TaskContext
    from backend.runtime.worker import AgentTask, Work

__all__ = ["AgentsOperator", "credentials_of", "no_connection", "parsed", "task_context"]


class AgentsOperator(BaseOperator):
    """Base of the operators: runs agents here or in the triggerer, stops them, tells Airflow which errors are final.

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
        budget: Mapping[str, Any] | XComArg | None = None,
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
        work = parsed(lambda: self.work(arguments))
        return self._run_agents(context, work)

    def resume(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on in a worker when the agents are done in the triggerer: give their result, or raise their error."""
        if event["error"] is None:
            return self._done(context, event["result"], event["execution_id"])
        from backend.runtime.error_transfer import unpack

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
    def _kind(cls) -> type[AgentsOperator]:
        """The operator itself, also of a class that is made from it."""
        return next(base for base in cls.__mro__ if AgentsOperator in base.__bases__)

    def _starts_with_code(self) -> bool:
        """Whether the author's own code runs before the agents."""
        return bool(self._pre_execute_hook or self.on_execute_callback) or type(self) is not self._kind()

    def _arguments(self) -> dict[str, Any]:
        """What the agents are to do, as the author gave it or, in `execute`, rendered."""
        return {name: getattr(self, name) for name in self.arguments}

    def _run_agents(self, context: Context, work: Work) -> dict[str, Any]:
        """Run the agents in this process; gives the task's result. Raises as `execute` does."""
        from airflow.sdk.log import mask_secret

        from backend.core.redaction import redact_text
        from backend.core.settings import get_settings
        from backend.core.workflow_error_handler import error_chain
        from backend.models.resolve import provider_keys
        from backend.runtime.runner import is_final
        from backend.runtime.worker import AgentTask

        budget = parsed(lambda: parse_budget(self.budget))
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


def credentials_of(connection: Any) -> ModelCredentials:
    """What an Airflow connection says of models."""
    from backend.models.resolve import ModelCredentials

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


def parsed(parse: Callable[[], Any]) -> Any:
    """What `parse` gives; its `ValueError` fails the task without a retry."""
    try:
        return parse()
    except ValueError as error:
        raise AirflowFailException(str(error)) from error


def _final(message: str, *, recorded: bool) -> AirflowFailException:
    failure = AirflowFailException(message)
    failure.visual_ai_recorded = recorded  # type: ignore[attr-defined]  # read by the listener
    return failure


def task_context(context: Context) -> TaskContext:
    """The task as the runner knows it."""
    from backend.runtime.runner import TaskContext

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
