"""When Airflow retries a task whose agents failed: at once, after the requested wait, or never."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, RetryDecision, RetryPolicy
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException
from airflow.serialization.serialized_objects import DagSerialization

from backend.core.errors.input_error import InputError
from backend.core.ratelimit.interface import HeldBackError
from backend.core.workflow_error_handler import AgentFailure, Reschedule, as_failure, classify
from backend.runtime.error_transfer import pack, unpack
from visual_ai_operators import LangGraphOperator, MultiAgentOperator
from visual_ai_retries import MAX_RESCHEDULES, AgentRetryPolicy, failure_behind

NUMBERS = count()
TEXT = {"type": "text"}


@pytest.fixture(autouse=True)
def dag() -> Iterator[DAG]:
    """The DAG that the operators of a test belong to."""
    with DAG("test", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
        yield dag


def single(**changes: Any) -> LangGraphOperator:
    given = {"task_id": f"task_{next(NUMBERS)}", "agent_config": TEXT, "input_data": {"text": "a"}}
    return LangGraphOperator(**{**given, **changes})


def held_back(seconds: float = 600) -> AgentFailure:
    """A failure that has to be waited out without a worker."""
    error = HeldBackError(seconds)
    return AgentFailure(error, classify(error), Reschedule(seconds))


def context(*, try_number: int = 1, max_tries: int = 0, reschedules: int = 0) -> Any:
    instance = SimpleNamespace(try_number=try_number, max_tries=max_tries)
    return {"ti": instance, "task_reschedule_count": reschedules}


def event_of(error: Exception) -> dict[str, Any]:
    return {"result": None, "error": pack(error), "execution_id": None}


def evaluate(error: Exception) -> RetryDecision:
    """The policy's decision on an agents' error that an operator raises while the task has a retry left."""
    operator = single()
    try:
        operator.resume(context(max_tries=3), event_of(error))
    except Exception as raised:
        assert operator.retry_policy is not None
        return operator.retry_policy.evaluate(raised, 1, 3, {"task": operator})
    raise AssertionError("the operator raises the error")


def test_both_operators_have_the_policy(dag: DAG) -> None:
    team = MultiAgentOperator(task_id="team", agents=[{"name": "a", **TEXT}])
    assert isinstance(single().retry_policy, AgentRetryPolicy)
    assert isinstance(team.retry_policy, AgentRetryPolicy)
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("team")
    assert read.has_retry_policy


class Own(RetryPolicy):
    """A DAG author's own policy."""

    def evaluate(self, *_: Any, **__: Any) -> RetryDecision:
        return RetryDecision.default()


def test_a_custom_policy_is_kept() -> None:
    own = Own()
    assert single(retry_policy=own).retry_policy is own
    with DAG("other", schedule=None, default_args={"retry_policy": own}):
        assert LangGraphOperator(task_id="a", agent_config=TEXT).retry_policy is own


def test_a_requested_wait_delays_the_retry() -> None:
    decision = evaluate(held_back(600))
    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(minutes=10))
    assert decision.reason == "rate_limit: again in 600 s"


def test_a_final_error_is_not_retried() -> None:
    assert AgentRetryPolicy().evaluate(InputError("is empty", field="text"), 1, 3).action == RetryAction.FAIL


@pytest.mark.parametrize("error", [ValueError("a bug"), TimeoutError()])
def test_other_errors_follow_the_tasks_own_retries(error: Exception) -> None:
    assert evaluate(error) == evaluate(as_failure(error)) == RetryDecision.default()
    assert AgentRetryPolicy().evaluate(error, 1, 3) == RetryDecision.default()


def test_a_failure_is_found_only_behind_the_error_it_was_raised_for() -> None:
    operator, other = single(), HeldBackError(600)
    with pytest.raises(HeldBackError) as raised:
        operator.resume(context(max_tries=3), event_of(held_back(600)))
    assert isinstance(failure_behind(operator, raised.value), AgentFailure)
    assert failure_behind(operator, other) is other
    assert failure_behind(None, other) is other


def test_the_wait_is_transferred_from_the_triggerer() -> None:
    failure = unpack(pack(held_back(90.5)))
    assert failure.reschedule_after == 90.5
    assert unpack(pack(ValueError("a"))).reschedule_after is None


