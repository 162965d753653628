"""The tokens that `login` saves for later commands, in a file that only its owner can read."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from backend.cli.errors import CliError
from backend.deployment.credentials import write_private


@dataclass(frozen=True, slots=True)
class Login:
    """A token of `username`, valid until `expires_at` (seconds since the epoch)."""

    username: str
    role: str
    token: str
    expires_at: float

    @property
    def expired(self) -> bool:
        """Whether the backend no longer accepts the token."""
        return time.time() >= self.expires_at


def path() -> Path:
    """`langgraph-flow/logins.json` in the XDG configuration directory."""
    base = os.environ.get("XDG_CONFIG_HOME") or ""
    # The XDG specification ignores relative paths.
    directory = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
    return directory / "langgraph-flow" / "logins.json"


def load(url: str) -> Login | None:
    """The login saved for `url`, even if its token has expired. Raises `CliError` when the file can't be read."""
    kept = _read().get(url)
    try:
        return Login(**kept) if isinstance(kept, dict) else None
    except TypeError:  # written by another version
        return None


def save(url: str, login: Login) -> None:
    """Save the login for `url`. Raises `CliError` when the file can't be written."""
    _write(_read() | {url: asdict(login)})


def forget(url: str) -> bool:
    """Remove the login for `url`; return whether there was one."""
    kept = _read()
    found = kept.pop(url, None) is not None
    if found:
        _write(kept)
    return found


def _read() -> dict[str, object]:
    file = path()
    try:
        content = json.loads(file.read_text())
        if file.stat().st_mode & 0o077:  # it was made readable for others
            file.chmod(0o600)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CliError(f"{file} can't be read ({error}); remove it and sign in again") from error
    return content if isinstance(content, dict) else {}


def _write(content: dict[str, object]) -> None:
    file = path()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise CliError(f"{file} can't be written: {error}") from error
