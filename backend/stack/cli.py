"""The commands that run the stack on this machine, or parts of it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.deployment.layout import Layout, StackError

if TYPE_CHECKING:
    from backend.stack.control import Stack

STACK = "The stack on this machine"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command(rich_help_panel=STACK)
def up() -> None:
    """Set up and start everything; return when everything is healthy."""
    stack = _stack()
    print("Starting LangGraph Flow")
    try:
        with _reporting(StackError):
            fresh = stack.up()
    except KeyboardInterrupt:
        print("\nStopped.")
        raise typer.Exit(130) from None
    print("Everything is running.\n" if fresh else "Already running.\n")
    _welcome(stack)


@app.command(rich_help_panel=STACK)
def down() -> None:
    """Stop everything. Data is kept."""
    with _reporting(StackError):
        stopped = _stack().down()
    print("Stopped." if stopped else "Nothing was running.")


@app.command(rich_help_panel=STACK)
def status() -> None:
    """Show what is running. Exit code 3 if anything is not."""
    now = _stack().status()
    print(f"  {'database':<16}{now.database}")
    for program in now.programs:
        running = (
            f"pid {program.pid}, for {program.uptime:.0f} s" if program.pid else ""
        )  # empty while it is being restarted
        print(f"  {program.name:<16}{program.state.lower():<12}{running}".rstrip())
    if not now.programs:
        print("  Nothing else is running. To start it: make up")
    if not now.programs or any(program.state != "RUNNING" for program in now.programs):
        raise typer.Exit(3)


@app.command(rich_help_panel=STACK)
def token() -> None:
    """Print an access token of the development user and nothing else."""
    from backend.stack.access import fetch_token

    with _reporting(StackError):
        print(fetch_token(_stack().options))


@app.command(
    rich_help_panel=STACK,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def airflow(context: typer.Context) -> None:
    """Run Airflow's own command line on the stack, for example `airflow dags test visual_ai_workflow`."""
    with _reporting(StackError):
        environment = _stack().airflow_environment()
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *context.args], environment)  # noqa: S606  # the user's own command


@app.command(rich_help_panel=STACK, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def frontend(context: typer.Context, script: str) -> None:
    """Run a script of frontend/package.json, for example `frontend lint`; installs Node.js if needed."""
    from backend.stack.frontend import Frontend
    from backend.stack.progress import step

    with _reporting(StackError):
        code = Frontend(Layout.find().root, step).run(script, context.args)
    if code:
        raise typer.Exit(code)


@app.command(rich_help_panel=STACK)
def migrate() -> None:
    """Migrate the visual_ai schema and enable the logins of its roles, as the user in POSTGRES_*."""
    import psycopg

    from backend.core.settings import get_settings
    from backend.db.migrate import migrate as run
    from backend.db.roles import RoleError
    from backend.deployment.environment import given_role_passwords

    with _reporting(RoleError, psycopg.Error):
        done = run(get_settings().database_url, given_role_passwords(os.environ))
    print(f"Applied: {', '.join(done.applied) or 'nothing, everything is up to date'}")
    for warning in done.warnings:
        print(f"note: {warning}")


@app.command(rich_help_panel=STACK)
def serve(
    host: Annotated[str, typer.Option(envvar="VISUAL_AI_BACKEND_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="VISUAL_AI_BACKEND_PORT")] = 8000,
) -> None:
    """Run the backend in the foreground."""
    from backend.api.server import serve as run

    run(host, port)


@app.command(rich_help_panel=STACK)
def openapi(
    output: Annotated[Path | None, typer.Option(help="Write to this file instead of printing.", metavar="FILE")] = None,
) -> None:
    """Print the API's OpenAPI document, from which the frontend's types are generated (frontend/README.md)."""
    from backend.api.main import create_app, openapi_text
    from backend.core.settings import Settings

    text = openapi_text(create_app(Settings(_env_file=None)))
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


@app.command(rich_help_panel=STACK)
def sbom(
    output: Annotated[Path | None, typer.Option(help="Write to this file instead of printing.", metavar="FILE")] = None,
) -> None:
    """Print the software bill of materials (CycloneDX) of the checkout's lock files."""
    import json

    from backend.stack.sbom import bill_of_materials

    with _reporting(StackError):
        text = json.dumps(bill_of_materials(Layout.find().root), indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


def _stack() -> "Stack":
    from backend.stack.control import Stack  # imported here because `serve` doesn't need it

    with _reporting(StackError):
        stack = Stack(Layout.find())
    return stack  # noqa: RET504  # for mypy a context manager may suppress exceptions


@contextmanager
def _reporting(*errors: type[Exception]) -> Iterator[None]:
    """Print these errors without a traceback and exit with code 1."""
    try:
        yield
    except errors as error:
        typer.echo(f"\n{error}", err=True)
        raise typer.Exit(1) from None


def _welcome(stack: "Stack") -> None:
    from backend.stack.access import fetch_token, first_command, first_request
    from backend.stack.supervision import FRONTEND

    options = stack.options
    secret = options.password.get_secret_value()
    shown = secret if secret == "airflow" else "the one you set"  # noqa: S105  # the documented default
    print(f"  Airflow      http://localhost:{options.airflow_port}        user {options.username}, password {shown}")
    print(f"  Backend      http://localhost:{options.backend_port}/docs")
    if any(program.name == FRONTEND for program in stack.status().programs):
        print(f"  Frontend     http://localhost:{options.frontend_port}")
    print(f"  Logs         {stack.layout.logs}, task logs {stack.layout.airflow_home / 'logs'}")
    try:
        token = fetch_token(options)
    except StackError as error:
        print(f"\n  No token yet: {error}")
        return
    print(f"\n  Token (again: make token)\n\n{token}\n")
    print(f"  Try it\n\n{first_request(options, token)}\n")
    print(f"  Or watch it\n\n{first_command(stack.layout)}\n")
    print("  Stop with `make down`. Data is kept.")
