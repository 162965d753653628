"""The operators' common base. As cheap to import as the operators: what runs agents is loaded when a task runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.sdk import Asset, AssetAlias, BaseOperator, Connection
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException, TaskDeferralTimeout
from airflow.triggers.base import StartTriggerArgs

from backend.agents.tools.terms import need_airflow
from backend.core.asking.terms import parse_terms
from backend.core.budget import parse_budget
from backend.core.errors.input_error import InputError
from backend.core.workflow_error_handler import AgentFailure, as_failure
from backend.runtime.spec_keys import Place, argument_remedy
from backend.runtime.spec_values import is_template
from visual_ai_deferral import TRIGGER, plain, plain_or_none, renders_in_triggerer, tested_in_process
from visual_ai_questions import notifiers_of, park, take_answer
from visual_ai_retries import AgentRetryPolicy, leave_worker
from visual_ai_tasks import credentials_of, hide_what_airflow_masks, missing_connection, task_context, work_of
from visual_ai_toolsets import AirflowToolsets
from visual_ai_triggers import AgentTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg
    from airflow.sdk.definitions.mappedoperator import OperatorPartial
    from langgraph.types import Durability

    from backend.models.resolve import ModelCredentials
    from backend.runtime.waiting import TaskQuestions
    from backend.runtime.worker import AgentTask, Work

__all__ = ["AgentsOperator", "parsed"]


class AgentsOperator(BaseOperator):
    """Base of the operators: runs the agents here or in the triggerer, stops them, and reports failures to Airflow.

    :param deferrable: whether the agents run in the triggerer, where a waiting agent occupies no worker. The task
        starts there if its templates can be rendered there, and in a worker otherwise.
    :param llm_conn_id: the Airflow connection with the models' key and address, of the common-ai provider's type
        `langchain`; by default the environment's. It applies to built-in agents. Templated.
    :param checkpoint: whether the agents' states are kept, from which a retry resumes. With False nothing of them is
        stored, and a retry begins, and pays, from the start.
    :param durability: when the states are written, as LangGraph defines it. `async` (the default): while the next step
        runs; `sync`: before it begins; `exit`: once, when the graph ends or fails. With `exit` a try that is killed
        leaves nothing to resume from, and a long loop stores one state instead of each step's.
    :param questions: who may answer what the agents ask people, and until when: `timeout` in seconds, `on_timeout`
        (`fail`, `default` with a `default` answer, or `escalate` to the users `escalate_to`), `assignees`, `four_eyes`,
        and `notifiers`: Airflow's own, which tell people of new questions.
    """

    ui_color = "#e8f1ff"

    agents_stand: ClassVar[Place] = "alone"
    """Whether the operator has one agent or a team."""

    arguments: ClassVar[tuple[str, ...]] = ()
    """The names of the attributes that say what the agents are to do."""

    def __init__(
        self,
        *,
        deferrable: bool | None = None,
        llm_conn_id: str | None = None,
        budget: Mapping[str, Any] | XComArg | None = None,
        checkpoint: bool = True,
        durability: Durability | None = None,
        questions: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._refuse_unknown(kwargs)
        super().__init__(**kwargs)
        self.llm_conn_id = llm_conn_id
        self.budget = budget
        if not is_template(budget):
            parse_budget(budget)
        if not isinstance(checkpoint, bool):
            raise InputError(f"must be True or False, not {checkpoint!r}", field="checkpoint")
        if durability not in (None, "async", "sync", "exit"):
            raise InputError(f"must be 'async', 'sync' or 'exit', not {durability!r}", field="durability")
        if durability is not None and not checkpoint:
            raise InputError("has no effect with checkpoint=False, which writes no states", field="durability")
        self.durability: Durability | None = (durability or "async") if checkpoint else None
        self.questions = questions
        self._terms = parse_terms(questions)
        self._notifiers = notifiers_of(questions)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        if self.retry_policy is None:
            self.retry_policy = AgentRetryPolicy()
        self._agent_task: AgentTask | None = None
        self._raised: tuple[BaseException, AgentFailure] | None = None

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """As in Airflow, which makes the operator only when the task runs: what is known now is checked now."""
        cls.check_mapped(kwargs)
        made: OperatorPartial = super().partial(**kwargs)
        return made

    @classmethod
    def check_mapped(cls, given: Mapping[str, Any]) -> None:
        """Check arguments that are the same for all instances of a mapped task. Raises `InputError` naming one."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the agents. Raises a required agent's error; `AirflowFailException` if a retry can't help."""
        if not tested_in_process() and (handed_over := self._handed_over()) is not None:
            self._defer(context, handed_over)
        arguments = self._arguments()
        work = parsed(lambda: work_of(self._kind().__name__, arguments, self.llm_conn_id))
        return self._run_agents(context, work)

    def _handed_over(self) -> dict[str, Any] | None:
        """What the triggerer is given to run the agents; None if they run in a worker: because the author wants that,
        because it can't be handed over, or because they have tools that talk to Airflow and would block the triggerer.
        """
        arguments = self._arguments()
        team = arguments.get("agents")
        agents = [arguments.get("agent_config"), *(team if isinstance(team, list | tuple) else ())]
        if not self.deferrable or need_airflow(agents):
            return None
        return plain_or_none({**arguments, "budget": self.budget})

    def resume(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on in a worker after the agents ran in the triggerer: return their result, or raise their error."""
        from backend.runtime.error_transfer import unpack

        if event["error"] is not None:
            self._fail(context, unpack(event["error"]))
        if event.get("waits"):
            self._park(context)
            return self.execute(context)
        return self._done(context, event["result"], event["execution_id"])

    def resume_answered(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on after Airflow has woken the task: people have answered, or the time to do so is over."""
        take_answer(self._task_questions(context), event, self.log)
        self._park(context)
        return self.execute(context)

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

    def failure_behind(self, error: BaseException) -> BaseException:
        """The agents' failure for which this operator raised `error`; `error` itself if it has another cause."""
        return self._raised[1] if self._raised is not None and self._raised[0] is error else error

    def _refuse_unknown(self, passed_on: Mapping[str, Any]) -> None:
        """Say what to do about arguments that stand in the wrong place or are misspelt; Airflow only refuses them."""
        follows = type(self).__mro__.index(AgentsOperator) + 1
        if type(self).__mro__[follows] is not BaseOperator:
            return  # another class may take them
        for name in passed_on:
            if name not in _airflows_arguments() and name != "default_args":
                own = (*self.template_fields, "on_item_error", "deferrable", "checkpoint", "durability", "questions")
                remedy = argument_remedy(name, self.agents_stand, (*own, *_airflows_arguments()))
                if remedy is not None:
                    raise InputError(remedy, field=name)

    def _start_in_triggerer(self) -> None:
        """Let the task start in the triggerer, if it can. Each operator calls this at the end of its `__init__`."""
        handed_over = self._handed_over()
        if handed_over is None or self._starts_with_code():
            return
        if not renders_in_triggerer([handed_over, self.llm_conn_id], self.get_dag()):
            return
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=TRIGGER, trigger_kwargs=self._trigger_arguments(handed_over), next_method="resume"
        )

    def _defer(self, context: Context, arguments: dict[str, Any]) -> NoReturn:
        task = task_context(context)
        place = {
            "dag_id": task.dag_id,
            "run_id": task.dag_run_id,
            "task_id": task.task_id,
            "map_index": task.map_index,
            "try_number": task.try_number,
            "id": task.instance,
        }
        self.defer(
            trigger=AgentTrigger(
                **self._trigger_arguments(arguments),
                conf=plain(dict(task.conf)),
                run_type=task.run_type,
                user=task.user,
                place=place,
            ),
            method_name="resume",
            timeout=self.execution_timeout,
        )

    def _trigger_arguments(self, handed_over: dict[str, Any]) -> dict[str, Any]:
        arguments = dict(handed_over)
        return {
            "operator": self._kind().__name__,
            "budget": arguments.pop("budget"),
            "arguments": arguments,
            "llm_conn_id": self.llm_conn_id,
            "durability": self.durability,
            "questions": plain({key: value for key, value in (self.questions or {}).items() if key != "notifiers"}),
            "ends_task": not (
                self.outlets or self.multiple_outputs or self.returns_dag_result or self._post_execute_hook
            ),
            "pushes_xcom": self.do_xcom_push,
        }

    @classmethod
    def _kind(cls) -> type[AgentsOperator]:
        """The product's operator that this class is, or is derived from."""
        return next(base for base in cls.__mro__ if AgentsOperator in base.__bases__)

    def _starts_with_code(self) -> bool:
        """Whether the DAG author's own code runs before the agents."""
        return bool(self._pre_execute_hook or self.on_execute_callback) or type(self) is not self._kind()

    def _arguments(self) -> dict[str, Any]:
        """What the agents are to do, as the author wrote it or, in `execute`, rendered."""
        return {name: getattr(self, name) for name in self.arguments}

    def _run_agents(self, context: Context, work: Work) -> dict[str, Any]:
        """Run the agents in this process and return the task's result. Raises as `execute` does."""
        from airflow.sdk.log import mask_secret

        from backend.agents.tools.toolbox import use_toolsets
        from backend.core.settings import get_settings
        from backend.models.hidden_values import hidden_values, provider_keys
        from backend.runtime.runner import AgentsWaiting
        from backend.runtime.worker import AgentTask

        budget = parsed(lambda: parse_budget(self.budget))
        credentials = parsed(self._credentials)
        settings = get_settings()
        for key in provider_keys(settings, credentials):
            mask_secret(key)
        hide_what_airflow_masks()
        use_toolsets(AirflowToolsets())
        self._agent_task = AgentTask(
            settings,
            task_context(context),
            budget=budget,
            credentials=credentials,
            durability=self.durability,
            terms=self._terms,
        )
        failure: AgentFailure | None = None
        waits = False
        try:
            result = self._agent_task.run(work)
        except AgentsWaiting:
            waits = True
        except Exception as error:
            failure = as_failure(error)
        if waits:
            self._park(context)
            return self._run_agents(context, work)  # everything has been answered meanwhile
        if failure is not None:  # outside of the handler: else Airflow would log the wrapper as the error's context
            self._fail(context, failure, hidden_values(settings, credentials))
        return self._done(context, result, self._agent_task.execution_id)

    def _park(self, context: Context) -> None:
        """Leave the worker until people have answered the agents. Returns if nothing is open any more."""
        park(self._task_questions(context), context, self._notifiers, self.log)

    def _task_questions(self, context: Context) -> TaskQuestions:
        from backend.core.settings import get_settings
        from backend.runtime.waiting import TaskQuestions

        return TaskQuestions(get_settings(), task_context(context), self._terms)

    def _fail(self, context: Context, failure: AgentFailure, hidden: Sequence[str] = ()) -> NoReturn:
        """Raise to Airflow what a failure means for the task, and remember the failure for `failure_behind`.

        A failure that no retry can help becomes an `AirflowFailException`, one that has to be waited out may reschedule
        the task, and any other is raised as its original error. No error that is raised contains a secret: neither the
        values in `hidden` nor those that Airflow masks in logs.
        """
        from backend.runtime.error_transfer import Cleaner, cleaned

        # LocalExecutor writes a task's exceptions, with what led to them, to the scheduler's log, where Airflow masks
        # nothing. A provider may repeat the key that it refuses, and a user's graph any secret.
        clean = Cleaner(hidden)
        raised = cleaned(failure.error, clean)
        if not failure.classified.final:
            leave_worker(context, failure)
            self._raised = raised, failure
            if raised is failure.error:
                raise raised
            raise raised from None
        cause = failure.error if raised is failure.error else None
        raised = AirflowFailException(clean(str(failure)))
        self._raised = raised, failure
        raise raised from cause

    def _credentials(self) -> ModelCredentials | None:
        if not self.llm_conn_id:
            return None
        try:
            return credentials_of(Connection.get(self.llm_conn_id))
        except AirflowNotFoundException:
            raise missing_connection(self.llm_conn_id) from None

    def _done(self, context: Context, result: dict[str, Any], execution_id: str | None) -> dict[str, Any]:
        """Note on the task's assets which run they come from."""
        noted = {"agent", "agents", "model", "usage", "cost_usd", "trace_url"}
        extra = {"execution_id": execution_id, **{key: value for key, value in result.items() if key in noted}}
        for outlet in self.outlets:
            if isinstance(outlet, Asset | AssetAlias):
                context["outlet_events"][outlet].extra.update(extra)
        return result


@lru_cache(maxsize=1)
def _airflows_arguments() -> frozenset[str]:
    return frozenset(signature(BaseOperator.__init__).parameters)


def parsed(parse: Callable[[], Any]) -> Any:
    """Return what `parse` returns; its `ValueError` fails the task without a retry."""
    try:
        return parse()
    except ValueError as error:
        raise AirflowFailException(str(error)) from error
