"""Draws a run as a tree that fits the terminal: tasks, their agents, and the agents' nodes."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from backend.cli import formatting
from backend.cli.formatting import first_line, last_line, safe
from backend.cli.timeline import FAILED, Agent, Data, LargeTask, Node, Task, Timeline

FINISHED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed", "cancelled"})
_ACTIVE = frozenset({"running", "deferred", "restarting", "up_for_retry", "up_for_reschedule"})

_STYLES = {
    "success": "green", "failed": "bold red", "cancelled": "yellow", "running": "cyan", "deferred": "cyan",
    "up_for_retry": "yellow", "upstream_failed": "red", "awaiting_input": "magenta",
}  # fmt: skip
_SYMBOLS = {"success": "✓", "failed": "✗", "cancelled": "■", "running": "●", "deferred": "●", "up_for_retry": "↻",
          "upstream_failed": "✗", "skipped": "–", "awaiting_input": "?"}  # fmt: skip
_ASCII_SYMBOLS = {"success": "+", "failed": "x", "cancelled": "#", "running": ">", "deferred": ">", "up_for_retry": "~",
                "upstream_failed": "x", "skipped": "-", "awaiting_input": "?"}  # fmt: skip

_NAMED_FAILED, _NAMED_ACTIVE = 5, 3
"""How many instances of a large mapped task are named: failed ones, and active ones."""

_HEAD = 3
"""How many lines there are above the tree: name, progress bar, root."""


def draw(timeline: Timeline, console: Console, *, note: str = "", whole: bool = False) -> RenderableType:
    """Draw the run. Unless `whole` is set, details are left out until it fits the terminal."""
    painter = _Painter(timeline, console)
    height = 10_000 if whole else max(console.height - _HEAD - bool(note) - 1, 3)
    parts: list[RenderableType] = [painter.headline(), painter.progress(), painter.tree(height)]
    if note:
        parts.append(Text(first_line(note, console.width), style="yellow"))
    return Group(*parts)


class _Painter:
    def __init__(self, timeline: Timeline, console: Console) -> None:
        self._timeline = timeline
        self._width = console.width
        self._symbols = _ASCII_SYMBOLS if console.options.ascii_only else _SYMBOLS

    def headline(self) -> Text:
        run = self._timeline
        line = self._symbol(run.state).append(f"{safe(run.dag_id)}  ", style="bold").append(safe(run.dag_run_id))
        line.append(f"  {run.state or 'connecting'}", style=_style(run.state))
        if run.attempt > 1:
            line.append(f"  attempt {run.attempt}", style="yellow")
        return line

    def progress(self) -> RenderableType:
        run, used = self._timeline, self._timeline.used
        facts = [f"{run.progress:3d} %", f"{run.tasks_done}/{run.tasks_total} tasks"]
        if (age := formatting.age(run.started_at, run.finished_at)) is not None:
            facts.append(formatting.duration(age))
        if used.tokens:
            facts.append(formatting.tokens(used.tokens))
        if used.cost_usd is not None:
            facts.append(formatting.cost(used.cost_usd))
        grid = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(total=100, completed=run.progress, width=min(30, max(self._width // 4, 5)))
        grid.add_row(bar, Text("   ".join(facts)))
        return grid

    def tree(self, height: int) -> RenderableType:
        """The most detailed tree of at most `height` lines. If even the least detailed one is taller, it keeps
        only the most urgent tasks: active ones, then failed ones."""
        parts = self._timeline.parts()
        height -= len(self._timeline.errors[-3:])
        for detail in (3, 2, 1, 0):
            lines = {index: list(self._lines(part, detail)) for index, part in enumerate(parts)}
            if sum(map(len, lines.values())) <= height:
                break
        else:
            height -= 1  # for the line that counts the hidden tasks
            for index in sorted(lines, key=lambda index: _urgency(parts[index])):
                height -= len(lines[index])
                if height < 0:
                    del lines[index]
        root = Tree("", hide_root=True)
        branches = [root]
        for depth, line in chain.from_iterable(lines.values()):
            del branches[depth + 1 :]
            branches.append(branches[depth].add(line))
        hidden = [task.state or "not started" for index in range(len(parts)) if index not in lines
                  for task in _instances(parts[index])]  # fmt: skip
        if hidden:
            counted = ", ".join(f"{number} {state}" for state, number in Counter(hidden).most_common())
            root.add(_cut(Text(f"and {len(hidden)} more: {counted}", style="dim")))
        for error in self._timeline.errors[-3:]:
            root.add(self._error(error))
        return root

    def _lines(self, task: Task | LargeTask, detail: int) -> Iterator[tuple[int, Text]]:
        """A task's lines with their depths. Detail 3: all nodes; 2: running nodes; 1: agents of active tasks only."""
        if isinstance(task, LargeTask):
            yield from self._group(task, detail)
            return
        yield 0, self._task(task)
        active = task.state not in FINISHED
        for agent in task.agents.values():
            if detail < 2 and not (detail == 1 and active):
                continue
            state = "cancelled" if agent.state == "running" and not active else agent.state
            yield 1, self._agent(agent, state)
            for node in agent.nodes.values():
                if detail == 3 or (state == node.state == "running"):
                    yield 2, self._node(node, state if node.state == "running" else node.state)
            if state == "running" and agent.text:
                yield 2, Text(last_line(agent.text, self._width - 14), style="dim italic", no_wrap=True)
        for error in task.errors[-3 if detail >= 2 else -1 :]:
            yield 1, self._error(error)

    def _group(self, group: LargeTask, detail: int) -> Iterator[tuple[int, Text]]:
        """A large mapped task: its instances by state and, from detail 1, failed and active ones by name."""
        first = min(group.tasks, key=_urgency_of_task)
        line = self._symbol(first.state).append(safe(group.task_id), style="bold")
        yield 0, _cut(line.append(f"  {group.summary}", _style(first.state or "")))
        for states, most, rest in ((FAILED, _NAMED_FAILED, "failed"), (_ACTIVE, _NAMED_ACTIVE, "active")):
            named = [task for task in group.tasks if task.state in states] if detail else []
            for task in named[:most]:
                yield 1, self._task(task)
                for error in task.errors[-1:]:
                    yield 2, self._error(error)
            if len(named) > most:
                yield 1, _cut(Text(f"and {len(named) - most:,} more {rest}", style="dim"))

    def _task(self, task: Task) -> Text:
        state = task.state or "not started"
        line = self._symbol(task.state).append(safe(task.label), style="bold").append(f"  {state}", _style(state))
        if task.try_number > 1:
            line.append(f"  try {task.try_number}", style="yellow")
        elapsed = task.duration if task.duration is not None else formatting.age(task.started_at, task.finished_at)
        if elapsed is not None:
            line.append(f"  {formatting.duration(elapsed)}", style="dim")
        return _cut(line)

    def _agent(self, agent: Agent, state: str) -> Text:
        facts = [safe(agent.model)] if agent.model else []
        if agent.tokens:
            facts.append(formatting.tokens(agent.tokens))
        if agent.cost_usd is not None:
            facts.append(formatting.cost(agent.cost_usd))
        if agent.latency_ms is not None:
            facts.append(formatting.duration(agent.latency_ms / 1000))
        if agent.batch is not None:
            batch = agent.batch
            facts.insert(0, f"{batch['succeeded'] + batch['failed']}/{batch['items']} inputs, {batch['failed']} failed")
        if agent.notice:
            facts.append(safe(agent.notice))
        line = self._symbol(state).append(safe(agent.name)).append(f"  {state}", _style(state))
        return _cut(line.append("".join(f"  {fact}" for fact in facts), style="dim"))

    def _node(self, node: Node, state: str) -> Text:
        line = self._symbol(state).append(safe(node.name))
        if node.latency_ms is not None:
            line.append(f"  {formatting.duration(node.latency_ms / 1000)}", style="dim")
        return _cut(line)

    def _error(self, error: Data) -> Text:
        return _cut(Text(first_line(error_text(error), self._width - 8), style="red"))

    def _symbol(self, state: str | None) -> Text:
        symbol = self._symbols.get(state or "", "." if self._symbols is _ASCII_SYMBOLS else "○")
        return Text(no_wrap=True, overflow="ellipsis").append(f"{symbol} ", style=_style(state or ""))


def error_text(error: Data) -> str:
    """An error in one line: the agent, the category, the message and the action taken."""
    whose = f"{error['agent']}: " if error.get("agent") else ""
    wait = error.get("retry_in")
    then = f" in {formatting.duration(wait)}" if wait else ""
    return f"{whose}{error['category']}: {error['message']} ({error['action']}{then})"


def _instances(part: Task | LargeTask) -> list[Task]:
    return part.tasks if isinstance(part, LargeTask) else [part]


def _urgency(part: Task | LargeTask) -> int:
    return min(map(_urgency_of_task, _instances(part)))


def _urgency_of_task(task: Task) -> int:
    if task.state in _ACTIVE:
        return 0
    return 1 if task.state in FAILED else 2 if task.state not in FINISHED else 3


def _style(state: str) -> str:
    return _STYLES.get(state, "dim")


def _cut(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ellipsis"
    return line
