"""The arguments and help of `audit`."""

from typing import Annotated

import typer

from backend.cli.commands import RUNS, Json, Token, Url

app = typer.Typer()


@app.command(rich_help_panel=RUNS)
def audit(
    action: Annotated[
        str | None, typer.Option(help="Only this action, such as sign_in or run.cancel.", metavar="ACTION")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only what this user did.", metavar="USER")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only done, refused or failed.", metavar="OUTCOME")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only since an age (30m, 24h, 7d) or a time (2026-01-31T12:00).", metavar="TIME"),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only before an age or a time.", metavar="TIME")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", help="Maximum number of entries.", metavar="NUMBER", min=1)
    ] = 50,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print the audit log, newest first. For Admins."""
    from backend.cli.audit import ListAudit
    from backend.cli.reading import moment_of
    from backend.cli.session import run_action

    def list_audit() -> ListAudit:
        given = {
            "action": action,
            "user": user,
            "outcome": outcome,
            "since": moment_of(since, "--since"),
            "until": moment_of(until, "--until"),
        }
        query = {name: value for name, value in given.items() if value is not None}
        return ListAudit(query, limit, as_json=as_json)

    run_action(url, token, list_audit)
