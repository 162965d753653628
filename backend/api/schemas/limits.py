"""Bodies of operators' limits."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from backend.core.limits import Kind, Period

_SUBJECT = "`everybody` (together), `each_user`, `user:<name>`, `role:<role in Airflow>` or `team:<team in Airflow>`"
_KIND = (
    "`cost_usd` and `tokens` of model calls, by `period`; `runs_at_once`; `upload_bytes` stored; `batch_size` of one "
    "request; `streams` open at once, of each user"
)
_PERIOD = "For `cost_usd` and `tokens`: the day or month in UTC. For others: omit it"


class LimitBody(BaseModel):
    """A limit to set."""

    model_config = ConfigDict(extra="forbid")

    subject: str = Field(
        min_length=1, max_length=250, pattern=r"^[^\x00-\x1f\x7f]*$", description=_SUBJECT, examples=["user:alice"]
    )
    kind: Kind = Field(description=_KIND)
    period: Period | None = Field(None, description=_PERIOD)
    limit: float = Field(ge=0, lt=10**13, allow_inf_nan=False, description="US dollars, or a whole number. 0: none")


class LimitOut(BaseModel):
    """A limit and what is used of it."""

    id: str
    subject: str = Field(description=_SUBJECT)
    kind: Kind = Field(description=_KIND)
    period: Period | None
    limit: float
    used: float | None = Field(
        description="Recorded, in progress or reserved. Null where nothing is counted: for `batch_size`, and in the "
        "list of all limits for those of each user"
    )
    resets_at: datetime | None = Field(description="When the period ends. Null for what isn't counted by time")


class LimitList(BaseModel):
    """Limits, by their ids."""

    limits: list[LimitOut]
