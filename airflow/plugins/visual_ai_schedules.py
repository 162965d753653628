"""A DAG for each schedule that was set through the API. Airflow decides when a run is due; the DAG's task asks for it.

The run itself is one of the scheduled workflow, started by the backend as any trigger is. So these DAGs contain
nobody's input, and nothing that a worker would have to be trusted with.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    DAG,
    Asset,
    AssetAll,
    AssetAny,
    AssetOrTimeSchedule,
    BaseOperator,
    CronTriggerTimetable,
    DeltaTriggerTimetable,
    MultipleCronTriggerTimetable,
    get_parsing_context,
)
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

# Not the SDK's: Airflow 3.3 writes that into its database without a value that it needs to read it back.
from airflow.timetables.events import EventsTimetable

from backend.core.scheduling.dag_ids import ALL_SCHEDULES, TASK_ID, dag_of_schedule, schedule_of_dag
from backend.core.settings import get_settings
from backend.runtime.scheduling.rows import read_schedules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

__all__ = ["StartScheduledRun", "schedule_dags"]

log = logging.getLogger(__name__)

TAG = "schedule"
NOT_BY_HAND: Any = ["scheduled", "backfill", "asset_triggered"]  # Airflow turns them into its own


class StartScheduledRun(BaseOperator):
    """Asks the backend for the run that a schedule is due for, and ends when it has been started."""

    def __init__(self, *, schedule_id: str, **kwargs: Any) -> None:
        """`schedule_id` is the schedule's."""
        self.schedule_id = schedule_id
        super().__init__(**kwargs)

    def execute(self, context: Context) -> dict[str, str | None]:
        """Return the run that was started.

        Raises `AirflowSkipException` when the schedule is paused or gone, `AirflowFailException` with the reason when
        the run was refused, and `AirflowException` when a retry may help.
        """
        from backend.runtime.scheduling.firing import ask_for_run

        run = context["dag_run"]
        assets = [str(getattr(asset, "uri", asset)) for asset in context.get("triggering_asset_events") or {}]
        answer = ask_for_run(self.schedule_id, run.run_id, logical_date=run.logical_date, assets=assets)
        if answer.outcome == "skipped":
            raise AirflowSkipException(answer.detail)
        if answer.outcome == "failed":
            raise AirflowFailException(answer.detail)
        if answer.outcome == "later":
            raise AirflowException(answer.detail)
        return {"dag_id": answer.dag_id, "dag_run_id": answer.dag_run_id}


def schedule_dags() -> list[DAG]:
    """The DAGs of all schedules, and one that is always there. Raises `ConnectionError` if no schedules are known."""
    wanted = get_parsing_context().dag_id
    if wanted is not None:  # a task, which needs neither the database nor to know when it is due
        schedule_id = schedule_of_dag(wanted)
        return [_dag(schedule_id, None)] if schedule_id is not None else [_all_schedules()]
    found = [_all_schedules()]
    for row in read_schedules(get_settings().database_url):
        try:
            found.append(_dag(row["id"], row))
        except Exception:  # one that Airflow rejects must not take the others with it
            log.exception("there is no DAG for the schedule %s of %s", row["id"], row["dag_id"])
    return found


def _all_schedules() -> DAG:
    return DAG(
        dag_id=ALL_SCHEDULES,
        description="Never runs. It shows that the schedules set in LangGraph Flow are read",
        schedule=_never(),
        allowed_run_types=NOT_BY_HAND,
        tags=["visual-ai", TAG],
    )


def _dag(schedule_id: str, row: Mapping[str, Any] | None) -> DAG:
    """The DAG of a schedule; without a row, as much of it as its task needs."""
    settings: dict[str, Any] = {"schedule": _never()}
    if row is not None:
        name = row["template"] or row["dag_id"]
        settings = {
            "dag_display_name": f"Schedule of {name}",
            "description": f"Starts runs of {name} when they are due",
            "schedule": _timetable(row["timetable"], row["timezone"]) if row["enabled"] else _never(),
            "start_date": row["starts_from"],
            "end_date": row["end_date"],
            # Events of a list are due one by one; without catch-up, one that is due while the file is parsed is lost.
            "catchup": row["catchup"] or row["timetable"]["kind"] == "events",
        }
    with DAG(
        dag_id=dag_of_schedule(schedule_id),
        max_active_runs=1,  # so that runs are started in the order in which they are due
        is_paused_upon_creation=False,
        allowed_run_types=NOT_BY_HAND,
        default_args={"owner": "visual-ai-team"},
        tags=["visual-ai", TAG],
        **settings,
    ) as dag:
        StartScheduledRun(
            task_id=TASK_ID,
            schedule_id=schedule_id,
            retries=20,
            retry_delay=timedelta(seconds=15),
            retry_exponential_backoff=True,
            max_retry_delay=timedelta(minutes=10),
        )
    return dag


def _timetable(data: Mapping[str, Any], zone: str) -> Any:
    """Airflow's own timetable of this kind. Raises `ValueError` for an unknown kind."""
    kind = data["kind"]
    if kind == "crons":
        return _crons(data["crons"], zone)
    if kind == "delta":
        return DeltaTriggerTimetable(timedelta(seconds=data["seconds"]))
    if kind == "events":
        import pendulum

        return EventsTimetable([pendulum.instance(datetime.fromisoformat(one)) for one in data["dates"]])
    if kind == "assets":
        return _assets(data)
    if kind == "asset_or_time":
        return AssetOrTimeSchedule(timetable=_crons(data["crons"], zone), assets=_assets(data))
    raise ValueError(f"there is no kind of timetable {kind!r}")


def _never() -> EventsTimetable:
    """A timetable that is never due. Without one, Airflow insists that people may start runs."""
    return EventsTimetable([], description="Never")


def _crons(crons: list[str], zone: str) -> CronTriggerTimetable | MultipleCronTriggerTimetable:
    if len(crons) == 1:
        return CronTriggerTimetable(crons[0], timezone=zone)
    return MultipleCronTriggerTimetable(*crons, timezone=zone)


def _assets(data: Mapping[str, Any]) -> AssetAll | AssetAny:
    assets = [Asset(name=asset["name"], uri=asset["uri"]) for asset in data["assets"]]
    return AssetAny(*assets) if data["condition"] == "any" else AssetAll(*assets)
