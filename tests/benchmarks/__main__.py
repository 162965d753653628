"""`python -m tests.benchmarks [NAME …]`: run benchmarks on a stack of their own, print and store the results."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from tests.benchmarks import (
    answers,
    asking,
    batch,
    big,
    effects,
    faults,
    fuzz,
    import_cost,
    loops,
    page,
    parallel,
    polling_rival,
    rate_limit,
    report,
    state_latency,
    streams,
    task_overhead,
    trigger,
    waiting,
)
from tests.benchmarks.report import Result
from tests.kit.processes.stack import ROOT, RunningStack, running_stack

ON_A_STACK: dict[str, Callable[[RunningStack], Result]] = {
    "task_overhead": task_overhead.measure,
    "trigger": trigger.measure,
    "polling_rival": polling_rival.measure,
    "state_latency": state_latency.measure,
}
"""Benchmarks that need a running stack. Their DAGs are in `dags/`."""

ALONE: dict[str, Callable[[], Result]] = {
    "import_cost": import_cost.measure,
    "streams": streams.measure,
    "parallel": parallel.measure,
    "batch": batch.measure,
    "loops": loops.measure,
    "waiting": waiting.measure,
    "rate_limit": rate_limit.measure,
    "page": page.measure,
}
"""Benchmarks that start what they need themselves. They run first, while nothing else is running."""

ONLY_BY_NAME: dict[str, Callable[[], Result]] = {
    "faults": faults.measure,
    "answers": answers.measure,
    "asking": asking.measure,
    "effects": effects.measure,
    "fuzz": fuzz.measure,
    "big": big.measure,
}
"""What takes most of an hour, or finds faults and measures nothing."""

RESULTS = ROOT / "bench-results"
DAGS = Path(__file__).with_name("dags")


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="The benchmarks to run; without a name, all that take minutes."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 1 if a goal is missed.")] = False,
) -> None:
    """Run benchmarks of latency, throughput and overhead."""
    known = [*ALONE, *ON_A_STACK, *ONLY_BY_NAME]
    if unknown := [name for name in names or [] if name not in known]:
        raise typer.BadParameter(f"unknown benchmark {', '.join(unknown)}; available: {', '.join(known)}")
    wanted = names or [*ALONE, *ON_A_STACK]
    results: list[Result] = []

    def keep(result: Result) -> None:
        results.append(result)
        typer.echo(f"  {result.name}: {report.write(result, RESULTS).relative_to(ROOT)}", err=True)

    for name, measure in (ALONE | ONLY_BY_NAME).items():
        if name in wanted:
            keep(measure())
    on_a_stack = [name for name in ON_A_STACK if name in wanted]
    with running_stack({"VISUAL_AI_FRONTEND": "false"}) if on_a_stack else nullcontext() as stack:
        if stack is not None:
            shutil.copytree(DAGS, stack.dags, dirs_exist_ok=True)
        for name in on_a_stack:
            assert stack is not None
            keep(ON_A_STACK[name](stack))
    report.show(results)
    if strict and not all(goal.met for result in results for goal in result.goals):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
