"""Where a stack keeps its files."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_LONGEST_SOCKET_PATH = 100
"""A Unix socket's path is limited to 107 bytes on Linux and 103 on macOS."""


class StackError(RuntimeError):
    """The stack can't be started or stopped. The message says why, and is meant for the user at the terminal."""


@dataclass(frozen=True)
class Layout:
    """The files of one stack: `root` is the checkout, `state` holds everything that is generated (`.stack`)."""

    root: Path
    state: Path

    @classmethod
    def find(cls) -> Self:
        """The layout of this checkout; `VISUAL_AI_STACK_DIR` moves `state` elsewhere.

        Raises `StackError` when the package isn't run from a checkout.
        """
        root = Path(__file__).resolve().parents[2]
        if not (root / "Procfile").is_file():
            raise StackError(f"This command needs a checkout of the project: there is no Procfile in {root}")
        moved = os.environ.get("VISUAL_AI_STACK_DIR")
        return cls(root=root, state=Path(moved).resolve() if moved else root / ".stack")

    @property
    def moved(self) -> bool:
        """Whether the state is kept outside the checkout, as it is in tests."""
        return self.state != self.root / ".stack"

    @property
    def identity(self) -> str:
        """The value of the processes' marker: the checkout, or the state directory if that was moved."""
        return str(self.state if self.moved else self.root)

    @property
    def secrets(self) -> Path:
        """The generated passwords and keys, readable only by their owner."""
        return self.state / "secrets.env"

    @property
    def postgres(self) -> Path:
        """The embedded cluster's data directory."""
        return self.state / "postgres"

    @property
    def projects(self) -> Path:
        """Projects with environments of their own."""
        return self.state / "projects"

    @property
    def logs(self) -> Path:
        """One rotated log per process."""
        return self.state / "logs"

    @property
    def run(self) -> Path:
        """Files that only matter while the stack is running."""
        return self.state / "run"

    @property
    def lock(self) -> Path:
        """Held by the `up` or `down` in progress."""
        return self.state / "lock"

    @property
    def airflow_home(self) -> Path:
        """`airflow/` of the checkout; a directory of its own for a moved stack."""
        return self.state / "airflow" if self.moved else self.root / "airflow"

    @property
    def supervisor_socket(self) -> Path:
        """A file in `run`, or in a private directory with a short name if that path is too long for a socket."""
        path = self.run / "supervisor.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
            return path
        name = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"visual-ai-{os.getuid()}-{name}" / "supervisor.sock"

    def make_directories(self) -> None:
        """Create what is missing. Only the owner may list the state or read the secrets."""
        for path in (self.state, self.logs, self.run):
            path.mkdir(parents=True, exist_ok=True)
        # When run as root, PostgreSQL's system user must be able to traverse the directory; nobody else can list it.
        self.state.chmod(0o711)
        self.run.chmod(0o700)
        self.logs.chmod(0o700)
        directory = self.supervisor_socket.parent
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.stat().st_uid != os.getuid():
            raise StackError(f"{directory} belongs to another user; remove it or set TMPDIR")
