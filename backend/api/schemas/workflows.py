"""Bodies of workflows and triggers."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from backend.core.jsonable import LARGEST_INTEGER, unstorable
from backend.core.problems import pointer

_FURTHEST_START = timedelta(days=3653)

_NO_NUL = r"^[^\x00]*$"


class BudgetBody(BaseModel):
    """Limits for all agents of a run together. A model call or step that would exceed one is not made."""

    model_config = ConfigDict(extra="forbid")

    max_tokens: int | None = Field(None, ge=0, le=LARGEST_INTEGER, strict=True, description="Input and output tokens")
    max_cost_usd: float | None = Field(None, ge=0, le=1e12, allow_inf_nan=False, description="US dollars")
    max_steps: int | None = Field(None, ge=0, le=LARGEST_INTEGER, strict=True, description="Node executions")


def storable_json(value: Any) -> Any:
    """Reject what Python parses but JSON does not allow, and what JSON allows but PostgreSQL can't store."""
    if (fault := unstorable(value)) is not None:
        path, detail = fault
        # As a template's literal: pydantic formats the message with the context.
        raise PydanticCustomError("unstorable", "{detail}", {"detail": detail, "pointer": pointer(*path)})
    return value


InputData = Annotated[dict[str, Any], BeforeValidator(storable_json)]


def _start(value: datetime) -> datetime:
    if value.year < 2000 or value > datetime.now(UTC) + _FURTHEST_START:
        raise ValueError("must be between the year 2000 and ten years from now")
    return value


def _date(value: datetime) -> datetime:
    if not 1900 <= value.year <= 2200:
        raise ValueError("must be between the years 1900 and 2200")
    return value


class RunOptions(BaseModel):
    """Options of a run besides its input."""

    model_config = ConfigDict(extra="forbid")

    template: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9_-]{0,62}(@[1-9][0-9]{0,8})?$",
        examples=["invoice-check", "invoice-check@3"],
        description="The template to run: `name` for its active version, `name@version` for a specific one",
    )
    dag_id: str | None = Field(
        None, min_length=1, max_length=250, validate_default=True, description="Optional with a template"
    )
    user_id: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        pattern=_NO_NUL,
        description="The user on whose behalf the run is started; default: you",
    )
    model: str | None = Field(
        None, min_length=1, max_length=256, pattern=_NO_NUL, description="The model of all agents whose task names none"
    )
    run_after: Annotated[AwareDatetime, AfterValidator(_start)] | None = Field(
        None, description="The run does not start before this time"
    )
    budget: BudgetBody | None = Field(
        None, description="Default: the template's, or else that of the user's preferences; `{}` means none"
    )

    @field_validator("dag_id")
    @classmethod
    def _named(cls, dag_id: str | None, info: ValidationInfo) -> str | None:
        if dag_id is None and info.data.get("template", "") is None:
            raise PydanticCustomError("missing", "Field required, unless there is a template")
        return dag_id

    def budget_json(self) -> dict[str, Any] | None:
        """The budget as it is stored in the run's conf; None when the request has none."""
        return self.budget.model_dump(exclude_none=True) if self.budget is not None else None


class TriggerBody(RunOptions):
    """A run to start. `input_data` becomes `dag_run.conf` and must match the DAG's parameter schema."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "dag_id": "visual_ai_workflow",
                "input_data": {
                    "query": "Analyze this image and extract insights",
                    "image_url": "https://example.com/image.jpg",
                },
                "user_id": "user123",
            }
        },
    )

    input_data: InputData
    logical_date: Annotated[AwareDatetime, AfterValidator(_date)] | None = Field(
        None,
        description="The date that the run is about, for templates such as `{{ ds }}`; a DAG has one run per date",
    )


class BatchBody(RunOptions):
    """Runs of one DAG to start, one for each of `inputs`. The other fields are those of a single run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "dag_id": "visual_ai_workflow",
                "inputs": [
                    {"query": "What is the total?", "image_url": "https://example.com/1.jpg"},
                    {"query": "What is the total?", "image_url": "https://example.com/2.jpg"},
                ],
            }
        },
    )

    # One fault is enough: there may be as many as entries.
    inputs: list[InputData] = Field(min_length=1, fail_fast=True)


class Accepted(BaseModel):
    """A run that Airflow has accepted. `status_url` and `stream_url` are relative to this service."""

    execution_id: str
    dag_id: str
    dag_run_id: str
    state: str
    status_url: str
    stream_url: str
    airflow_url: str


class AcceptedEntry(Accepted):
    """An input of a batch whose run Airflow has accepted."""

    index: int
    status: Literal["accepted"] = "accepted"


class ProblemOut(BaseModel):
    """Problem details (RFC 9457); `retry_after` is in seconds."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []
    retry_after: float | None = None


class RefusedEntry(BaseModel):
    """An input of a batch for which no run was started, and why."""

    index: int
    status: Literal["refused"] = "refused"
    problem: ProblemOut


class BatchAccepted(BaseModel):
    """One entry for each input, in order."""

    accepted: int
    refused: int
    entries: list[Annotated[AcceptedEntry | RefusedEntry, Field(discriminator="status")]]


class WorkflowOut(BaseModel):
    """A DAG; `input_schema` is the JSON Schema (2020-12) of its `input_data`."""

    dag_id: str
    display_name: str
    description: str | None
    tags: list[str]
    paused: bool
    input_schema: dict[str, Any]
    import_error: str | None = Field(
        None, description="Why the DAG's file no longer loads; a DAG with an import error can't be triggered"
    )


class WorkflowTaskOut(BaseModel):
    """A task of a DAG; `downstream` are the ids of the tasks that follow it. A mapped task has several instances."""

    task_id: str
    label: str
    operator: str | None
    mapped: bool
    downstream: list[str]


class WorkflowDetail(WorkflowOut):
    """A DAG with its current tasks; `tasks` is null when Airflow does not let you see them."""

    tasks: list[WorkflowTaskOut] | None


class WorkflowList(BaseModel):
    """All workflows that you may see."""

    workflows: list[WorkflowOut]


class ImageOut(BaseModel):
    """An uploaded picture; use `image_url` in `input_data`."""

    image_id: str
    image_url: str
