"""How what is seen of a task becomes its recorded state."""

from datetime import UTC, datetime

import pytest

from backend.core.states import TaskState, merge_task

START = datetime(2026, 11, 14, 12, 0, tzinfo=UTC)
END = datetime(2026, 11, 14, 12, 1, tzinfo=UTC)


def task(state: str | None, try_number: int = 1) -> TaskState:
    over = state in ("success", "failed")
    return TaskState("task", -1, try_number, state, START, END if over else None, 60.0 if over else None)


@pytest.mark.parametrize("authoritative", [True, False])
@pytest.mark.parametrize("over", ["success", "failed"])
def test_a_try_that_said_how_it_ended_does_not_run_again(over: str, authoritative: bool) -> None:
    assert merge_task(task(over), task("running"), authoritative=authoritative) is None


def test_only_airflow_itself_can_say_that_a_task_was_cleared() -> None:
    assert merge_task(task("failed"), task(None), authoritative=False) is None
    assert merge_task(task("failed"), task(None), authoritative=True) == task(None)


def test_the_next_try_runs() -> None:
    assert merge_task(task("failed"), task("running", 2), authoritative=False) == task("running", 2)


def test_airflow_corrects_how_a_try_ended() -> None:
    assert merge_task(task("success"), task("failed"), authoritative=True) == task("failed")
