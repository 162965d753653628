"""Runs one command: connects to the backend, signs in when asked to, and exits with the command's code."""

import asyncio
import io
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import httpx
import typer
from rich.console import Console
from rich.text import Text

from backend.cli import logins
from backend.cli.address import find_target
from backend.cli.connection import Backend
from backend.cli.errors import INTERRUPTED, CliError, Refused, SignInNeeded
from backend.cli.formatting import safe

Action = Callable[[Backend], Awaitable[int]]
"""What a command does; returns the exit code. After a sign-in it is called again and must continue where it stopped."""

_PASSWORD_PROMPTS = 3


def run_action(url: str | None, token: str | None, make: Callable[[], Action]) -> None:
    """Create the action, run it and exit."""
    with _reporting_errors():
        action = make()
        code = _perform(Backend(find_target(url, token)), action)
    raise typer.Exit(code)


def sign_in(url: str | None, username: str | None, password: str | None) -> None:
    """Sign in, prompting for missing credentials, and save the token."""
    with _reporting_errors():
        target = find_target(url, None)
        if not target.local and target.url.startswith("http:"):
            say("The password is sent unencrypted: this address is not https.", style="yellow")
        login = _ask_and_sign_in(Backend(target), username, password)
    until = datetime.fromtimestamp(login.expires_at).astimezone()
    say(f"Signed in at {target.url} as {login.username} ({login.role}) until {until:%Y-%m-%d %H:%M}.")


def sign_out(url: str | None) -> None:
    """Revoke the saved token and remove it, even if the backend doesn't answer."""
    with _reporting_errors():
        target = find_target(url, None)
        login = logins.load(target.url)
        if login is not None:
            try:
                asyncio.run(_revoke(Backend(target)))
            except CliError as error:
                say(f"The token could not be revoked: {error.message}", style="yellow")
        say("Signed out." if logins.forget(target.url) else f"You were not signed in at {target.url}.")


async def _revoke(backend: Backend) -> None:
    async with backend:
        await backend.sign_out()


@contextmanager
def _reporting_errors() -> Iterator[None]:
    """Report errors on standard error, without a traceback, and exit with their codes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the terminal may have any encoding
    try:
        yield
    except CliError as error:
        report(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def report(error: CliError) -> None:
    """Print what went wrong, which fields are invalid and what to do next."""
    say(f"Error: {error.message}" if not error.faults else "Error: the request was refused.", style="bold red")
    for pointer, detail in error.faults:
        say(f"  {pointer}: {detail}" if pointer else f"  {detail}")
    for note in getattr(error, "__notes__", ()):
        say(note)
    if isinstance(error, SignInNeeded):
        say("Sign in: python -m backend login")


def say(text: str, *, style: str = "") -> None:
    """Print a message that isn't the command's output to standard error."""
    Console(stderr=True, highlight=False).print(Text(safe(text), style=style), soft_wrap=True)


def command_line(*arguments: str) -> str:
    """A command of this program as the user would type it."""
    return shlex.join(["python", "-m", "backend", *arguments])


def _perform(backend: Backend, action: Action) -> int:
    async def act() -> int:
        async with backend:
            return await action(backend)

    while True:
        try:
            return asyncio.run(act())
        except SignInNeeded as needed:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            say(needed.message)
            _ask_and_sign_in(backend, needed.username)


def _ask_and_sign_in(backend: Backend, username: str | None, password: str | None = None) -> logins.Login:
    """Prompt for missing credentials, sign in and save the token for later commands.

    Raises `Refused` for a wrong password: at once for `password`, after three prompts otherwise.
    """
    username = username or typer.prompt("User", err=True)
    remaining = 1 if password else _PASSWORD_PROMPTS
    while True:
        given = password or typer.prompt(f"Password of {username}", hide_input=True, err=True)
        try:
            login = asyncio.run(_sign_in(backend, username, given))
        except Refused as refused:
            remaining -= 1
            if not remaining or refused.status != httpx.codes.UNAUTHORIZED:
                raise
            say(refused.message)
        else:
            logins.save(backend.target.url, login)
            return login


async def _sign_in(backend: Backend, username: str, password: str) -> logins.Login:
    async with backend:
        return await backend.sign_in(username, password)
