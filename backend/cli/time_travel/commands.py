"""The commands `checkpoints`, `fork` and `compare`: their arguments and help."""

import uuid
from typing import Annotated

import typer

from backend.cli.commands import RUNS, DagId, GiveUpAfter, Json, RunId, Token, Url

app = typer.Typer()

TaskId = Annotated[str, typer.Argument(help="The task's id.", metavar="TASK_ID")]
MapIndex = Annotated[int | None, typer.Option(help="The instance of a mapped task.", metavar="NUMBER", min=0)]
Agent = Annotated[str | None, typer.Option(help="The agent of a team.", metavar="NAME")]
Item = Annotated[int | None, typer.Option(help="The item of a batch.", metavar="NUMBER", min=0)]


@app.command(rich_help_panel=RUNS)
def checkpoints(
    dag_id: DagId,
    dag_run_id: RunId,
    task_id: TaskId,
    show: Annotated[
        str | None, typer.Option("--show", help="Print the state at this checkpoint, as JSON.", metavar="CHECKPOINT")
    ] = None,
    agent: Agent = None,
    item: Item = None,
    map_index: MapIndex = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many at most.", metavar="NUMBER", min=1)] = 50,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the states of a task's agents between the steps of their graphs, newest first."""
    from backend.cli.session import run_action
    from backend.cli.time_travel.actions import ListCheckpoints, task_path

    given = {"map_index": map_index} | ({"agent": agent, "item": item} if show is None else {})
    query = {name: value for name, value in given.items() if value is not None}
    path = task_path(dag_id, dag_run_id, task_id, "checkpoints")
    run_action(url, token, lambda: ListCheckpoints(path, query, show, limit, as_json))


@app.command(rich_help_panel=RUNS)
def fork(
    dag_id: DagId,
    dag_run_id: RunId,
    task_id: TaskId,
    checkpoint: Annotated[
        str | None, typer.Option(help="The state to go on from, as printed by `checkpoints`.", metavar="CHECKPOINT")
    ] = None,
    node: Annotated[str | None, typer.Option(help="Go on from the last time this node ran.", metavar="NODE")] = None,
    agent: Agent = None,
    item: Item = None,
    map_index: MapIndex = None,
    input_json: Annotated[
        str | None,
        typer.Option(help="A file with another input as a JSON object; - for standard input.", metavar="FILE"),
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="A file with values to write to the state first, as JSON.", metavar="FILE")
    ] = None,
    as_node: Annotated[str | None, typer.Option(help="The node they are written as.", metavar="NODE")] = None,
    model: Annotated[str | None, typer.Option(help="Another model for the agent.", metavar="MODEL")] = None,
    system_prompt: Annotated[str | None, typer.Option(help="Another system prompt.", metavar="TEXT")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the new run until it finishes.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Repeating the command with the same key starts no second run.", metavar="KEY")
    ] = None,
    as_json: Json = False,
    give_up_after: GiveUpAfter = 600.0,
    url: Url = None,
    token: Token = None,
) -> None:
    """Start a new run in which an agent goes on from a state that it had in this one.

    What was paid for before that state is not paid for again. Without a checkpoint or node the agent begins anew.
    """
    from backend.cli.inputs import read_object
    from backend.cli.session import run_action
    from backend.cli.time_travel.actions import ForkRun, fork_body, task_path

    key = idempotency_key or f"cli-{uuid.uuid4()}"
    given = {
        "checkpoint_id": checkpoint, "node": node, "agent": agent, "item": item, "map_index": map_index,
        "as_node": as_node, "model": model, "system_prompt": system_prompt,
    }  # fmt: skip

    def action() -> ForkRun:
        body = fork_body(
            given,
            input_json=read_object(input_json) if input_json else None,
            values_json=read_object(values, "--values") if values else None,
        )
        path = task_path(dag_id, dag_run_id, task_id, "fork")
        return ForkRun(path, body, key=key, watch=watch, as_json=as_json, give_up_after=give_up_after)

    run_action(url, token, action)


@app.command(rich_help_panel=RUNS)
def compare(
    left: Annotated[str, typer.Argument(help="A run, as DAG_ID/DAG_RUN_ID.", metavar="LEFT")],
    right: Annotated[str, typer.Argument(help="The other one.", metavar="RIGHT")],
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Compare two runs: their agents and nodes side by side, and what differs in input and result."""
    from backend.cli.session import run_action
    from backend.cli.time_travel.actions import CompareRuns, run_name

    run_action(url, token, lambda: CompareRuns(run_name(left), run_name(right), as_json))
