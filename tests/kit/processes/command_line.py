"""The command line as a user runs it: in a separate process, with pipes or on a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.processes.reaper import marker
from tests.kit.waiting import eventually

ROOT = Path(__file__).resolve().parents[3]
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


@dataclass(frozen=True)
class Done:
    """A finished command: its exit code and its output."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its output, parsed as one JSON object per line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Running:
    """A running command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.out = b""
        self.err = b""
        self._reading = asyncio.gather(self._read(process.stdout, "out"), self._read(process.stderr, "err"))

    async def _read(self, pipe: asyncio.StreamReader | None, name: str) -> None:
        while pipe is not None and (piece := await pipe.read(65_536)):
            setattr(self, name, getattr(self, name) + piece)

    async def says(self, text: str, *, error: bool = False) -> None:
        """Wait until it has printed this text."""
        try:
            await eventually(lambda: self._has_printed(text, error) or self._process.returncode is not None, 20)
            await eventually(lambda: self._has_printed(text, error), 1)
        except TimeoutError:
            raise AssertionError(f"{text!r} not in:\n{self.out.decode()}\n{self.err.decode()}") from None

    def _has_printed(self, text: str, error: bool) -> bool:
        return text in (self.err if error else self.out).decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def done(self) -> Done:
        """Wait for it to exit."""
        async with asyncio.timeout(60):
            code = await self._process.wait()
            await self._reading
        return Done(code, self.out.decode(), self.err.decode())

    def kill(self) -> None:
        """Kill it unless it has exited."""
        if self._process.returncode is None:
            self._process.kill()


class CommandLine:
    """`python -m backend` with an environment that inherits nothing from the user who runs the tests."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "TERM": "xterm-256color",
            **marker(),
            **variables,
        }

    async def run(self, *arguments: str, stdin: str = "", **variables: str) -> Done:
        """Run a command until it exits."""
        async with self.started(*arguments, stdin=stdin, **variables) as running:
            return await running.done()

    @asynccontextmanager
    async def started(self, *arguments: str, stdin: str = "", **variables: str) -> AsyncIterator[Running]:
        """Run a command inside a `with` block; it is killed at the end of the block."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "backend", *arguments, cwd=ROOT, env={**self.environment, **variables},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            preexec_fn=_restore_interrupts,
        )  # fmt: skip
        running = Running(process)
        assert process.stdin is not None
        process.stdin.write(stdin.encode())
        process.stdin.close()
        try:
            yield running
        finally:
            running.kill()
            await running.done()

    @asynccontextmanager
    async def terminal(
        self, *arguments: str, rows: int = 24, columns: int = 100, variables: Mapping[str, str] | None = None
    ) -> AsyncIterator[Terminal]:
        """Run a command on a terminal of this size."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "backend", *arguments, cwd=ROOT, env={**self.environment, **(variables or {})},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        terminal = Terminal(master, process)
        try:
            yield terminal
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            terminal.close()


def _restore_interrupts() -> None:
    """Handle SIGINT in the default way; background jobs, such as tests may be, inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _take_terminal() -> None:
    """Make the terminal the controlling one, so that Ctrl-C reaches the process."""
    _restore_interrupts()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A terminal: what is shown on it, and what is typed into it."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self._master = master
        self._process = process
        self._drained = asyncio.Event()
        self.raw = ""
        os.set_blocking(master, False)
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            piece = os.read(self._master, 65_536)
        except BlockingIOError:
            return
        except OSError:  # the other end is closed
            piece = b""
        if piece:
            self.raw += piece.decode(errors="replace")
        else:
            asyncio.get_running_loop().remove_reader(self._master)
            self._drained.set()

    @property
    def text(self) -> str:
        """Everything that was shown, without escape sequences."""
        return _ESCAPES.sub("", self.raw)

    def forget(self) -> None:
        """Discard what was shown so far."""
        self.raw = ""

    async def shows(self, *texts: str) -> None:
        """Wait until all of these texts were shown."""
        try:
            await eventually(lambda: all(text in self.text for text in texts), 20)
        except TimeoutError:
            raise AssertionError(f"{texts} not in:\n{self.text[-3_000:]}") from None

    def type(self, text: str) -> None:
        """Type this; `\\r` is Return and `\\x03` is Ctrl-C."""
        os.write(self._master, text.encode())

    async def ended(self) -> int:
        """Wait until the command has exited and all its output was read. Returns its exit code."""
        async with asyncio.timeout(30):
            code = await self._process.wait()
            await self._drained.wait()
        return code

    def close(self) -> None:
        """Close the terminal."""
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
