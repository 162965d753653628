"""States of runs and task instances: notifications that come late, twice or out of order, and progress."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from backend.core.states import TaskCounts, TaskState, measure_progress, merge_task

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def task(state: str | None, try_number: int = 1, started_at: datetime | None = None) -> TaskState:
    return TaskState("work", -1, try_number, state, started_at)


def after(*notices: TaskState) -> TaskState:
    """What is known after these notifications, in this order."""
    known: TaskState | None = None
    for notice in notices:
        known = merge_task(known, notice, authoritative=False) or known
    assert known is not None
    return known


def test_the_first_sight_of_a_task_is_news() -> None:
    assert merge_task(None, task(None), authoritative=False) == task(None)


@pytest.mark.parametrize("authoritative", [False, True])
def test_the_same_again_is_no_news(authoritative: bool) -> None:
    assert merge_task(task("running"), task("running"), authoritative=authoritative) is None


@pytest.mark.parametrize("authoritative", [False, True])
def test_a_time_alone_is_no_news(authoritative: bool) -> None:
    seen = task("running", started_at=NOON)
    assert merge_task(task("running"), seen, authoritative=authoritative) is None


@pytest.mark.parametrize(
    ("known", "late"),
    [
        (task("running"), task("queued")),
        (task("running"), task("scheduled")),
        (task("success"), task("running")),
        (task("failed"), task(None)),
        (task("up_for_retry"), task("running")),
        (task("skipped"), task("deferred")),
        (task("queued", 2), task("success", 1)),
        (task(None, 2), task("up_for_retry", 1)),
        (task("upstream_failed"), task("restarting")),
    ],
)
def test_a_late_notification_changes_nothing(known: TaskState, late: TaskState) -> None:
    assert merge_task(known, late, authoritative=False) is None


@pytest.mark.parametrize(
    ("known", "seen"),
    [
        (task("success"), task(None)),
        (task("failed"), task("success")),
        (task("running", 2), task("running", 1)),
        (task("up_for_retry"), task("scheduled")),
    ],
)
def test_a_reading_of_airflow_wins_over_everything_before_it(known: TaskState, seen: TaskState) -> None:
    assert merge_task(known, seen, authoritative=True) == seen


@pytest.mark.parametrize(
    "notices",
    list(permutations([task("scheduled"), task("running"), task("up_for_retry"), task("running", 2)]))
    + list(permutations([task("queued"), task("deferred"), task("success")])),
)
def test_the_order_of_notifications_does_not_matter(notices: tuple[TaskState, ...]) -> None:
    last = max(notices, key=lambda notice: (notice.try_number, notice.rank))
    assert after(*notices, *reversed(notices)) == last


def test_running_and_deferred_alternate() -> None:
    assert after(task("running"), task("deferred"), task("running")).state == "running"


def test_a_later_try_starts_at_any_state() -> None:
    assert after(task("failed", 1), task(None, 2)) == task(None, 2)


def test_the_start_of_a_try_is_kept_and_that_of_another_try_is_not() -> None:
    known = task("running", started_at=NOON)
    finished = merge_task(known, task("success"), authoritative=False)
    assert finished is not None
    assert finished.started_at == NOON
    again = merge_task(known, task("running", 2), authoritative=False)
    assert again is not None
    assert again.started_at is None


def test_an_unknown_state_counts_as_under_way() -> None:
    assert task("some_day").rank == task("running").rank < task("removed").rank


def test_the_payload_holds_times() -> None:
    seen = TaskState("work", 3, 2, "success", NOON, NOON + timedelta(seconds=1.5), 1.5)
    assert seen.payload() == {
        "task_id": "work",
        "map_index": 3,
        "state": "success",
        "try_number": 2,
        "started_at": NOON,
        "finished_at": NOON + timedelta(seconds=1.5),
        "duration": 1.5,
    }


@pytest.mark.parametrize(
    ("counts", "state", "known_total", "known_percent", "expected"),
    [
        (TaskCounts(), "queued", 0, 0, (0, 0, 0)),
        (TaskCounts(3), "running", 0, 0, (3, 0, 0)),
        (TaskCounts(3, 1), "running", 3, 0, (3, 1, 33)),
        (TaskCounts(3, 1, skipped=1), "running", 3, 0, (3, 2, 66)),
        (TaskCounts(3, 3), "running", 3, 66, (3, 3, 99)),  # a mapping may still add task instances
        (TaskCounts(3, 3), "success", 3, 66, (3, 3, 100)),
        (TaskCounts(3, 1, skipped=1), "success", 3, 66, (3, 3, 100)),  # a failure that the DAG tolerates
        (TaskCounts(3, 1), "failed", 3, 33, (3, 1, 33)),
        (TaskCounts(3, 1, skipped=2), "failed", 3, 33, (3, 1, 33)),  # Airflow skips the rest after its time limit
        (TaskCounts(3, skipped=3), "cancelled", 3, 0, (3, 0, 0)),
        (TaskCounts(), "success", 0, 0, (0, 0, 100)),
        (TaskCounts(10, 2), "running", 3, 66, (10, 2, 66)),  # mapped: more to do, but no step back
        (TaskCounts(1, 1), "running", 4, 0, (4, 1, 25)),  # the known total stands until more is seen
    ],
)
def test_progress(
    counts: TaskCounts, state: str, known_total: int, known_percent: int, expected: tuple[int, int, int]
) -> None:
    progress = measure_progress(counts, run_state=state, known_total=known_total, known_percent=known_percent)
    assert (progress.total, progress.done, progress.percent) == expected


def test_progress_never_falls_and_only_success_is_a_hundred() -> None:
    percent = 0
    for listed in range(1, 30):
        for done in range(listed + 1):
            counts = TaskCounts(listed, done)
            progress = measure_progress(counts, run_state="running", known_total=0, known_percent=percent)
            assert percent <= progress.percent < 100
            percent = progress.percent


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (TaskCounts(2, 1, awaiting_input=1), "awaiting_input"),
        (TaskCounts(2, active=1, awaiting_input=1), "running"),  # another branch goes on
        (TaskCounts(2, active=1), "running"),
        (TaskCounts(2), "running"),
    ],
)
@pytest.mark.parametrize("state", ["running", "awaiting_input"])
def test_a_run_awaits_input_when_nothing_else_goes_on(counts: TaskCounts, state: str, expected: str) -> None:
    assert counts.run_state(state) == expected


@pytest.mark.parametrize("state", ["queued", "success", "failed", "cancelled"])
def test_only_a_started_run_awaits_input(state: str) -> None:
    assert TaskCounts(1, awaiting_input=1).run_state(state) == state


@pytest.mark.parametrize("authoritative", [True, False])
@pytest.mark.parametrize("over", ["success", "failed"])
def test_a_try_that_said_how_it_ended_does_not_run_again(over: str, authoritative: bool) -> None:
    assert merge_task(task(over), task("running"), authoritative=authoritative) is None


def test_airflow_corrects_how_a_try_ended() -> None:
    assert merge_task(task("success"), task("failed"), authoritative=True) == task("failed")
