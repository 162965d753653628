"""The cost of the operators for a DAG file: the same file with them and with a plain operator, in fresh processes."""

import subprocess
import sys

from tests.benchmarks.report import Goal, Result, median
from tests.kit.processes.stack import ROOT, RunningStack

RUNS = 10
GOAL_MS = 50.0

# The DAG processor has `airflow.sdk` long before it meets a DAG file.
_TIMED = """
import sys, time
sys.path[:0] = [{plugins!r}]
from datetime import datetime
from airflow.sdk import DAG, BaseOperator
{before}
started = time.perf_counter()
{imports}
with DAG("measured", schedule=None, start_date=datetime(2024, 1, 1)):
    {operators}
print((time.perf_counter() - started) * 1000)
"""
_PLAIN_CLASS = """
class Plain(BaseOperator):
    template_fields = ("command", "env")
    def __init__(self, *, command, env=None, **kwargs):
        super().__init__(**kwargs)
        self.command, self.env = command, env
"""
_PLAIN = {
    "before": _PLAIN_CLASS,
    "imports": "",
    "operators": 'Plain(task_id="one", command="true", env={"a": "b"}); Plain(task_id="two", command="true")',
}
_OURS = {
    "before": "",
    "imports": "from visual_ai_operators import LangGraphOperator, MultiAgentOperator",
    "operators": (
        'LangGraphOperator(task_id="one", agent_config={"type": "vision"}, '
        'input_data={"image_url": "{{ dag_run.conf.image_url }}"}); '
        'MultiAgentOperator(task_id="two", agents=[{"name": "a", "type": "vision", "input_data": {...}}, '
        '{"name": "b", "type": "text", "input_data": {...}}])'
    ),
}


def measure(stack: RunningStack | None = None, *, runs: int = RUNS) -> Result:
    """Milliseconds to import the operators and create two of them, minus the time of two plain ones."""
    samples: dict[str, list[float]] = {"plain_ms": [], "operators_ms": []}
    for turn in range(runs + 1):
        for name, parts in (("plain_ms", _PLAIN), ("operators_ms", _OURS)):
            taken = _run(parts)
            if turn:  # the first run compiles bytecode and warms the disk cache
                samples[name].append(taken)
    figures = {name: median(values) for name, values in samples.items()}
    figures["added_ms"] = figures["operators_ms"] - figures["plain_ms"]
    goals = [Goal("milliseconds added to a DAG file", figures["added_ms"], GOAL_MS)]
    return Result("import_cost", figures, goals, samples, {"runs": runs})


def _run(parts: dict[str, str]) -> float:
    program = _TIMED.format(plugins=str(ROOT / "airflow" / "plugins"), **parts)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])
