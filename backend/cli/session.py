"""One command from its beginning to its exit code."""

import asyncio
import io
import shlex
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime

import httpx
import typer
from rich.console import Console
from rich.text import Text

from backend.cli import logins
from backend.cli.address import find_target
from backend.cli.connection import Backend
from backend.cli.errors import INTERRUPTED, SUCCESS, CliError, Refused, SignInNeeded
from backend.cli.safe_text import harmless

Action = Callable[[Backend], Awaitable[int]]
"""What a command does; gives the exit code. It is called again, and has to go on where it was, after a sign-in."""

_ATTEMPTS = 3


def carry_out(url: str | None, token: str | None, make: Callable[[], Action]) -> None:
    """Make the action, do it and end the program."""

    def work() -> int:
        action = make()
        return _perform(Backend(find_target(url, token)), action)

    _end(work)


def sign_in(url: str | None, username: str | None, password: str | None) -> None:
    """Sign in, asking for what is not given, keep the token and end the program."""

    def work() -> int:
        target = find_target(url, None)
        if not target.local and target.url.startswith("http:"):
            say("The password crosses the network unencrypted: this address is not https.", style="yellow")
        login = _ask_and_sign_in(Backend(target), username, password)
        until = datetime.fromtimestamp(login.expires_at).astimezone()
        say(f"Signed in at {target.url} as {login.username} ({login.role}) until {until:%Y-%m-%d %H:%M}.")
        return SUCCESS

    _end(work)


def sign_out(url: str | None) -> None:
    """Forget the token and end the program."""

    def work() -> int:
        target = find_target(url, None)
        say("Signed out." if logins.forget(target.url) else f"Nobody was signed in at {target.url}.")
        return SUCCESS

    _end(work)


def _end(work: Callable[[], int]) -> None:
    """Do the work and end the program. What goes wrong is told on standard error, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may be any
    try:
        code = work()
    except CliError as error:
        report(error)
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    raise typer.Exit(code)


def report(error: CliError) -> None:
    """Tell what went wrong, which fields are to blame and what to do."""
    say(f"Error: {error.message}" if not error.faults else "Error: the request is refused.", style="bold red")
    for pointer, detail in error.faults:
        say(f"  {pointer}: {detail}" if pointer else f"  {detail}")
    if error.advice:
        say(error.advice)
    if isinstance(error, SignInNeeded):
        say("Sign in: python -m backend login")


def say(text: str, *, style: str = "") -> None:
    """Tell the person at the terminal something that is not the command's output."""
    Console(stderr=True, highlight=False).print(Text(harmless(text), style=style), soft_wrap=True)


def command_line(*arguments: str) -> str:
    """A command of this program as it is typed."""
    return shlex.join(["python", "-m", "backend", *arguments])


def _perform(backend: Backend, action: Action) -> int:
    async def attempt() -> int:
        async with backend:
            return await action(backend)

    while True:
        try:
            return asyncio.run(attempt())
        except SignInNeeded as needed:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            say(needed.message)
            _ask_and_sign_in(backend, needed.username)


def _ask_and_sign_in(backend: Backend, username: str | None, password: str | None = None) -> logins.Login:
    """Ask for what is not given, sign in, and keep the token for further commands. Raises `Refused` for a password
    that is wrong, after the third one that was asked for."""
    username = username or typer.prompt("User", err=True)
    attempts = 1 if password else _ATTEMPTS
    while True:
        given = password or typer.prompt(f"Password of {username}", hide_input=True, err=True)
        try:
            login = asyncio.run(_sign_in(backend, username, given))
        except Refused as refused:
            attempts -= 1
            if not attempts or refused.status != httpx.codes.UNAUTHORIZED:
                raise
            say(refused.message)
        else:
            logins.save(backend.target.url, login)
            return login


async def _sign_in(backend: Backend, username: str, password: str) -> logins.Login:
    async with backend:
        return await backend.sign_in(username, password)
