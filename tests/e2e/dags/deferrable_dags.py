"""Agents in the triggerer, by every kind of task that can defer them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, Param, task

from visual_ai_operators import LangGraphOperator, MultiAgentOperator

PARAMS: dict[str, Any] = {"text": Param("Ships lay at anchor. The third had left.", type="string")}
DEFAULTS = {"retries": 1, "retry_delay": timedelta(seconds=1)}
TEXT = {"text": "{{ params.text }}"}
IMPATIENT = {"server": {"retries": 0, "fallback": False}}
"""Leaves server errors to the task's retries."""


def dag(dag_id: str, **kwargs: Any) -> DAG:
    """A DAG without a schedule."""
    given = {
        "schedule": None,
        "start_date": datetime(2024, 1, 1),
        "max_active_runs": 1000,
        "params": PARAMS,
        "default_args": DEFAULTS,
    }
    return DAG(dag_id, **{**given, **kwargs})


for deferrable in (True, False):
    name = "deferrable" if deferrable else "in_worker"
    with dag(f"agent_{name}"):
        LangGraphOperator(
            task_id="agent", agent_config={"type": "text"}, input_data=TEXT, deferrable=deferrable,
            error_policy=IMPATIENT,
        )  # fmt: skip

with dag("team_deferrable"):
    MultiAgentOperator(
        task_id="team",
        agents=[
            {"name": "first", "type": "text", "input_data": TEXT},
            {"name": "second", "type": "text", "input_data": {"text": "{{ params.text }}"}},
        ],
        deferrable=True,
    )

with dag("agents_mapped", params={"number": Param(3, type="integer")}):

    @task
    def texts(params: dict[str, Any] | None = None) -> list[dict[str, str]]:
        """As many inputs as the run requests."""
        return [{"text": f"Text number {number}. Ships lay there."} for number in range((params or {})["number"])]

    LangGraphOperator.partial(task_id="agent", agent_config={"type": "text"}, deferrable=True).expand(
        input_data=texts()
    )

with dag("agent_after_xcom"):

    @task
    def given() -> dict[str, str]:
        """The agent's input."""
        return {"text": "From another task. It is about ships."}

    first = LangGraphOperator(task_id="agent", agent_config={"type": "text"}, input_data=given(), deferrable=True)
    first >> LangGraphOperator(
        task_id="next", agent_config={"type": "text"}, deferrable=True,
        input_data={"text": "{{ ti.xcom_pull(task_ids='agent')['output'] }}"},
    )  # fmt: skip

with dag("agent_out_of_time", default_args={"retries": 0}):
    LangGraphOperator(
        task_id="agent", agent_config={"type": "text"}, input_data=TEXT, deferrable=True,
        execution_timeout=timedelta(seconds=3),
    )  # fmt: skip

with dag("agent_with_asset"):
    LangGraphOperator(
        task_id="agent", agent_config={"type": "text"}, input_data=TEXT, deferrable=True,
        outlets=[Asset("agents://report")],
    )  # fmt: skip

with dag("agent_read", schedule=[Asset("agents://report")], params={}):

    @task
    def read(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """The extra data that the agent's task attached to its asset event."""
        return [dict(event.extra) for events in triggering_asset_events.values() for event in events]

    read()
