"""The DAGs of schedules: what each is made of, that Airflow can store them, and that a dead database leaves them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.serialization.serialized_objects import DagSerialization

import visual_ai_schedules
from backend.core.scheduling.dag_ids import ALL_SCHEDULES, dag_of_schedule, is_schedule_dag, schedule_of_dag
from visual_ai_schedules import schedule_dags

ID = "01234567-89ab-cdef-0123-45678900000"
ASSETS = [{"name": "invoices", "uri": "s3://bucket/invoices"}, {"name": "prices", "uri": "s3://bucket/prices"}]
TIMETABLES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "crons", "crons": ["0 6 * * *"]}, "CronTriggerTimetable"),
    ({"kind": "crons", "crons": ["0 6 * * *", "0 7 * * *"]}, "MultipleCronTriggerTimetable"),
    ({"kind": "delta", "seconds": 3600}, "DeltaTriggerTimetable"),
    ({"kind": "events", "dates": ["2040-01-01T00:00:00+00:00"]}, "EventsTimetable"),
    ({"kind": "assets", "assets": ASSETS, "condition": "any"}, "AssetTriggeredTimetable"),
    ({"kind": "asset_or_time", "crons": ["0 6 * * *"], "assets": ASSETS, "condition": "all"}, "AssetOrTimeSchedule"),
]


def row(number: int, timetable: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A schedule as it is kept in the file."""
    return {
        "id": f"{ID}{number}", "dag_id": "a", "template": None, "timetable": timetable, "timezone": "Europe/Berlin",
        "starts_from": "2026-01-01T00:00:00+00:00", "end_date": None, "catchup": False, "enabled": True, **changes,
    }  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the schedules that were read last, while the database is away."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:9/nothing")
    return tmp_path / "schedules.json"


def test_each_kind_is_a_timetable_of_airflows(kept: Path) -> None:
    rows = [row(number, timetable) for number, (timetable, _) in enumerate(TIMETABLES)]
    kept.write_text(json.dumps([*rows, row(9, TIMETABLES[0][0], enabled=False)]))
    hidden, *dags, paused = schedule_dags()
    assert hidden.dag_id == ALL_SCHEDULES
    for dag, (_, name) in zip(dags, TIMETABLES, strict=True):
        assert type(dag.timetable).__name__ == name
        assert (dag.max_active_runs, dag.catchup) == (1, name == "EventsTimetable")
        assert str(dag.start_date) == "2026-01-01 00:00:00+00:00"
    assert str(paused.timetable) == "Never"
    for dag in (hidden, *dags, paused):
        stored = DagSerialization.to_dict(dag)
        assert set(stored["dag"]["allowed_run_types"]) == {"scheduled", "backfill", "asset_triggered"}
        assert DagSerialization.from_dict(stored).dag_id == dag.dag_id


def test_one_that_airflow_rejects_leaves_the_others(kept: Path) -> None:
    rows = [row(1, {"kind": "of a later version"}), row(2, TIMETABLES[0][0])]
    kept.write_text(json.dumps(rows))
    assert [dag.dag_id for dag in schedule_dags()] == [ALL_SCHEDULES, dag_of_schedule(f"{ID}2")]


@pytest.mark.parametrize("content", [None, "", "{", "[{}]"])
def test_a_parse_fails_when_nothing_is_known(kept: Path, content: str | None) -> None:
    if content is not None:
        kept.write_text(content)
    with pytest.raises(ConnectionError, match="can't be read"):  # Airflow keeps the DAGs of a file that fails
        schedule_dags()


def test_a_task_needs_neither_the_database_nor_the_file(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = dag_of_schedule(f"{ID}7")
    monkeypatch.setattr(visual_ai_schedules, "get_parsing_context", lambda: SimpleNamespace(dag_id=wanted))
    [dag] = schedule_dags()
    assert dag.dag_id == wanted
    assert dag.get_task("start_run").schedule_id == f"{ID}7"  # type: ignore[union-attr]  # StartScheduledRun


def test_only_their_own_ids_are_of_schedules() -> None:
    assert schedule_of_dag(dag_of_schedule(f"{ID}1")) == f"{ID}1"
    assert is_schedule_dag(ALL_SCHEDULES)
    for dag_id in (
        "visual_ai_schedule",
        "visual_ai_schedule.mine",
        f"x.visual_ai_schedule.{ID}1",
        "visual_ai_workflow",
    ):
        assert not is_schedule_dag(dag_id)
