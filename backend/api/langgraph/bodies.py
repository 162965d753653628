"""The bodies of requests in LangGraph's protocol. Fields that have no effect here are accepted, because clients send
them."""

from dataclasses import replace
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from backend.services.langgraph.runs import RunRequest

MOST = 1_000
"""Rows of a page."""

MOST_PATHS = 100
"""Paths of an item for which vectors are made, at a cost."""

MOST_QUERIED = 10_000
"""Characters of a search by meaning, which costs as well."""

Json = dict[str, Any]
Strategy = Literal["reject", "interrupt", "rollback", "enqueue"]
"""What happens to the runs of a thread that are under way when another one is started."""

Breakpoints = Literal["*"] | list[str] | None


class Body(BaseModel):
    """The base of all bodies."""

    model_config = ConfigDict(extra="ignore")


class AssistantCreate(Body):
    """A new assistant."""

    graph_id: str = Field(min_length=1, max_length=250)
    assistant_id: UUID | None = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    if_exists: Literal["raise", "do_nothing"] = "raise"
    name: str | None = Field(None, max_length=250)
    description: str | None = Field(None, max_length=4_000)


class AssistantPatch(Body):
    """A new version of an assistant: what is left out stays as it is."""

    graph_id: str | None = Field(None, min_length=1, max_length=250)
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    name: str | None = Field(None, max_length=250)
    description: str | None = Field(None, max_length=4_000)


class AssistantSearch(Body):
    """Which assistants."""

    metadata: Json | None = None
    graph_id: str | None = None
    name: str | None = None
    limit: int = Field(10, ge=1, le=MOST)
    offset: int = Field(0, ge=0)
    sort_by: Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"] | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[str] | None = None


class VersionSearch(Body):
    """Which versions of an assistant."""

    metadata: Json | None = None
    limit: int = Field(10, ge=1, le=MOST)
    offset: int = Field(0, ge=0)


class LatestVersion(Body):
    """The version that is to be the latest."""

    version: int = Field(ge=1)


class Superstep(Body):
    """A step of updates of a thread's state."""

    updates: list[Json]


class ThreadCreate(Body):
    """A new thread."""

    thread_id: UUID | None = None
    metadata: Json | None = None
    if_exists: Literal["raise", "do_nothing"] = "raise"
    ttl: Any = None
    supersteps: list[Superstep] | None = None


class ThreadPatch(Body):
    """What is changed of a thread."""

    metadata: Json = Field(default_factory=dict)
    ttl: Any = None


class ThreadCount(Body):
    """Which threads."""

    metadata: Json | None = None
    values: Json | None = None
    status: Literal["idle", "busy", "interrupted", "error"] | None = None
    ids: list[UUID] | None = None


class ThreadSearch(ThreadCount):
    """Which threads, and how they are shown."""

    limit: int = Field(10, ge=1, le=MOST)
    offset: int = Field(0, ge=0)
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[str] | None = None
    extract: dict[str, str] | None = None


class ThreadPrune(Body):
    """Threads that are deleted, or reduced to their latest states."""

    thread_ids: list[UUID] = Field(max_length=MOST)
    strategy: Literal["delete", "keep_latest"] = "delete"


class StateUpdate(Body):
    """Values that are written to a thread's state as a node would write them."""

    values: Any = None
    as_node: str | None = None
    checkpoint: Json | None = None
    checkpoint_id: str | None = None


class CheckpointQuery(Body):
    """The checkpoint whose state is read."""

    checkpoint: Json
    subgraphs: bool = False


class HistoryQuery(Body):
    """Which states of a thread."""

    limit: int = Field(10, ge=1, le=MOST)
    before: Json | str | None = None
    metadata: Json | None = None
    checkpoint: Json | None = None


def _no_webhook(address: str | None) -> None:
    if address is not None:
        raise ValueError(
            "is not served: set up a target of notifications instead, under Settings or /users/me/preferences"
        )


