"""The commands that run the stack."""

import os
import sys
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
    """Set up and start everything; return when all is healthy."""
    stack = _stack()
    print("Starting LangGraph Flow")
    try:
        fresh = stack.up()
    except StackError as error:
        raise _fail(error) from None
    except KeyboardInterrupt:
        print("\nStopped.")
        raise typer.Exit(130) from None
    print("Everything runs.\n" if fresh else "Already running.\n")
    _welcome(stack)


@app.command(rich_help_panel=STACK)
def down() -> None:
    """Stop everything; the data stay."""
    try:
        stopped = _stack().down()
    except StackError as error:
        raise _fail(error) from None
    print("Stopped." if stopped else "Nothing was running.")


@app.command(rich_help_panel=STACK)
def status() -> None:
    """Show what runs. Exit code 3 when something doesn't."""
    now = _stack().status()
    print(f"  {'database':<16}{now.database}")
    for program in now.programs:
        running = f"pid {program.pid}, for {program.uptime:.0f} s" if program.pid else ""  # it is being started again
        print(f"  {program.name:<16}{program.state.lower():<12}{running}".rstrip())
    if not now.programs:
        print("  Nothing else runs. Start it: make up")
    if not now.programs or any(program.state != "RUNNING" for program in now.programs):
        raise typer.Exit(3)


@app.command(rich_help_panel=STACK)
def token() -> None:
    """Print an access token of the development user, and nothing else."""
    from backend.stack.access import fetch_token

    try:
        print(fetch_token(_stack().options))
    except StackError as error:
        raise _fail(error) from None


@app.command(
    rich_help_panel=STACK,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def airflow(context: typer.Context) -> None:
    """Run Airflow's own command line against the stack, as in `airflow dags test visual_ai_workflow`."""
    try:
        environment = _stack().airflow_environment()
    except StackError as error:
        raise _fail(error) from None
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *context.args], environment)  # noqa: S606  # the user's own command


@app.command(rich_help_panel=STACK, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def frontend(context: typer.Context, script: str) -> None:
    """Run a script of frontend/package.json with the Node.js there is, as in `frontend lint`."""
    from backend.stack.frontend import Frontend
    from backend.stack.progress import step

    try:
        code = Frontend(Layout.find().root, step).run(script, context.args)
    except StackError as error:
        raise _fail(error) from None
    if code:
        raise typer.Exit(code)


@app.command(rich_help_panel=STACK)
def migrate() -> None:
    """Bring the visual_ai schema up to date and make the roles' logins work, as the user of POSTGRES_*."""
    import psycopg

    from backend.core.settings import get_settings
    from backend.db.migrate import migrate as run
    from backend.db.roles import RoleError
    from backend.deployment.environment import given_role_passwords

    try:
        done = run(get_settings().database_url, given_role_passwords(os.environ))
    except (RoleError, psycopg.Error) as error:
        raise _fail(error) from None
    print(f"Applied: {', '.join(done.applied) or 'nothing, all is up to date'}")
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
    output: Annotated[Path | None, typer.Option(help="Write it there instead of printing it.", metavar="FILE")] = None,
) -> None:
    """Print the API's OpenAPI document. The frontend's types come from it, see frontend/README.md."""
    from backend.api.main import create_app
    from backend.api.openapi import document_text
    from backend.core.settings import Settings

    text = document_text(create_app(Settings(_env_file=None)))
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


def _stack() -> "Stack":
    from backend.stack.control import Stack  # late: `serve` starts without it

    try:
        return Stack(Layout.find())
    except StackError as error:
        raise _fail(error) from None


def _fail(error: Exception) -> typer.Exit:
    typer.echo(f"\n{error}", err=True)
    return typer.Exit(1)


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
    print(f"  Logs         {stack.layout.logs}, tasks' logs {stack.layout.airflow_home / 'logs'}")
    try:
        token = fetch_token(options)
    except StackError as error:
        print(f"\n  No token yet: {error}")
        return
    print(f"\n  Token (again: make token)\n\n{token}\n")
    print(f"  Try it\n\n{first_request(options, token)}\n")
    print(f"  Or watch it at work\n\n{first_command(stack.layout)}\n")
    print("  Stop with `make down`; the data stay.")
