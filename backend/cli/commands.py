"""The commands' names, arguments and help. Each command imports its implementation, so that help appears quickly."""

import sys
from typing import Annotated

import typer

from backend.core.states import RUN_STATES

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

RUNS = "Runs, on any backend"

DagId = Annotated[str, typer.Argument(help="The workflow's id.", metavar="DAG_ID")]
RunId = Annotated[str, typer.Argument(help="The run's id, as printed by `run` and `list`.", metavar="DAG_RUN_ID")]
Url = Annotated[
    str | None,
    typer.Option(
        help="The backend's address. Default: this checkout's stack.",
        metavar="URL",
        envvar="VISUAL_AI_URL",
        rich_help_panel="Connection",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        help="A token, if you have not signed in with `login`. Prefer the variable: other users can see arguments.",
        metavar="TOKEN",
        envvar="VISUAL_AI_TOKEN",
        show_envvar=True,
        rich_help_panel="Connection",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts, one object per line.")]
GiveUpAfter = Annotated[
    float,
    typer.Option("--give-up-after", help="Seconds to wait for an unreachable backend.", metavar="SECONDS", min=0),
]


@app.command(rich_help_panel=RUNS)
def run(
    dag_id: Annotated[
        str | None, typer.Argument(help="The workflow's id; optional with --template.", metavar="DAG_ID")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="The template to run, as name or name@version.", metavar="NAME"),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="An input, as name=value or name:=JSON. Repeatable.", metavar="NAME=VALUE"),
    ] = None,
    input_json: Annotated[
        str | None, typer.Option(help="A file with all inputs as a JSON object; - for standard input.", metavar="FILE")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="A picture to upload, or its address. Sets the input image_url.", metavar="FILE"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model for agents whose task names none.", metavar="MODEL")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Act on behalf of this user. Requires the role Op.", metavar="USER")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the run until it finishes.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Repeating the command with the same key starts no second run.", metavar="KEY")
    ] = None,
    as_json: Json = False,
    give_up_after: GiveUpAfter = 600.0,
    url: Url = None,
    token: Token = None,
) -> None:
    """Start a run and print its id.

    With --watch, the exit code says how the run ended; see `watch`.
    """
    from backend.cli.changing import RunRequest, StartRun
    from backend.cli.session import run_action

    request = RunRequest(dag_id, template, inputs or [], input_json, image, model, user, idempotency_key)
    run_action(url, token, lambda: StartRun(request, watch=watch, as_json=as_json, give_up_after=give_up_after))


@app.command(rich_help_panel=RUNS)
def watch(
    dag_id: DagId,
    dag_run_id: RunId,
    after: Annotated[
        int | None,
        typer.Option(help="Start after this event; 0 shows all events.", metavar="EVENT_ID", min=0),
    ] = None,
    as_json: Json = False,
    give_up_after: GiveUpAfter = 600.0,
    url: Url = None,
    token: Token = None,
) -> None:
    """Watch a run until it finishes: its tasks, agents, nodes and their answers.

    Exit codes: 0 the run succeeded, 1 it failed, 3 it was cancelled, 2 invalid or refused request, 4 no response or not
    signed in. Ctrl-C does not stop the run.
    """
    from backend.cli.session import run_action
    from backend.cli.watch import Watch

    run_action(
        url, token, lambda: Watch(dag_id, dag_run_id, as_json=as_json, cursor=after, give_up_after=give_up_after)
    )


@app.command("list", rich_help_panel=RUNS)
def list_runs(
    dag_id: Annotated[str | None, typer.Argument(help="Only runs of this workflow.", metavar="DAG_ID")] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help=f"Only runs in this state: {', '.join(RUN_STATES)}. Repeatable.", metavar="STATE"),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only runs on behalf of this user.", metavar="USER")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only runs since an age (30m, 24h, 7d) or a time (2026-01-31T12:00).", metavar="TIME"),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Maximum number of runs.", metavar="NUMBER", min=1)] = 20,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List runs, newest first."""
    from backend.cli.reading import Filters, ListRuns
    from backend.cli.session import run_action

    filters = Filters(dag_id, state or [], user, since, limit)
    run_action(url, token, lambda: ListRuns(filters, as_json=as_json))


