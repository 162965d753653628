"""The commands' names, arguments and help. What they do is imported when it is done, so that help comes at once."""

import sys
from typing import Annotated

import typer

from backend.core.states import RUN_STATES

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

RUNS = "Runs, on any backend"

DagId = Annotated[str, typer.Argument(help="The workflow.", metavar="DAG_ID")]
RunId = Annotated[str, typer.Argument(help="The run, as `run` and `list` name it.", metavar="DAG_RUN_ID")]
Url = Annotated[
    str | None,
    typer.Option(
        help="The backend's address; by default that of this checkout's stack.",
        metavar="URL",
        envvar="VISUAL_AI_URL",
        rich_help_panel="Where",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        help="A token, if you have not signed in with `login`. Others see what is typed here: better set the variable.",
        metavar="TOKEN",
        envvar="VISUAL_AI_TOKEN",
        show_envvar=True,
        rich_help_panel="Where",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON for scripts, an object on each line.")]
Patience = Annotated[
    float,
    typer.Option("--give-up-after", help="Seconds to wait for a backend that went away.", metavar="SECONDS", min=0),
]


@app.command(rich_help_panel=RUNS)
def run(
    dag_id: Annotated[
        str | None, typer.Argument(help="The workflow; may be left out with --template.", metavar="DAG_ID")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="The template to run, as name or name@version.", metavar="NAME"),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", help="An input, as name=value or name:=JSON; once for each.", metavar="NAME=VALUE"
        ),
    ] = None,
    input_json: Annotated[
        str | None, typer.Option(help="A file with a JSON object of inputs; - for standard input.", metavar="FILE")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="A picture to upload, or its address; becomes the input image_url.", metavar="FILE"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model of all agents whose task names none.", metavar="MODEL")
    ] = None,
    user: Annotated[str | None, typer.Option(help="On whose behalf; needs the role Op.", metavar="USER")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch it to its end.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Repeated with the same key it starts nothing new.", metavar="KEY")
    ] = None,
    as_json: Json = False,
    patience: Patience = 600.0,
    url: Url = None,
    token: Token = None,
) -> None:
    """Start a run; print its id.

    With --watch the exit code tells how it ended, see `watch`.
    """
    from backend.cli.session import carry_out
    from backend.cli.starting import Order, Starting

    order = Order(dag_id, template, inputs or [], input_json, image, model, user, idempotency_key)
    carry_out(url, token, lambda: Starting(order, watch=watch, as_json=as_json, patience=patience))


@app.command(rich_help_panel=RUNS)
def watch(
    dag_id: DagId,
    dag_run_id: RunId,
    after: Annotated[
        int | None, typer.Option(help="Begin behind this event; 0: from the run's first.", metavar="EVENT_ID", min=0)
    ] = None,
    as_json: Json = False,
    patience: Patience = 600.0,
    url: Url = None,
    token: Token = None,
) -> None:
    """Watch a run to its end: its tasks, agents, nodes and what they say.

    Exit code 0: it succeeded, 1: it failed, 3: it was cancelled, 2: wrong or refused, 4: no answer or not signed in.
    Ctrl-C leaves the run alone.
    """
    from backend.cli.following import Following
    from backend.cli.session import carry_out

    carry_out(url, token, lambda: Following(dag_id, dag_run_id, as_json=as_json, cursor=after, patience=patience))


@app.command("list", rich_help_panel=RUNS)
def list_runs(
    dag_id: Annotated[str | None, typer.Argument(help="Only runs of this workflow.", metavar="DAG_ID")] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help=f"Only runs that are {', '.join(RUN_STATES)}; may be given again.", metavar="STATE"),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only runs on behalf of this user.", metavar="USER")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only runs since: 30m, 24h, 7d, or a time as 2026-01-31T12:00.", metavar="TIME")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many at most.", metavar="NUMBER", min=1)] = 20,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List runs, newest first."""
    from backend.cli.reading import Filters, Listing
    from backend.cli.session import carry_out

    filters = Filters(dag_id, state or [], user, since, limit)
    carry_out(url, token, lambda: Listing(filters, as_json=as_json))


@app.command(rich_help_panel=RUNS)
def result(
    dag_id: DagId,
    dag_run_id: RunId,
    partial: Annotated[
        bool, typer.Option("--partial", help="Also what a run that failed or was cancelled had returned.")
    ] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print a run's whole result, as JSON."""
    from backend.cli.reading import Result
    from backend.cli.session import carry_out

    carry_out(url, token, lambda: Result(dag_id, dag_run_id, partial=partial))


@app.command(rich_help_panel=RUNS)
def logs(
    dag_id: DagId,
    dag_run_id: RunId,
    task_id: Annotated[str, typer.Argument(help="The task.", metavar="TASK_ID")],
    try_number: Annotated[
        int | None, typer.Option("--try", help="Which try; by default the latest.", metavar="NUMBER", min=1)
    ] = None,
    map_index: Annotated[
        int | None, typer.Option(help="Which instance of a mapped task.", metavar="NUMBER", min=0)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the try is over.")] = False,
    as_json: Json = False,
    patience: Patience = 600.0,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print a task's log."""
    from backend.cli.reading import LogReading
    from backend.cli.session import carry_out

    carry_out(
        url,
        token,
        lambda: LogReading(
            dag_id,
            dag_run_id,
            task_id,
            try_number=try_number,
            map_index=map_index,
            follow=follow,
            as_json=as_json,
            patience=patience,
        ),
    )


@app.command(rich_help_panel=RUNS)
def cancel(dag_id: DagId, dag_run_id: RunId, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Stop a run; its agents give up their model calls."""
    from backend.cli.changing import Change
    from backend.cli.session import carry_out

    carry_out(url, token, lambda: Change(dag_id, dag_run_id, "cancel", as_json=as_json, then=None))


@app.command(rich_help_panel=RUNS)
def retry(
    dag_id: DagId,
    dag_run_id: RunId,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch it to its end.")] = False,
    as_json: Json = False,
    patience: Patience = 600.0,
    url: Url = None,
    token: Token = None,
) -> None:
    """Run again what failed of a run; agents go on from their checkpoints."""
    from backend.cli.changing import Change
    from backend.cli.following import Following
    from backend.cli.session import carry_out

    def action() -> Change:
        then = Following(dag_id, dag_run_id, as_json=as_json, patience=patience, known=True) if watch else None
        return Change(dag_id, dag_run_id, "retry", as_json=as_json, then=then)

    carry_out(url, token, action)


@app.command(rich_help_panel=RUNS)
def login(
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="Your Airflow user; asked for if not given.", metavar="USER")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    url: Url = None,
) -> None:
    """Sign in; the token is kept for further commands, in a file that only you can read."""
    from backend.cli.session import sign_in

    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    sign_in(url, username, password)


@app.command(rich_help_panel=RUNS)
def logout(url: Url = None) -> None:
    """Remove the token that `login` has kept."""
    from backend.cli.session import sign_out

    sign_out(url)