class RunBody(Body):
    """A run."""

    assistant_id: str = Field(min_length=1, max_length=250)
    input: Any = None
    command: Json | None = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    checkpoint: Json | None = None
    checkpoint_id: str | None = None
    stream_mode: list[str] | str | None = None
    stream_subgraphs: bool = False
    interrupt_before: Breakpoints = None
    interrupt_after: Breakpoints = None
    multitask_strategy: Strategy | None = None
    if_not_exists: Literal["create", "reject"] | None = None
    on_disconnect: Literal["cancel", "continue"] | None = None
    on_completion: Literal["delete", "keep"] | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    checkpoint_during: bool | None = None
    after_seconds: float | None = Field(None, ge=0, le=366 * 86_400)
    webhook: Annotated[str | None, AfterValidator(_no_webhook)] = Field(None, description="Not served")

    def request(self) -> RunRequest:
        """What the client asks for."""
        modes = [self.stream_mode] if isinstance(self.stream_mode, str) else self.stream_mode
        checkpoint = self.checkpoint or ({"checkpoint_id": self.checkpoint_id} if self.checkpoint_id else None)
        return RunRequest(
            assistant_id=self.assistant_id,
            input=self.input,
            command=self.command,
            config=self.config,
            context=self.context,
            metadata=self.metadata,
            checkpoint=checkpoint,
            stream_mode=tuple(modes or ("values",)),
            stream_subgraphs=self.stream_subgraphs,
            interrupt_before=self.interrupt_before,
            interrupt_after=self.interrupt_after,
            multitask_strategy=self.multitask_strategy or "enqueue",
            if_not_exists=self.if_not_exists or "reject",
            durability=self.durability or ("exit" if self.checkpoint_during is False else None),
            after_seconds=self.after_seconds,
            delete_after=self.on_completion != "keep",
        )


class CronBody(RunBody):
    """A run that is started by a schedule."""

    schedule: str = Field(min_length=1, max_length=250)
    timezone: str | None = None
    end_time: AwareDatetime | None = None
    enabled: bool | None = None
    on_run_completed: Literal["delete", "keep"] | None = None

    def request(self) -> RunRequest:
        """What the client asks for each time. By default the thread of each run is kept for an hour."""
        return replace(super().request(), delete_after=self.on_run_completed != "keep")


class CronPatch(Body):
    """What is changed of a cron."""

    schedule: str | None = Field(None, min_length=1, max_length=250)
    timezone: str | None = None
    end_time: AwareDatetime | None = None
    enabled: bool | None = None
    on_run_completed: Literal["delete", "keep"] | None = None
    input: Any = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    stream_mode: list[str] | str | None = None
    stream_subgraphs: bool | None = None
    interrupt_before: Breakpoints = None
    interrupt_after: Breakpoints = None
    durability: Literal["sync", "async", "exit"] | None = None

    def changes(self) -> Json:
        """What is given, by the names of a run's fields."""
        found = {name: getattr(self, name) for name in self.model_fields_set}
        if isinstance(mode := found.get("stream_mode"), str):
            found["stream_mode"] = [mode]
        if (kept := found.pop("on_run_completed", None)) is not None:
            found["delete_after"] = kept != "keep"
        return found


class CronSearch(Body):
    """Which crons."""

    assistant_id: str | None = None
    thread_id: UUID | None = None
    enabled: bool | None = None
    metadata: Json | None = None
    limit: int = Field(10, ge=1, le=MOST)
    offset: int = Field(0, ge=0)
    sort_by: str | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[str] | None = None

    def filter(self) -> Json:
        """Which ones, without how they are shown."""
        thread = str(self.thread_id) if self.thread_id is not None else None
        kept = {"assistant_id": self.assistant_id, "enabled": self.enabled, "metadata": self.metadata}
        return {**kept, "thread_id": thread}


class RunsCancel(Body):
    """Runs that are cancelled."""

    thread_id: UUID | None = None
    run_ids: list[UUID] | None = Field(None, max_length=MOST)
    status: Literal["pending", "running", "all"] | None = None


class Command(Body):
    """A command of the newer protocol."""

    id: int | str | None = None
    method: str
    params: Json = Field(default_factory=dict)


class Subscription(Body):
    """Which events of a thread."""

    channels: list[str] = Field(min_length=1, max_length=100)
    namespaces: list[list[str]] | None = Field(None, max_length=100)
    depth: Annotated[int, Field(ge=0, le=100)] | None = None
    since: Annotated[int, Field(ge=0)] | None = None


class ItemPut(Body):
    """An item of the store."""

    namespace: list[str]
    key: str = Field(min_length=1, max_length=1_000)
    value: Json
    index: Literal[False] | Annotated[list[str], Field(max_length=MOST_PATHS)] | None = None
    ttl: float | None = Field(None, gt=0)


class ItemDelete(Body):
    """The place of an item."""

    namespace: list[str] = Field(default_factory=list)
    key: str


class ItemSearch(Body):
    """Which items of the store."""

    namespace_prefix: list[str] = Field(default_factory=list)
    filter: Json | None = None
    limit: int = Field(10, ge=1, le=MOST)
    offset: int = Field(0, ge=0)
    query: str | None = Field(None, max_length=MOST_QUERIED)


class NamespaceSearch(Body):
    """Which namespaces of the store."""

    prefix: list[str] | None = None
    suffix: list[str] | None = None
    max_depth: int | None = Field(None, ge=1)
    limit: int = Field(100, ge=1, le=MOST)
    offset: int = Field(0, ge=0)
