"""The result of a benchmark, and how it is stored and printed."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

PACKAGES = ("apache-airflow", "langgraph", "langchain-core", "fastapi", "sqlalchemy", "psycopg")


@dataclass(frozen=True)
class Goal:
    """A figure that must not exceed `limit` or, with `at_least`, must reach it."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure meets the goal."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Result:
    """The result of a benchmark: figures, with their units in their names, and the samples behind them."""

    name: str
    figures: dict[str, float]
    goals: Sequence[Goal] = ()
    samples: dict[str, list[float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile, by linear interpolation between the closest ranks."""
    return float(np.percentile(np.asarray(values, dtype=float), percent))


def median(values: Sequence[float]) -> float:
    """The 50th percentile."""
    return percentile(values, 50)


def machine() -> dict[str, Any]:
    """The hardware and software that the figures depend on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "packages": {name: version(name) for name in PACKAGES},
    }


def write(result: Result, directory: Path) -> Path:
    """Store a result as JSON. The file's name has the benchmark and the time."""
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    path = directory / f"{result.name}-{now:%Y%m%dT%H%M%SZ}.json"
    goals = [{**asdict(goal), "met": goal.met} for goal in result.goals]
    content = {**asdict(result), "goals": goals, "measured_at": now.isoformat(), "machine": machine()}
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def show(results: Sequence[Result]) -> None:
    """Print the figures, and whether the goals are met."""
    console = Console()
    table = Table(title="Figures", title_justify="left")
    table.add_column("benchmark")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for result in results:
        for name, value in result.figures.items():
            table.add_row(result.name, name, f"{value:,.3f}")
    console.print(table)
    goals = Table(title="Goals", title_justify="left")
    for column in ("benchmark", "goal", "value", "limit", ""):
        goals.add_column(column, justify="right" if column in ("value", "limit") else "left")
    for result in results:
        for goal in result.goals:
            verdict = "[green]met[/green]" if goal.met else "[red]missed[/red]"
            limit = f"{'≥' if goal.at_least else '≤'} {goal.limit:,.3f}"
            goals.add_row(result.name, goal.name, f"{goal.value:,.3f}", limit, verdict)
    if goals.row_count:
        console.print(goals)
