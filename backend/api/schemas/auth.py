"""Bodies of sign-in."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from backend.core.roles import RoleName


class Credentials(BaseModel):
    """An Airflow user's credentials."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    username: str = Field(min_length=1, max_length=256)
    password: SecretStr = Field(min_length=1, max_length=1024)


class Token(BaseModel):
    """A bearer token. `expires_in` is in seconds; `role` is the user's highest Airflow role."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  # the scheme's name
    expires_in: int
    role: RoleName


class Me(BaseModel):
    """The signed-in user, with the role that the token was issued for. It expires at `expires_at`."""

    user_id: str
    role: RoleName
    expires_at: datetime | None
