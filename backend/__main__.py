"""The command line, `python -m backend <command>`. Each group of commands has a module of its own."""

import typer

from backend.cli.audit_commands import app as audit_command
from backend.cli.commands import RUNS
from backend.cli.commands import app as run_commands
from backend.cli.limit_commands import app as limit_commands
from backend.cli.time_travel.commands import app as time_travel_commands
from backend.cli.token_commands import app as token_commands
from backend.doctor.cli import app as doctor_command
from backend.doctor.projects import app as project_commands
from backend.stack.cli import app as stack_commands

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(run_commands)  # without a name, so that its commands are top-level commands
app.add_typer(time_travel_commands)
app.add_typer(token_commands, name="tokens", rich_help_panel=RUNS)
app.add_typer(limit_commands, name="limits", rich_help_panel=RUNS)
app.add_typer(audit_command)
app.add_typer(doctor_command)
app.add_typer(project_commands, name="projects", rich_help_panel="Graphs")
app.add_typer(stack_commands)

if __name__ == "__main__":
    app()
