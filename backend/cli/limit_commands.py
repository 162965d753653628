"""The names, arguments and help of `limits …`."""

from typing import Annotated

import typer

from backend.cli.commands import Json, Token, Url

app = typer.Typer(no_args_is_help=True, help="An operator's limits of spend, runs, uploads and streams.")

SUBJECT = "everybody, each_user, user:NAME, role:NAME or team:NAME, as in Airflow."
KIND = "cost_usd, tokens, runs_at_once, upload_bytes, batch_size or streams."


@app.command("list")
def list_limits(
    mine: Annotated[
        bool, typer.Option("--mine", help="Those that apply to you. Without: all, for Op and Admin.")
    ] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List limits, with what is used of them and when they reset."""
    from backend.cli.limits import ListLimits
    from backend.cli.session import run_action

    run_action(url, token, lambda: ListLimits("/limits/mine" if mine else "/limits", as_json=as_json))


@app.command("set")
def set_limit(
    subject: Annotated[str, typer.Argument(help=SUBJECT, metavar="SUBJECT")],
    kind: Annotated[str, typer.Argument(help=KIND, metavar="KIND")],
    limit: Annotated[float, typer.Argument(help="US dollars, or a number. 0: none.", metavar="LIMIT", min=0)],
    per: Annotated[str | None, typer.Option(help="day or month, for cost_usd and tokens.", metavar="PERIOD")] = None,
    limit_id: Annotated[
        str | None, typer.Option("--id", help="The limit's id. Default: made of its subject and kind.", metavar="ID")
    ] = None,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Set a limit, new or in place of the one with its id. For Admins."""
    from backend.cli.limits import SetLimit
    from backend.cli.session import run_action

    body = {"subject": subject, "kind": kind, "limit": limit, **({"period": per} if per else {})}
    run_action(url, token, lambda: SetLimit(limit_id, body, as_json=as_json))


@app.command()
def remove(
    limit_id: Annotated[str, typer.Argument(help="The limit's id, as printed by `limits list`.", metavar="ID")],
    url: Url = None,
    token: Token = None,
) -> None:
    """Remove a limit. For Admins."""
    from backend.cli.limits import RemoveLimit
    from backend.cli.session import run_action

    run_action(url, token, lambda: RemoveLimit(limit_id))
