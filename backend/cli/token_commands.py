"""The names, arguments and help of `tokens …`."""

from typing import Annotated, Any

import typer

from backend.cli.commands import Json, Token, Url

app = typer.Typer(no_args_is_help=True, help="Service tokens, with which machines use the API.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the token is for.", metavar="NAME")],
    scope: Annotated[
        list[str] | None, typer.Option(help="read, trigger or stop. Repeatable. Default: read.", metavar="SCOPE")
    ] = None,
    dag: Annotated[
        list[str] | None, typer.Option(help="Only for this workflow. Repeatable. Default: all.", metavar="DAG_ID")
    ] = None,
    days: Annotated[int, typer.Option(help="For how long it is valid.", metavar="DAYS", min=1, max=366)] = 90,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Create a token and print it. It is shown only once."""
    from backend.cli.session import run_action
    from backend.cli.tokens import CreateToken

    body: dict[str, Any] = {"name": name, "scopes": scope or ["read"], "expires_in_days": days}
    if dag:
        body["dag_ids"] = dag
    run_action(url, token, lambda: CreateToken(body, as_json=as_json))


@app.command("list")
def list_tokens(
    user: Annotated[str | None, typer.Option(help="Another user's. For Admins.", metavar="USER")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Those of all users. For Admins.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List your tokens, newest first, with those that are no longer valid."""
    from backend.cli.session import run_action
    from backend.cli.tokens import ListTokens

    query: dict[str, Any] = {"everyone": True} if everyone else {"user_id": user} if user else {}
    run_action(url, token, lambda: ListTokens(query, as_json=as_json))


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="The token's id, as printed by `tokens list`.", metavar="ID")],
    url: Url = None,
    token: Token = None,
) -> None:
    """Revoke a token: yours or, as an Admin, anybody's."""
    from backend.cli.session import run_action
    from backend.cli.tokens import RevokeToken

    run_action(url, token, lambda: RevokeToken(token_id))
