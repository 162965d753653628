"""Makes the graphs of a task's agents: built-in ones with their models, and the user's own."""

import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.store.base import BaseStore

from backend.agents.config import AgentConfig, AgentDeps
from backend.agents.registry import AgentDefinition, get_agent
from backend.checkpoints.batched_saver import BatchedSaver
from backend.checkpoints.pool import Pool, ResilientStore
from backend.core.jsonable import dumps
from backend.core.ratelimit.interface import ModelGate
from backend.core.settings import Settings
from backend.core.workflow_error_handler import ErrorPolicy, parse_error_policy
from backend.db import images
from backend.db.engine import Database
from backend.models.attempts import REAL_TIME, RetryTiming
from backend.models.call import make_model_call
from backend.models.http_clients import HttpClients
from backend.models.resolve import ModelChoice, ModelCredentials, Purpose, resolve_model
from backend.models.sdk_retries import switch_off_sdk_retries
from backend.models.stream_usage import ask_for_usage
from backend.observation.recording.observer import AgentObserver
from backend.observation.task_context import TaskContext
from backend.runtime.graphs.cache import GraphCache
from backend.runtime.graphs.load import load_graph
from backend.runtime.graphs.run import Graph
from backend.runtime.specs import AgentSpec


@dataclass(frozen=True, slots=True)
class Prepared:
    """An agent's graph, compiled once for any number of inputs. `definition` is that of a built-in agent."""

    graph: Graph
    definition: AgentDefinition | None
    model: str | None
    notice: str | None


class GraphMaker:
    """Makes graphs that keep their checkpoints with `saver`, when there is one, and find `store` at run time, or one
    that is made in `pool`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        task: TaskContext,
        credentials: ModelCredentials | None,
        resources: AsyncExitStack,
    ) -> None:
        """What graphs and models hold open is closed with `resources`."""
        self._settings = settings
        self._database = database
        self._task = task
        self._credentials = credentials
        self._resources = resources
        self.saver: BatchedSaver | None = None
        self.pool: Pool | None = None
        self.store: BaseStore | None = None
        self.http: HttpClients | None = None
        self.gate: ModelGate | None = None
        self.cache: GraphCache | None = None
        self.timing: RetryTiming = REAL_TIME

    async def prepare(self, spec: AgentSpec, purpose: Purpose | None) -> Prepared:
        """Choose the model for a purpose and compile the graph; a user's own graph has none.

        Raises what makes that impossible for any input.
        """
        requested = self.requested(spec)
        if purpose is None:
            graph = await self.own(spec, {"configurable": dict(spec.configurable)})
            return Prepared(graph, None, requested, None)
        definition, config, choice = self._choose(spec, requested, purpose)
        if self.http is None:
            self.http = HttpClients(many_calls=True)
            self._resources.push_async_callback(self.http.close)
        graph = self._compile(spec, definition, config, choice, purpose)
        return Prepared(graph, definition, choice.name, choice.notice)

    def built_in(
        self, spec: AgentSpec, requested: str | None, observer: AgentObserver, input_data: Mapping[str, Any]
    ) -> Graph:
        """The graph of a built-in agent for one input, which the observer is told. Raises `InputError`."""
        try:
            purpose = get_agent(spec.type).purpose_for(input_data)
            definition, config, choice = self._choose(spec, requested, purpose)
            observer.uses(choice.name, choice.notice)
        finally:
            observer.begin(input_data)
        definition.check_input(input_data)
        return self._compile(spec, definition, config, choice, purpose)

    def policy_of(self, spec: AgentSpec) -> ErrorPolicy:
        """What is done about an agent's errors. Raises `InputError` naming what is wrong with a rendered policy."""
        return parse_error_policy(spec.error_policy, base=self._settings.error_policy)

    def requested(self, spec: AgentSpec) -> str | None:
        """The name of the model that is asked for, if any is."""
        asked = spec.model or self._task.run_model
        if asked is None and spec.graph is None and self._credentials is not None:
            return self._credentials.model
        return asked

    def _choose(
        self, spec: AgentSpec, requested: str | None, purpose: Purpose
    ) -> tuple[AgentDefinition, AgentConfig, ModelChoice]:
        choice = resolve_model(requested, purpose=purpose, settings=self._settings, credentials=self._credentials)
        return get_agent(spec.type), AgentConfig.parse(spec.config), choice

    def _compile(
        self,
        spec: AgentSpec,
        definition: AgentDefinition,
        config: AgentConfig,
        choice: ModelChoice,
        purpose: Purpose,
    ) -> Graph:
        policy = self.policy_of(spec)
        read_upload = partial(_read_upload, self._database)
        # Nothing of this task may be held by a graph that others use.
        clients = self.http.arguments if self.http is not None else self._clients

        def make() -> Graph:
            model = make_model_call(
                choice,
                self._settings,
                policy,
                purpose=purpose,
                credentials=self._credentials,
                params=config.model_params(),
                openai_clients=clients,
                gate=self.gate,
                timing=self.timing,
            )
            deps = AgentDeps(self._settings, read_upload, choice.max_image_side, offline=choice.local)
            return definition.build(config, model, deps).compile(name=spec.name)

        if self.cache is None:
            graph = make()
        else:
            own = dumps([spec.type, spec.config, spec.error_policy])
            key = (own, spec.name, choice, purpose, self._credentials, self.timing)
            graph = self.cache.find(key, make)
        return graph.copy({"checkpointer": self.saver})

    def _clients(self) -> dict[str, Any]:
        """HTTP clients for OpenAI's models that end with the task, or with the event loop that agents share.

        LangChain's own are kept for the process, and of no use to the next event loop there: a second task under
        `airflow dags test` would fail.
        """
        if self.http is None:
            self.http = HttpClients()
            self._resources.push_async_callback(self.http.close)
        return self.http.arguments()

    async def own(self, spec: AgentSpec, config: RunnableConfig) -> Graph:
        """The user's own graph. `config` is for a function that makes one."""
        if self._settings.stream_usage:
            ask_for_usage()
        if not self._settings.sdk_retries:
            switch_off_sdk_retries()
        if self.store is None and self.pool is not None:
            self.store = ResilientStore(self.pool)
        return await load_graph(
            str(spec.graph),
            config=config,
            project_file=self._settings.langgraph_json,
            resources=self._resources,
            saver=self.saver,
            store=self.store,
            name=spec.name,
        )


async def _read_upload(database: Database, image_id: uuid.UUID) -> bytes | None:
    image = await database.run(images.get, str(image_id))
    return image.content if image else None
