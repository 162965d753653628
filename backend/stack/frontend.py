"""Installs and builds the frontend of a checkout, and runs its scripts."""

import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from backend.deployment.layout import StackError
from backend.stack.nodejs import NodeJs, find_nodejs, install_nodejs

_GENERATED = frozenset({"node_modules", "dist", "coverage", "test-results", "playwright-report", ".vite"})
_TESTS = (".test.ts", ".test.tsx", ".spec.ts")

Announce = Callable[[str], AbstractContextManager[None]]


class Frontend:
    """The frontend below `root`. `announce` is entered around each slow step."""

    def __init__(self, root: Path, announce: Announce = lambda _: nullcontext()) -> None:
        self._root = root
        self.folder = root / "frontend"
        self._announce = announce
        self._nodejs: NodeJs | None = None

    @property
    def exists(self) -> bool:
        """Whether this checkout has a frontend."""
        return (self.folder / "package.json").is_file()

    def build(self) -> NodeJs:
        """Install packages and build the pages unless they are up to date; return the Node.js to serve them with.

        Safe to call from several processes. Raises `StackError` with the last lines of a failed step's output.
        """
        nodejs = self.install()
        with self._locked():
            expected = self._source_digest()
            if self._done().get("built") != expected or not (self.folder / "dist" / "index.html").is_file():
                self._note(built=None)
                with self._announce("Frontend: pages (again only when they change)"):
                    self._npm("run", "build")
                self._note(built=expected)
        return nodejs

    def install(self) -> NodeJs:
        """Install the packages of package-lock.json unless they are installed, and return the Node.js to use them with.

        Raises `StackError`.
        """
        nodejs = self._find()
        with self._locked():
            expected = self._digest([self.folder / "package.json", self.folder / "package-lock.json"])
            if self._done().get("installed") != expected:
                self._note(installed=None, built=None)
                with self._announce("Frontend: packages (once)"):
                    self._npm("ci", "--no-audit", "--no-fund")
                self._note(installed=expected)
        return nodejs

    def run(self, script: str, arguments: list[str]) -> int:
        """Run a script of package.json at the terminal; return its exit code. Raises `StackError`."""
        nodejs = self.install()
        command = [*nodejs.npm, "run", "--silent", script, *(["--", *arguments] if arguments else [])]
        return subprocess.run(command, cwd=self.folder, env=nodejs.environment(os.environ), check=False).returncode

    def _npm(self, *arguments: str) -> None:
        nodejs = self._find()
        result = subprocess.run(
            [*nodejs.npm, *arguments], cwd=self.folder, env=nodejs.environment(os.environ),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if result.returncode != 0:
            tail = "\n".join(result.stdout.strip().splitlines()[-12:])
            raise StackError(f"`npm {' '.join(arguments)}` failed in {self.folder}:\n{tail}")

    def _find(self) -> NodeJs:
        if self._nodejs is None:
            self._nodejs = find_nodejs(self._root)
        if self._nodejs is None:
            with self._locked():
                self._nodejs = find_nodejs(self._root)  # another process may have installed it meanwhile
                if self._nodejs is None:
                    with self._announce("Node.js for the frontend (once)"):
                        self._nodejs = install_nodejs(self._root)
        return self._nodejs

    def _source_digest(self) -> str:
        return self._digest([path for path in self._sources() if not path.name.endswith(_TESTS)])

    def _sources(self) -> Iterator[Path]:
        for folder, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if name not in _GENERATED)
            yield from (Path(folder, name) for name in sorted(files))

    def _digest(self, files: list[Path]) -> str:
        digest = hashlib.sha256(str(self.folder).encode())  # links in a moved checkout point to its old location
        for file in files:
            digest.update(f"{file.relative_to(self.folder)}\0".encode() + file.read_bytes() + b"\0")
        return digest.hexdigest()

    # What was done is noted beside the packages, so that removing them also removes the note.

    @property
    def _notes(self) -> Path:
        return self.folder / "node_modules" / ".langgraph-flow.json"

    def _done(self) -> Mapping[str, str]:
        try:
            return dict(json.loads(self._notes.read_text()))
        except (OSError, ValueError):
            return {}

    def _note(self, **changes: str | None) -> None:
        kept = {name: value for name, value in {**self._done(), **changes}.items() if value}
        self._notes.parent.mkdir(exist_ok=True)
        self._notes.write_text(json.dumps(kept))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._root / ".frontend.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
