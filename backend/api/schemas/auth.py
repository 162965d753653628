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


class AirflowToken(BaseModel):
    """A token of Airflow's, such as its web page or `POST /auth/token` of its API issues."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    airflow_token: SecretStr = Field(min_length=1, max_length=8192)


class Token(BaseModel):
    """A bearer token. `expires_in` is in seconds; `role` is the user's highest Airflow role."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  # the scheme's name
    expires_in: int
    role: RoleName


class Me(BaseModel):
    """Who a request is made for.

    `role` is the role of Airflow's that comes closest to what the user may do at the moment. The token expires at
    `expires_at`.
    """

    user_id: str
    role: RoleName
    expires_at: datetime | None
    may_trigger: bool = Field(description="Whether there are workflows that the user, or the service token, may start")
    sees_all: bool = Field(description="Whether the runs of all users are shown, of all workflows")
    service_token: str | None = Field(None, description="The name of the service token, if that is what was sent")