@pytest.mark.parametrize("try_number", [1, 2])
def test_with_a_retry_left_the_error_is_raised(try_number: int) -> None:
    with pytest.raises(HeldBackError):
        single().resume(context(try_number=try_number, max_tries=2), event_of(held_back()))


@pytest.mark.parametrize(("try_number", "max_tries"), [(1, 0), (3, 2)])
def test_without_a_retry_left_the_same_try_is_rescheduled(try_number: int, max_tries: int) -> None:
    before = datetime.now(UTC)
    with pytest.raises(AirflowRescheduleException) as raised:
        single().resume(context(try_number=try_number, max_tries=max_tries), event_of(held_back(600)))
    wait = raised.value.reschedule_date - before
    assert timedelta(seconds=600) <= wait < timedelta(seconds=605)


def test_rescheduling_is_limited() -> None:
    with pytest.raises(HeldBackError):
        single().resume(context(reschedules=MAX_RESCHEDULES), event_of(held_back()))
    with pytest.raises(ValueError, match="a bug"):
        single().resume(context(), event_of(ValueError("a bug")))
    with pytest.raises(AirflowFailException):
        single().resume(context(), event_of(InputError("is empty")))


# The operators' argument


def test_a_wrong_error_policy_fails_when_the_dag_is_parsed() -> None:
    with pytest.raises(ValueError, match=r"^error_policy\.rate_limit\.retries: has to be a whole number"):
        single(error_policy={"rate_limit": {"retries": "many"}})
    with pytest.raises(ValueError, match=r"^agent_config\.error_policy\.rate: is not known"):
        single(agent_config={**TEXT, "error_policy": {"rate": {}}})
    agents: list[dict[str, Any]] = [{"name": "a", **TEXT}, {"name": "b", **TEXT, "error_policy": {"server": 1}}]
    with pytest.raises(ValueError, match=r"^agents\[1\]\.error_policy\.server: has to be a dict"):
        MultiAgentOperator(task_id="team_1", agents=agents)
    with pytest.raises(ValueError, match=r"^error_policy\.wait_limit: has to be a number"):
        MultiAgentOperator(task_id="team_2", agents=agents[:1], error_policy={"wait_limit": "long"})
    with pytest.raises(ValueError, match=r"^synthesis\.error_policy\.wait_limit: has to be a number"):
        MultiAgentOperator(task_id="team_3", agents=agents[:1], synthesis={"error_policy": {"wait_limit": "long"}})
    supervisor = {"error_policy": {"fallbacks": 7}}
    with pytest.raises(ValueError, match=r"^supervisor\.error_policy\.fallbacks: has to be a list"):
        MultiAgentOperator(task_id="team_4", agents=agents[:1], orchestration_mode="supervisor", supervisor=supervisor)


def test_an_error_policy_may_be_a_template() -> None:
    operator = single(error_policy={"rate_limit": {"retries": "{{ params.retries }}"}})
    operator.render_template_fields({"params": {"retries": 7}})
    assert operator.error_policy == {"rate_limit": {"retries": "7"}}
    operator.render_template_fields({"params": {}})
    wrong = single(error_policy={"rate_limit": {"retries": "{{ params.retries }}"}})
    wrong.render_template_fields({"params": {"retries": "many"}})
    with pytest.raises(AirflowFailException, match=r"error_policy\.rate_limit\.retries"):
        wrong.execute({})


def test_an_entrys_policy_takes_precedence_over_the_teams() -> None:
    from backend.runtime.specs import parse_supervisor, parse_team, synthesis_spec

    common = {"rate_limit": {"retries": 2, "backoff": 5}, "wait_limit": 9}
    agents = [{"name": "a", **TEXT}, {"name": "b", **TEXT, "error_policy": {"rate_limit": {"retries": 7}}}]
    first, second = parse_team(agents, "parallel", error_policy=common)
    assert first.error_policy == common
    assert second.error_policy == {"rate_limit": {"retries": 7, "backoff": 5}, "wait_limit": 9}
    assert parse_supervisor(None, error_policy=common).error_policy == common
    spec = synthesis_spec({"error_policy": {"wait_limit": 1}}, [first], None, common)
    assert spec is not None
    assert spec.error_policy == {**common, "wait_limit": 1}