@app.command(rich_help_panel=RUNS)
def result(
    dag_id: DagId,
    dag_run_id: RunId,
    partial: Annotated[
        bool, typer.Option("--partial", help="Include the results of a failed or cancelled run's finished agents.")
    ] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print a run's whole result, as JSON."""
    from backend.cli.reading import ShowResult
    from backend.cli.session import run_action

    run_action(url, token, lambda: ShowResult(dag_id, dag_run_id, partial=partial))


@app.command(rich_help_panel=RUNS)
def logs(
    dag_id: DagId,
    dag_run_id: RunId,
    task_id: Annotated[str, typer.Argument(help="The task's id.", metavar="TASK_ID")],
    try_number: Annotated[
        int | None, typer.Option("--try", help="The try. Default: the latest.", metavar="NUMBER", min=1)
    ] = None,
    map_index: Annotated[
        int | None, typer.Option(help="The instance of a mapped task.", metavar="NUMBER", min=0)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the try has finished.")] = False,
    as_json: Json = False,
    give_up_after: GiveUpAfter = 600.0,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print a task's log."""
    from backend.cli.reading import ShowLogs
    from backend.cli.session import run_action

    run_action(
        url,
        token,
        lambda: ShowLogs(
            dag_id,
            dag_run_id,
            task_id,
            try_number=try_number,
            map_index=map_index,
            follow=follow,
            as_json=as_json,
            give_up_after=give_up_after,
        ),
    )


@app.command(rich_help_panel=RUNS)
def cancel(dag_id: DagId, dag_run_id: RunId, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Cancel a run and the model calls of its agents."""
    from backend.cli.changing import ChangeRun
    from backend.cli.session import run_action

    run_action(url, token, lambda: ChangeRun(dag_id, dag_run_id, "cancel", as_json=as_json, then=None))


@app.command(rich_help_panel=RUNS)
def retry(
    dag_id: DagId,
    dag_run_id: RunId,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the run until it finishes.")] = False,
    as_json: Json = False,
    give_up_after: GiveUpAfter = 600.0,
    url: Url = None,
    token: Token = None,
) -> None:
    """Retry what failed in a run; agents resume from their checkpoints."""
    from backend.cli.changing import ChangeRun
    from backend.cli.session import run_action
    from backend.cli.watch import Watch

    def action() -> ChangeRun:
        then = Watch(dag_id, dag_run_id, as_json=as_json, give_up_after=give_up_after, known=True) if watch else None
        return ChangeRun(dag_id, dag_run_id, "retry", as_json=as_json, then=then)

    run_action(url, token, action)


@app.command(rich_help_panel=RUNS)
def questions(
    state: Annotated[str, typer.Option(help="open, answered or closed.", metavar="STATE")] = "open",
    mine: Annotated[bool, typer.Option("--mine", help="Only those assigned to you.")] = False,
    dag_id: Annotated[str | None, typer.Option("--dag", help="Only of this workflow.", metavar="DAG_ID")] = None,
    dag_run_id: Annotated[str | None, typer.Option("--run", help="Only of this run.", metavar="DAG_RUN_ID")] = None,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List what runs wait for from people, oldest first."""
    from backend.cli.questions import ListQuestions
    from backend.cli.session import run_action

    query: dict[str, object] = {"state": state, "dag_id": dag_id, "dag_run_id": dag_run_id}
    given = {name: value for name, value in query.items() if value is not None}
    run_action(url, token, lambda: ListQuestions(given | ({"mine": True} if mine else {}), as_json=as_json))


@app.command(rich_help_panel=RUNS)
def answer(
    question_id: Annotated[str, typer.Argument(help="The question's id, as printed by `questions`.", metavar="ID")],
    text: Annotated[str | None, typer.Argument(help="The answer, as text.", metavar="[TEXT]")] = None,
    value: Annotated[str | None, typer.Option("--json-answer", help="The answer, as JSON.", metavar="JSON")] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Approve what the agent is about to do.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Reject it.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Answer a question, once and for all; the run goes on from there."""
    from backend.cli.inputs import answer_body
    from backend.cli.questions import AnswerQuestion
    from backend.cli.session import run_action

    run_action(
        url, token, lambda: AnswerQuestion(question_id, answer_body(text, value, approve, reject), as_json=as_json)
    )


@app.command(rich_help_panel=RUNS)
def assign(
    question_id: Annotated[str, typer.Argument(help="The question's id, as printed by `questions`.", metavar="ID")],
    users: Annotated[list[str], typer.Argument(help="Airflow users who shall answer it.", metavar="USER...")],
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Hand a question on to others; only they and Admins may answer it then."""
    from backend.cli.questions import AssignQuestion
    from backend.cli.session import run_action

    run_action(url, token, lambda: AssignQuestion(question_id, users, as_json=as_json))


@app.command(rich_help_panel=RUNS)
def login(
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="Your Airflow user. Default: prompt for it.", metavar="USER")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    url: Url = None,
) -> None:
    """Sign in and save the token for later commands, in a file that only you can read."""
    from backend.cli.session import sign_in

    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    sign_in(url, username, password)


@app.command(rich_help_panel=RUNS)
def logout(
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Sign out on all devices.")] = False,
    user: Annotated[
        str | None, typer.Option(help="Sign another user out on all devices. For Admins.", metavar="USER")
    ] = None,
    service_tokens: Annotated[
        bool, typer.Option("--service-tokens", help="With these two: also revoke the user's service tokens.")
    ] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Sign out: the token that `login` saved is revoked and removed."""
    from backend.cli.session import run_action, sign_out

    if user is None and not everywhere:
        sign_out(url)
        return
    from backend.cli.changing import SignOutEverywhere

    run_action(url, token, lambda: SignOutEverywhere(user, service_tokens=service_tokens))
