"""Bodies of schedules."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from backend.api.schemas.workflows import BudgetBody, InputData
from backend.services.scheduling.schedules import ScheduleRequest


def _moment(value: datetime) -> datetime:
    if not 2000 <= value.year <= 2200:
        raise ValueError("must be between the years 2000 and 2200")
    return value


Moment = Annotated[AwareDatetime, AfterValidator(_moment)]
Cron = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
AssetName = Annotated[str, Field(min_length=1, max_length=1_500, pattern=r"^[^\x00]*$")]
AssetNames = Annotated[list[AssetName], Field(min_length=1, max_length=50, description="Names or URIs of assets")]


class TimetableBody(BaseModel):
    """When runs are due. Which of the other keys there are depends on the `kind`.

    `crons`: whenever one of `crons` comes true. `delta`: at the start, and every so many `seconds` after it. `events`:
    at each of `dates`. `assets`: when `assets` were updated. `asset_or_time`: for `crons` and for `assets`.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["crons", "delta", "events", "assets", "asset_or_time"]
    crons: list[Cron] | None = Field(None, min_length=1, max_length=20)
    seconds: int | None = Field(None, ge=60, le=366 * 86_400, strict=True)
    dates: list[Moment] | None = Field(None, min_length=1, max_length=1_000)
    assets: AssetNames | None = None
    condition: Literal["all", "any"] | None = Field(
        None, description="Whether all of the assets are waited for, which is the default, or any"
    )


class ScheduleBody(BaseModel):
    """When runs are due, by exactly one of `cron`, `assets` and `timetable`, and what they are given."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "cron": "0 6 * * 1-5",
                "timezone": "Europe/Berlin",
                "input_data": {"query": "What is the total?", "image_url": "https://example.com/invoice.png"},
            }
        },
    )

    cron: Cron | None = Field(None, description="Five fields, or a preset such as `@daily`", examples=["0 6 * * 1-5"])
    assets: AssetNames | None = Field(None, description="Names or URIs of assets, of which all are waited for")
    timetable: TimetableBody | None = Field(None, description="Any other timetable, by its `kind`")
    timezone: str = Field(
        "UTC", min_length=1, max_length=100, pattern=r"^[^\x00]*$", description="What cron expressions refer to"
    )
    start_date: Moment | None = Field(
        None, description="Nothing is due before this time; by default, now. A past one has an effect with `catchup`"
    )
    end_date: Moment | None = Field(None, description="Nothing is due after this time")
    catchup: bool = Field(False, description="Whether runs that are due since `start_date` are made up for")
    enabled: bool = Field(True, description="Whether runs are started; `false` pauses the schedule")
    input_data: InputData = Field(default_factory=dict, description="The input of each run")
    model: str | None = Field(None, min_length=1, max_length=256, pattern=r"^[^\x00]*$")
    budget: BudgetBody | None = Field(
        None, description="Default: the template's, or else that of the user's preferences; `{}` means none"
    )

    @model_validator(mode="after")
    def _one_timetable(self) -> "ScheduleBody":
        if sum(one is not None for one in (self.cron, self.assets, self.timetable)) != 1:
            raise PydanticCustomError(
                "timetable", "Exactly one of cron, assets and timetable is required", {"pointer": "/timetable"}
            )
        return self

    def request(self) -> ScheduleRequest:
        """The request to the service."""
        place, timetable = "/timetable", dict[str, Any]()
        if self.cron is not None:
            place, timetable = "/cron", {"kind": "crons", "crons": [self.cron]}
        elif self.assets is not None:
            place, timetable = "/assets", {"kind": "assets", "assets": self.assets}
        elif self.timetable is not None:
            timetable = self.timetable.model_dump(exclude_none=True)
        return ScheduleRequest(
            timetable,
            place,
            timezone=self.timezone,
            start_date=self.start_date,
            end_date=self.end_date,
            catchup=self.catchup,
            enabled=self.enabled,
            input_data=self.input_data,
            model=self.model,
            budget=self.budget.model_dump(exclude_none=True) if self.budget is not None else None,
        )


class FiringOut(BaseModel):
    """One time that the schedule was due, and what came of it."""

    due: datetime | None = Field(description="The logical date; null if assets decided")
    assets: list[str] = Field(description="The assets that were updated")
    requested_at: datetime
    outcome: Literal["started", "skipped", "postponed", "failed"] | None = Field(
        description="Null while the run is being started; a postponed one is tried again"
    )
    detail: str | None = Field(description="Why no run was started")
    dag_id: str | None
    dag_run_id: str | None = Field(description="The run that was started")


class ScheduleOut(BaseModel):
    """A schedule. What runs are given is null for those who may not see the user's runs."""

    id: str
    dag_id: str
    template: str | None
    timetable: TimetableBody
    timezone: str
    start_date: datetime | None
    end_date: datetime | None
    catchup: bool
    enabled: bool
    input_data: dict[str, Any] | None
    model: str | None
    budget: BudgetBody | None
    user_id: str = Field(description="Whose runs they are: who has set the schedule")
    created_at: datetime
    updated_at: datetime
    next_run_date: datetime | None = Field(
        description="When it is due next; null if it is paused or over, or assets decide"
    )
    stopped_at: datetime | None
    stopped_reason: str | None = Field(description="Why the schedule was stopped")
    last_error: str | None = Field(description="Why the last time that it was due led to no run; null if it did")
    latest: list[FiringOut] = Field(description="The latest times that it was due, newest first")
    airflow_dag_id: str = Field(description="The DAG that carries the schedule out")
