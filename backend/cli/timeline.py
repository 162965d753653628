"""The state of a run, assembled from its events."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.cli.event_stream import Reset, StreamEvent

KEPT_TEXT = 2_000
"""How many characters are kept of an agent's answer."""

GROUPED = 10
"""Up to this many instances of a mapped task are shown one by one; more are counted by state."""

FAILED = frozenset({"failed", "upstream_failed"})

Data = Mapping[str, Any]


@dataclass(slots=True)
class Usage:
    """Tokens, and their cost in US dollars as far as prices are known (None if no price is)."""

    tokens: int = 0
    cost_usd: float | None = None

    def add(self, tokens: int, cost_usd: float | None) -> None:
        """Add further usage."""
        self.tokens += tokens
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd


@dataclass(slots=True)
class Node:
    """The latest execution of a node of an agent's graph; `latency_ms` is in milliseconds."""

    name: str
    state: str
    latency_ms: float | None = None


@dataclass(slots=True)
class Agent:
    """An agent in one try of a task. `text` is the end of the answer that its node `speaker` streams, `batch` has
    the counts of a batch.

    While the agent is running, tokens and cost are the sums over its finished nodes.
    """

    name: str
    try_number: int
    state: str = "running"
    model: str | None = None
    tokens: int = 0
    cost_usd: float | None = None
    latency_ms: float | None = None
    notice: str | None = None
    speaker: str | None = None
    text: str = ""
    batch: Data | None = None
    nodes: dict[str, Node] = field(default_factory=dict)


@dataclass(slots=True)
class Task:
    """A task instance and its agents; times are the API's, `duration` is in seconds."""

    task_id: str
    map_index: int
    state: str | None = None
    try_number: int = 0
    started_at: str | None = None
    finished_at: str | None = None
    duration: float | None = None
    agents: dict[str, Agent] = field(default_factory=dict)
    errors: list[Data] = field(default_factory=list)
    used_by_nodes: Usage = field(default_factory=Usage)
    used_by_batch: Usage | None = None

    @property
    def used(self) -> Usage:
        """The usage of its agents in all tries. A batch reports its total, and only some of its inputs individually."""
        return self.used_by_batch or self.used_by_nodes

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the task instance within the run."""
        return (self.task_id, self.map_index)

    @property
    def label(self) -> str:
        """`name`, or `name[3]` for a mapped task."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


@dataclass(slots=True)
class LargeTask:
    """The instances of a mapped task that has too many to show each."""

    task_id: str
    tasks: list[Task]

    @property
    def summary(self) -> str:
        """How many instances it has, by state."""
        counts = Counter(task.state or "not started" for task in self.tasks).most_common()
        return f"{len(self.tasks):,} instances: {', '.join(f'{count:,} {state}' for state, count in counts)}"


