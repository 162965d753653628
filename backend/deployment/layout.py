"""Where the stack keeps its files."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MARKER_VARIABLE = "VISUAL_AI_STACK"
"""Every process of a stack carries this variable; its value tells whose it is."""

_LONGEST_SOCKET_PATH = 100
"""A Unix socket's path ends at 107 bytes on Linux and 103 on macOS."""


class StackError(RuntimeError):
    """The stack can't be started or stopped, and why, in words for the person at the terminal."""


@dataclass(frozen=True)
class Layout:
    """The files of one stack: `root` is the checkout, `state` everything that is generated (`.stack`)."""

    root: Path
    state: Path

    @classmethod
    def find(cls) -> Self:
        """The layout of this checkout; `VISUAL_AI_STACK_DIR` moves the generated part elsewhere.

        Raises `StackError` when the package isn't used from a checkout.
        """
        root = Path(__file__).resolve().parents[2]
        if not (root / "Procfile").is_file():
            raise StackError("This command needs the project's checkout: there is no Procfile in " + str(root))
        moved = os.environ.get("VISUAL_AI_STACK_DIR")
        return cls(root=root, state=Path(moved).resolve() if moved else root / ".stack")

    @property
    def moved(self) -> bool:
        """Whether the state lives outside the checkout, as in tests."""
        return self.state != self.root / ".stack"

    @property
    def identity(self) -> str:
        """The marker's value: the checkout, or the state directory of one that was moved."""
        return str(self.state if self.moved else self.root)

    @property
    def secrets(self) -> Path:
        """The generated passwords and keys, readable by the owner only."""
        return self.state / "secrets.env"

    @property
    def postgres(self) -> Path:
        """The embedded cluster's data directory."""
        return self.state / "postgres"

    @property
    def logs(self) -> Path:
        """One log per process, rotated."""
        return self.state / "logs"

    @property
    def run(self) -> Path:
        """What only matters while the stack runs."""
        return self.state / "run"

    @property
    def lock(self) -> Path:
        """Held by the one `up` or `down` that is at work."""
        return self.state / "lock"

    @property
    def airflow_home(self) -> Path:
        """`airflow/` of the checkout, or a copy of its own for a moved stack."""
        return self.state / "airflow" if self.moved else self.root / "airflow"

    @property
    def supervisor_socket(self) -> Path:
        """Beside the state, or in a private directory with a short name if that path is too long for a socket."""
        path = self.run / "supervisor.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
            return path
        name = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"visual-ai-{os.getuid()}-{name}" / "supervisor.sock"

    def make_directories(self) -> None:
        """Create what is missing; nobody but the owner may list the state or read secrets."""
        for path in (self.state, self.logs, self.run):
            path.mkdir(parents=True, exist_ok=True)
        # The database's own system user (when run as root) must pass through, others can't list.
        self.state.chmod(0o711)
        self.run.chmod(0o700)
        self.logs.chmod(0o700)
        directory = self.supervisor_socket.parent
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.stat().st_uid != os.getuid():
            raise StackError(f"{directory} belongs to somebody else; remove it or set TMPDIR")
