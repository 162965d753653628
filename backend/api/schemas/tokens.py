"""Bodies of service tokens."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from backend.core.roles import Scope

MAX_DAYS = 366

_DagId = Annotated[str, Field(min_length=1, max_length=250, pattern=r"^[^\x00]*$")]


class NewToken(BaseModel):
    """A service token to create."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="What it is for, for people"
    )
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=3,
        description="`read` what its creator sees, `trigger` runs and upload pictures, `stop` and retry runs",
    )
    dag_ids: list[_DagId] | None = Field(
        None, min_length=1, max_length=100, description="The only workflows it is for. Default: all of its creator's"
    )
    expires_in_days: int = Field(90, ge=1, le=MAX_DAYS)


class TokenOut(BaseModel):
    """A service token without its secret. It is valid until `expires_at`, unless it was revoked."""

    id: str
    prefix: str = Field(description="How the token begins, after `lgf_`")
    name: str
    user_id: str
    scopes: list[Scope]
    dag_ids: list[str] | None
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = Field(description="To the minute")
    revoked_at: datetime | None
    revoked_by: str | None


class CreatedToken(TokenOut):
    """A new service token. The `token` is shown only now."""

    token: str


class TokenList(BaseModel):
    """Service tokens, newest first. Pass `next_cursor` as `cursor` for the next page."""

    tokens: list[TokenOut]
    next_cursor: str | None
