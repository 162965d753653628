"""The command line, `python -m backend <command>`. Each group of commands has a module of its own."""

import typer

from backend.cli.commands import app as run_commands
from backend.doctor.cli import app as doctor_command
from backend.stack.cli import app as stack_commands

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(run_commands)  # without a name, so that its commands are top-level commands
app.add_typer(doctor_command)
app.add_typer(stack_commands)

if __name__ == "__main__":
    app()
