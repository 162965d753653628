"""Deferrable operators: where a task starts, what the triggerer is given, and how a worker goes on."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from airflow.sdk import DAG, Asset, task
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.serialization.serialized_objects import DagSerialization

from backend.core.errors.input_error import InputError, InputUnavailableError
from backend.core.workflow_error_handler import AgentFailure, as_failure, classify, error_chain
from backend.models.resolve import ModelCredentials
from backend.runtime.error_transfer import AgentFailedError, pack, unpack
from visual_ai_decorators import langgraph_task
from visual_ai_deferral import renders_in_triggerer
from visual_ai_operators import LangGraphOperator, MultiAgentOperator
from visual_ai_triggers import AgentTrigger

NUMBERS = count()
TEXT = {"type": "text"}


@pytest.fixture(autouse=True)
def dag() -> Iterator[DAG]:
    """The DAG that the operators of a test belong to."""
    with DAG("test", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
        yield dag


def single(**changes: Any) -> LangGraphOperator:
    given = {"task_id": f"task_{next(NUMBERS)}", "agent_config": TEXT, "input_data": {"text": "a"}, "deferrable": True}
    return LangGraphOperator(**{**given, **changes})


def context(**changes: Any) -> Any:
    instance = SimpleNamespace(dag_id="test", run_id="run", task_id="task", map_index=2, try_number=1, id="id")
    run = SimpleNamespace(conf={"text": "b"}, run_type="manual", triggering_user_name="ulla")
    return {"ti": instance, "dag_run": run, "params": {"size": 3}, **changes}


def test_a_task_starts_in_the_triggerer_when_it_can() -> None:
    operator = single(
        input_data={"text": "{{ dag_run.conf.text }} {{ params.size }}"}, llm_conn_id="models", checkpoint=False
    )
    assert operator.start_from_trigger
    assert operator.start_trigger_args is not None
    given = operator.start_trigger_args.trigger_kwargs
    assert given is not None
    assert given["arguments"]["input_data"] == {"text": "{{ dag_run.conf.text }} {{ params.size }}"}
    assert given["llm_conn_id"] == "models"
    assert given["ends_task"]
    assert given["durability"] is None
    from_a_worker = dict.fromkeys(("conf", "run_type", "user", "place"))
    assert AgentTrigger(**given).serialize()[1] == {**given, **from_a_worker}


def test_it_survives_the_dags_serialization(dag: DAG) -> None:
    operator = single(timeout=timedelta(minutes=1))
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task(operator.task_id)
    assert read.start_from_trigger
    assert read.start_trigger_args is not None
    assert read.start_trigger_args.trigger_cls == "visual_ai_triggers.AgentTrigger"


@pytest.mark.parametrize(
    "changes",
    [
        {"deferrable": False},
        {"input_data": {"text": "{{ ti.xcom_pull(task_ids='other') }}"}},
        {"input_data": {"text": "{{ var.value.secret }}"}},
        {"input_data": {"text": "{{ broken"}},
        {"on_execute_callback": print},
        {"pre_execute": print},
        {"agent_config": None, "graph": "package.module:graph", "configurable": {"object": object()}},
    ],
)
def test_it_starts_in_a_worker_when_it_has_to(changes: dict[str, Any]) -> None:
    assert not single(**changes).start_from_trigger


def test_the_default_is_airflows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not LangGraphOperator(task_id="worker", agent_config=TEXT).deferrable
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert MultiAgentOperator(task_id="triggerer", agents=[{"name": "a", **TEXT}]).start_from_trigger


def test_templates_with_the_dags_own_code_need_a_worker() -> None:
    own = DAG("own", schedule=None, user_defined_macros={"double": lambda value: value * 2})
    native = DAG("native", schedule=None, render_template_as_native_obj=True)
    assert not renders_in_triggerer({"text": "{{ params.size }}"}, own)
    assert not renders_in_triggerer({"text": "{{ params.size }}"}, native)
    assert renders_in_triggerer({"text": "plain"}, own)
    assert renders_in_triggerer(["{{ ds }}", {"a": "{% if params.b %}b{% endif %}"}], None)


def test_the_result_of_another_task_is_taken_in_a_worker() -> None:
    @task
    def other() -> dict[str, str]:
        return {"text": "a"}

    assert not single(input_data=other()).start_from_trigger


def test_mapped_tasks_start_in_a_worker(dag: DAG) -> None:
    LangGraphOperator.partial(task_id="mapped", agent_config=TEXT, deferrable=True).expand(
        input_data=[{"text": "a"}, {"text": "b"}]
    )
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("mapped")
    assert not read.start_from_trigger


def test_a_task_that_started_in_a_worker_is_handed_over_rendered() -> None:
    operator = single(execution_timeout=timedelta(seconds=7))
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute.__wrapped__(operator, context())  # type: ignore[attr-defined]  # Airflow's safeguard aside
    assert deferred.value.timeout == timedelta(seconds=7)
    assert deferred.value.method_name == "resume"
    trigger = deferred.value.trigger
    assert isinstance(trigger, AgentTrigger)
    assert trigger.conf == {"size": 3, "text": "b"}
    assert trigger.run_type == "manual"


def test_a_worker_continues_with_the_result_and_annotates_the_assets() -> None:
    asset = Asset("agents://report")
    operator = single(outlets=[asset])
    assert operator.start_trigger_args is not None
    assert not (operator.start_trigger_args.trigger_kwargs or {})["ends_task"]
    told = SimpleNamespace(extra={})
    result = {"output": {"secret": 1}, "agent": "text", "model": "local:text", "usage": {}, "cost_usd": None}
    event = {"result": result, "error": None, "execution_id": "id"}
    assert operator.resume(context(outlet_events={asset: told}), event) == result
    assert told.extra == {"execution_id": "id", "agent": "text", "model": "local:text", "usage": {}, "cost_usd": None}


def test_an_error_keeps_its_type() -> None:
    error = openai.RateLimitError.__new__(openai.RateLimitError)
    error.args, error.status_code = ("slow down, sk-verysecretkey",), 429
    error.response = SimpleNamespace(headers={"retry-after": "9"}, status_code=429)  # type: ignore[assignment]
    failure = as_failure(error).as_recorded()
    event = {"result": None, "error": pack(failure), "execution_id": None}
    operator = single()
    with pytest.raises(openai.RateLimitError, match="slow down") as raised:
        operator.resume(context(), event)
    assert "verysecret" not in str(raised.value)
    assert raised.value.status_code == 429
    assert raised.value.retry_after == "9"  # type: ignore[attr-defined]
    behind = operator.failure_behind(raised.value)
    assert isinstance(behind, AgentFailure)
    assert behind.recorded
    assert classify(behind).category == "rate_limit"
    assert not any(isinstance(cause, AgentFailure) for cause in error_chain(raised.value))  # nor in Airflow's log


def test_a_final_error_fails_the_task() -> None:
    error, operator = pack(InputError("is empty", field="text")), single()
    with pytest.raises(AirflowFailException, match=r"^text: is empty$") as raised:
        operator.resume(context(), {"result": None, "error": error, "execution_id": None})
    behind = operator.failure_behind(raised.value)
    assert isinstance(behind, AgentFailure)
    assert not behind.recorded
    assert classify(behind).category == classify(raised.value).category == "input"


@pytest.mark.parametrize("error", [InputUnavailableError("is away", field="image_url"), ValueError(), KeyError("a")])
def test_errors_of_any_kind_reach_the_worker(error: Exception) -> None:
    made = unpack(pack(error))
    assert type(made.error) is type(error)
    assert str(made) in (str(error), type(error).__name__)
    assert classify(made) == classify(error)


def test_an_error_whose_type_cannot_be_imported_is_still_raised() -> None:
    packed = {**pack(ValueError("what happened")), "type": "gone.module:Error"}
    made = unpack(packed)
    assert isinstance(made.error, AgentFailedError)
    assert classify(made).exception_type == "ValueError"


def test_a_task_that_exceeds_its_execution_timeout() -> None:
    operator = single(execution_timeout=timedelta(seconds=3), retries=0)
    with pytest.raises(TimeoutError, match="0:00:03"):
        operator.resume_execution("__fail__", {"error": "Trigger timeout"}, context())


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ({"conn_type": "langchain", "extra": {"model": "anthropic:claude"}}, ("anthropic", None, "anthropic:claude")),
        ({"conn_type": "langchain", "extra": {}, "address": "http://x/v1"}, ("openai", "http://x/v1", None)),
        ({"conn_type": "groq", "extra": {"model": "llama"}}, ("groq", None, "groq:llama")),
    ],
)
def test_a_connection_sets_model_and_address(connection: dict[str, Any], expected: tuple[Any, ...]) -> None:
    made = ModelCredentials.of_connection(password="pass-word", **{"address": None, **connection})
    assert (made.provider, made.base_url, made.model) == expected
    assert "pass-word" not in repr(made)


def test_a_function_makes_the_input() -> None:
    @langgraph_task(agent_config=TEXT, deferrable=True)
    def about(text: str) -> dict[str, str]:
        return {"text": f"about {text}"}

    operator: Any = about("ships")
    operator = operator.operator
    assert not operator.start_from_trigger
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute.__wrapped__(operator, context())
    trigger = deferred.value.trigger
    assert isinstance(trigger, AgentTrigger)
    assert trigger.operator == "LangGraphOperator"
    assert trigger.arguments["input_data"] == {"text": "about ships"}


def test_a_function_that_returns_no_input_fails_the_task() -> None:
    @langgraph_task(agent_config=TEXT)
    def nothing() -> None:
        return None

    operator: Any = nothing()
    operator = operator.operator
    with pytest.raises(AirflowFailException, match="has to return"):
        operator.execute.__wrapped__(operator, context())
