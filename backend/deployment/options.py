"""The settings of a stack: ports, accounts and an external database."""

import os
import socket
from pathlib import Path

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.deployment.layout import StackError

_WORKER_LOG_OFFSET = 8793 - 8080
_TRIGGERER_LOG_OFFSET = 8794 - 8080

COMPOSE_DATABASE_HOST = "postgres"
"""The database's host name inside docker compose, as it appears in the integration guide's `.env`."""


class StackOptions(BaseSettings):
    """The stack's own settings, from the environment and `.env`. The environment takes precedence."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    airflow_port: int = Field(8080, validation_alias="VISUAL_AI_AIRFLOW_PORT", ge=1, le=64000)
    backend_port: int = Field(8000, validation_alias="VISUAL_AI_BACKEND_PORT", ge=1, le=65535)
    frontend_port: int = Field(3000, validation_alias="VISUAL_AI_FRONTEND_PORT", ge=1, le=65535)
    serve_frontend: bool = Field(True, validation_alias="VISUAL_AI_FRONTEND")
    start_timeout: float = Field(240.0, validation_alias="VISUAL_AI_START_TIMEOUT", gt=0)

    postgres_host: str | None = Field(None, validation_alias="POSTGRES_HOST")
    postgres_port: int | None = Field(None, validation_alias="POSTGRES_PORT", ge=1, le=65535)
    postgres_db: str = Field("airflow", validation_alias="POSTGRES_DB")
    postgres_user: str = Field("airflow", validation_alias="POSTGRES_USER")
    postgres_password: SecretStr = Field(SecretStr("airflow"), validation_alias="POSTGRES_PASSWORD")

    username: str = Field("airflow", validation_alias="_AIRFLOW_WWW_USER_USERNAME")
    password: SecretStr = Field(SecretStr("airflow"), validation_alias="_AIRFLOW_WWW_USER_PASSWORD")

    @property
    def compose_host_ignored(self) -> bool:
        """Whether POSTGRES_HOST is docker compose's name for the database, which doesn't resolve outside of it."""
        return self.postgres_host == COMPOSE_DATABASE_HOST and not _resolves(COMPOSE_DATABASE_HOST)

    @property
    def embedded(self) -> bool:
        """Whether the stack runs its own PostgreSQL."""
        return self.postgres_host is None or self.compose_host_ignored

    @property
    def database_port(self) -> int:
        """54320 for the embedded server, so that it doesn't collide with one on the default port."""
        return self.postgres_port or (54320 if self.embedded else 5432)

    @property
    def worker_log_port(self) -> int:
        """Airflow's default, 8793, shifted like its web port from 8080, so that two stacks never share one."""
        return self.airflow_port + _WORKER_LOG_OFFSET

    @property
    def triggerer_log_port(self) -> int:
        """Airflow's default, 8794, shifted like its web port from 8080."""
        return self.airflow_port + _TRIGGERER_LOG_OFFSET

    @property
    def airflow_url(self) -> str:
        """Airflow's address on this machine."""
        return f"http://127.0.0.1:{self.airflow_port}"

    @property
    def backend_url(self) -> str:
        """The backend's address on this machine."""
        return f"http://127.0.0.1:{self.backend_port}"

    @property
    def frontend_url(self) -> str:
        """The frontend's address on this machine."""
        return f"http://127.0.0.1:{self.frontend_port}"


def read_options(root: Path) -> StackOptions:
    """The options of the checkout at `root`. Raises `StackError` naming the invalid variables."""
    return _options(root / ".env")


def container_options() -> StackOptions:
    """The options of a container, from its environment only. Raises `StackError` naming the invalid variables."""
    return _options(None)


def read_environment(root: Path) -> dict[str, str]:
    """`.env` overlaid by the environment: the user's own settings."""
    file = {name: value for name, value in dotenv_values(root / ".env").items() if value}
    return {**file, **os.environ}


def _options(file: Path | None) -> StackOptions:
    try:
        return StackOptions(_env_file=file)
    except ValidationError as error:
        problems = "\n".join(f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise StackError(f"Invalid settings:\n{problems}") from None


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True
