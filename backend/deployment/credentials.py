"""The stack's own passwords and keys: generated once and kept in a file that only its owner can read."""

import base64
import os
import secrets
from collections.abc import Callable, Collection
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

from backend.deployment.layout import StackError


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


_GENERATORS: dict[str, Callable[[], str]] = {
    "POSTGRES_ADMIN_PASSWORD": lambda: secrets.token_hex(24),
    "POSTGRES_AIRFLOW_PASSWORD": lambda: secrets.token_hex(24),
    "VISUAL_AI_BACKEND_DB_PASSWORD": lambda: secrets.token_hex(24),
    "VISUAL_AI_WORKER_DB_PASSWORD": lambda: secrets.token_hex(24),
    "AIRFLOW_JWT_SECRET": lambda: secrets.token_hex(64),  # Airflow requires at least 64 bytes
    "AIRFLOW_FERNET_KEY": _fernet_key,
    "AIRFLOW_SECRET_KEY": lambda: secrets.token_hex(32),
    "AIRFLOW_SERVICE_PASSWORD": lambda: secrets.token_hex(24),
    "VISUAL_AI_JWT_SECRET": lambda: secrets.token_hex(48),
}


def load_credentials(path: Path, names: Collection[str] = tuple(_GENERATORS)) -> dict[str, str]:
    """Return the credentials in `path`, generating what is missing: all on first use, later what a new version adds.

    `names` are the credentials that belong in this file. The file is replaced atomically, so a crash leaves either the
    old or the new one. Raises `StackError` when it can't be read or written.
    """
    try:
        kept = read_credentials(path) if path.exists() else {}
        missing = {name: make() for name, make in _GENERATORS.items() if name in names and name not in kept}
        if missing:
            kept |= missing
            write_private(path, "".join(f"{name}={value}\n" for name, value in kept.items()))
        path.chmod(0o600)
    except OSError as error:
        raise StackError(f"The secrets file can't be read or written: {error}") from error
    return kept


def read_credentials(path: Path) -> dict[str, str]:
    """Return the credentials that `load_credentials` wrote to `path`. Raises `OSError` when it can't be read."""
    return {name: value for name, value in dotenv_values(stream=StringIO(path.read_text())).items() if value}


def write_private(path: Path, text: str) -> None:
    """Replace `path` with `text` atomically; nobody but the owner can read it at any moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