class Timeline:
    """One run. Events may be repeated, also as a current state: the latest event about each part counts."""

    def __init__(self, dag_id: str, dag_run_id: str) -> None:
        self.dag_id = dag_id
        self.dag_run_id = dag_run_id
        self.end: str | None = None
        """The state in which the run ended."""
        self._reset()

    def _reset(self) -> None:
        self.state = ""  # unknown
        self.progress = 0
        self.tasks_total = 0
        self.tasks_done = 0
        self.attempt = 1
        self.started_at: str | None = None
        self.finished_at: str | None = None
        self.tasks: dict[tuple[str, int], Task] = {}
        self._instances: Counter[str] = Counter()
        self.errors: list[Data] = []
        """Errors that belong to no task."""

    @property
    def used(self) -> Usage:
        """The usage that all agents have reported so far."""
        total = Usage()
        for task in self.tasks.values():
            total.add(task.used.tokens, task.used.cost_usd)
        return total

    def is_large(self, task_id: str | None) -> bool:
        """Whether the task is mapped and has too many instances to show each."""
        return self._instances[task_id or ""] > GROUPED

    @property
    def has_large(self) -> bool:
        """Whether any task is."""
        return any(map(self.is_large, self._instances))

    def parts(self) -> list[Task | LargeTask]:
        """All task instances, in the order in which they became known; those of a large mapped task as a group."""
        found: dict[Any, Task | LargeTask] = {}
        for key, task in self.tasks.items():
            if not self.is_large(task.task_id):
                found[key] = task
            elif isinstance(group := found.setdefault(task.task_id, LargeTask(task.task_id, [])), LargeTask):
                group.tasks.append(task)
        return list(found.values())

    def add_missing(self, tasks: Iterable[Data]) -> None:
        """Add the task instances that no event has reported: the current state of a large run has not all of them."""
        for data in tasks:
            if (str(data["task_id"]), int(data["map_index"])) not in self.tasks:
                self._task_state(data)

    def apply(self, event: StreamEvent | Reset) -> None:
        """Update the state with an event."""
        if isinstance(event, Reset):
            self._reset()
            return
        data = event.data
        match event.type:
            case "workflow_update":
                self._run(data)
            case "task_update":
                self._task_state(data)
            case "agent_update":
                self._agent_state(data)
            case "token":
                agent = self._agent(data)
                before = agent.text if agent.speaker == data["node"] else ""
                agent.speaker, agent.text = data["node"], (before + str(data["text"]))[-KEPT_TEXT:]
            case "error":
                known = self._task(data) if data.get("task_id") is not None else None
                (self.errors if known is None else known.errors).append(data)
            case "end":
                self.state = self.end = str(data["state"])

    def _run(self, data: Data) -> None:
        self.state = str(data["state"])
        self.progress = int(data["progress"])
        self.tasks_total, self.tasks_done = int(data["tasks_total"]), int(data["tasks_done"])
        self.attempt = int(data.get("attempt") or 1)
        self.started_at, self.finished_at = data.get("started_at"), data.get("finished_at")

    def _task(self, data: Data) -> Task:
        key = (str(data["task_id"]), int(data.get("map_index", -1)))
        if key not in self.tasks:
            self.tasks[key] = Task(*key)
            self._instances[key[0]] += 1
        return self.tasks[key]

    def _task_state(self, data: Data) -> None:
        task = self._task(data)
        task.state, task.try_number = data["state"], int(data["try_number"])
        task.started_at, task.finished_at = data.get("started_at"), data.get("finished_at")
        task.duration = data.get("duration")

    def _agent(self, data: Data) -> Agent:
        """The agent in its latest try; a new try replaces it."""
        task, name, try_number = self._task(data), str(data["agent"]), int(data["try_number"])
        known = task.agents.get(name)
        if known is None or known.try_number < try_number:
            known = task.agents[name] = Agent(name, try_number)
        return known

    def _agent_state(self, data: Data) -> None:
        task, agent = self._task(data), self._agent(data)
        used, cost = int(data["input_tokens"] or 0) + int(data["output_tokens"] or 0), data.get("cost_usd")
        state, is_latest = str(data["state"]), int(data["try_number"]) == agent.try_number
        if data.get("batch") is not None:
            task.used_by_batch = Usage(used, cost)
        elif data.get("node") is not None and state != "running":
            task.used_by_nodes.add(used, cost)
        if not is_latest:
            return
        agent.model = data.get("model") or agent.model
        if data.get("node") is None:
            agent.state, agent.latency_ms = state, data.get("latency_ms")
            agent.notice, agent.batch = data.get("notice"), data.get("batch")
            if agent.batch is not None or state != "running":
                agent.tokens, agent.cost_usd = used, cost
            return
        node = str(data["node"])
        agent.nodes[node] = Node(node, state, data.get("latency_ms"))
        if state == "running":
            agent.text = "" if agent.speaker == node else agent.text
        else:
            agent.tokens += used
            agent.cost_usd = agent.cost_usd if cost is None else (agent.cost_usd or 0.0) + cost
