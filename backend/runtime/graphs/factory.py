"""Makes the graphs of a task's agents: those of built-in agents with their models, and users' own."""

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from langchain_core.runnables import RunnableConfig

from backend.agents.config import AgentConfig, AgentDeps, check_texts
from backend.agents.registry import AgentDefinition, get_agent
from backend.agents.tools.toolbox import Toolbox
from backend.checkpoints.batched_saver import BatchedSaver
from backend.checkpoints.store import Store
from backend.core.errors.input_error import InputError
from backend.core.exact_json import SizeLimit
from backend.core.jsonable import dumps
from backend.core.settings import Settings
from backend.core.workflow_error_handler import ErrorPolicy, parse_error_policy
from backend.db import images
from backend.db.engine import Database
from backend.models.attempts import RetryTiming
from backend.models.call import make_model_call
from backend.models.client_defaults import (
    accept_refused_streams,
    count_usage_once,
    disable_sdk_retries,
    request_stream_usage,
)
from backend.models.resolve import ModelChoice, ModelCredentials, Purpose, resolve_model
from backend.observation.recording.observer import AgentObserver
from backend.observation.task_context import TaskContext
from backend.pictures.inline import SCHEME, data_url, named, with_references
from backend.pictures.reader import upload_reader
from backend.runtime.graphs.factory_arguments import Surroundings
from backend.runtime.graphs.load import load_graph
from backend.runtime.graphs.pauses import Graph
from backend.runtime.langgraph_json import find
from backend.runtime.loop_watchdog import AGENT_KEY
from backend.runtime.projects.library import split
from backend.runtime.remote.opening import open_graph
from backend.runtime.resources import AgentResources
from backend.runtime.specs import AgentSpec
from langgraph_flow_host.store_terms import StoreTerms


@dataclass(frozen=True, slots=True)
class Prepared:
    """An agent's graph, compiled once for any number of inputs. `definition` is that of a built-in agent."""

    graph: Graph
    definition: AgentDefinition | None
    model: str | None
    notice: str | None


def config_of(spec: AgentSpec, thread: str) -> RunnableConfig:
    """The config that an agent's graph runs with: what its author says, and what is ours to say."""
    own = spec.run_config
    return {
        **cast(RunnableConfig, own),
        "callbacks": [],
        "run_name": spec.name,
        "metadata": {**own.get("metadata", {}), AGENT_KEY: spec.name},
        "configurable": {**own.get("configurable", {}), "thread_id": thread},
    }


class GraphFactory:
    """Makes the graphs of one try of a task.

    A graph of a built-in agent takes a third of a short agent's time to build, so agents that share their resources
    share compiled graphs as well: they hold nothing of a task, and each agent runs a copy with a checkpointer of its
    own. A user's graph is loaded for each agent.
    """

    def __init__(
        self,
        settings: Settings,
        task: TaskContext,
        credentials: ModelCredentials | None,
        resources: AgentResources,
        stack: AsyncExitStack,
        timing: RetryTiming,
        hidden: list[str],
    ) -> None:
        """`stack` closes what users' functions that make graphs hold open. `timing` is that of retries.

        `hidden` are the task's secrets, to which those of projects with environments of their own are added.
        """
        self._settings = settings
        self._task = task
        self._credentials = credentials
        self._resources = resources
        self._stack = stack
        self._own: dict[tuple[str, str, Any], Graph] = {}
        self.timing = timing
        self._hidden = hidden
        self.max_text_chars = settings.max_text_chars
        self.largest_input = SizeLimit(settings.max_input_bytes, "VISUAL_AI_MAX_INPUT_BYTES")
        self.largest_output = SizeLimit(settings.max_output_bytes, "VISUAL_AI_MAX_OUTPUT_BYTES")

    async def prepare(self, spec: AgentSpec, purpose: Purpose | None, saver: BatchedSaver | None) -> Prepared:
        """Choose the model for a purpose and compile the graph; a user's own graph has no purpose.

        Raises what makes that impossible for any input.
        """
        requested = self.requested(spec)
        if purpose is None:
            graph = await self.own(spec, cast(RunnableConfig, {"configurable": {}, **spec.run_config}), saver)
            return Prepared(graph, None, requested, None)
        choice = self._choose(spec, requested, purpose)
        definition = get_agent(spec.type)
        self._resources.http(many_calls=True)
        graph = self._compile(spec, choice, purpose, saver)
        return Prepared(graph, definition, choice.name, choice.notice)

    def built_in(
        self,
        spec: AgentSpec,
        requested: str | None,
        observer: AgentObserver,
        input_data: Mapping[str, Any],
        saver: BatchedSaver | None,
    ) -> Graph:
        """The graph of a built-in agent for one input, which is reported to the observer. Raises `InputError`."""
        try:
            definition = get_agent(spec.type)
            purpose = definition.purpose_for(input_data)
            choice = self._choose(spec, requested, purpose)
            observer.uses(choice.name, choice.notice)
        finally:
            observer.begin(input_data)
        definition.check_input(input_data)
        check_texts(input_data, self.max_text_chars)
        return self._compile(spec, choice, purpose, saver)

    def policy_of(self, spec: AgentSpec) -> ErrorPolicy:
        """An agent's error policy. Raises `InputError` naming what is wrong with a rendered one."""
        return parse_error_policy(spec.error_policy, base=self._settings.error_policy)

    def requested(self, spec: AgentSpec) -> str | None:
        """The name of the model that was requested, if any. A user's own graph makes its models itself."""
        if spec.graph is not None:
            return None
        asked = spec.model or self._task.run_model
        return self._credentials.model if asked is None and self._credentials is not None else asked

    def _choose(self, spec: AgentSpec, requested: str | None, purpose: Purpose) -> ModelChoice:
        choice = resolve_model(requested, purpose=purpose, settings=self._settings, credentials=self._credentials)
        if choice.local and (ignored := AgentConfig.parse(spec.config).model_params()):
            effect = f"{', '.join(ignored)} had no effect: {choice.name} is an offline model, which has no options"
            return replace(choice, notice="; ".join(filter(None, (choice.notice, effect))))
        return choice

    def _compile(
        self,
        spec: AgentSpec,
        choice: ModelChoice,
        purpose: Purpose,
        saver: BatchedSaver | None,
    ) -> Graph:
        # Other tasks use the graph as well, so it may hold nothing of this one.
        definition, config = get_agent(spec.type), AgentConfig.parse(spec.config)
        if config.tools and choice.local:
            raise InputError(
                "needs a hosted model: set OPENAI_API_KEY or name a model that has a key; offline models call no tools",
                field="agent_config.tools",
            )
        policy, resources = self.policy_of(spec), self._resources
        read_upload = partial(_read_upload, resources.database)

        def make() -> Graph:
            model = make_model_call(
                choice,
                self._settings,
                policy,
                purpose=purpose,
                credentials=self._credentials,
                params=config.model_params(),
                modes=config.modes,
                openai_clients=resources.http().arguments,
                gate=resources.gate,
                timing=self.timing,
                on_incomplete=config.on_incomplete,
            )
            toolbox = Toolbox(config.tools) if config.tools else None
            deps = AgentDeps(self._settings, read_upload, choice.max_image_side, offline=choice.local, toolbox=toolbox)
            return definition.build(config, model, deps).compile(name=spec.name)

        if resources.graphs is None or resources.settings is not self._settings:
            graph = make()
        else:
            own = dumps([spec.type, spec.config, spec.error_policy])
            key = (own, spec.name, choice, purpose, self._credentials, self.timing)
            graph = resources.graphs.find(key, make)
        if config.tools and saver is not None:
            saver.keep_in_step()  # what a model wants called is kept before it is called
        return graph.copy({"checkpointer": saver})

    async def own(self, spec: AgentSpec, config: RunnableConfig, saver: BatchedSaver | None) -> Graph:
        """The user's own graph, which is made once for an agent's thread. `config` is passed to a function that makes
        one."""
        key = (str(spec.graph), spec.name, config.get("configurable", {}).get("thread_id"))
        if key not in self._own:
            self._own[key] = await self._made(spec, config, saver)
        return self._own[key]

    async def _made(self, spec: AgentSpec, config: RunnableConfig, saver: BatchedSaver | None) -> Graph:
        store = self._store(str(spec.graph))
        around = Surroundings(config, spec.context, store, self._task.run_user)
        if split(str(spec.graph)) is not None:
            remote = await open_graph(
                str(spec.graph),
                around=around,
                settings=self._settings,
                resources=self._stack,
                saver=saver,
                name=spec.name,
                shared=self._resources.shared,
                hidden=self._hidden,
            )
            return cast(Graph, remote)  # it has what is used of one
        count_usage_once()
        accept_refused_streams(streaming=self._settings.streaming)
        if self._settings.stream_usage:
            request_stream_usage()
        if not self._settings.sdk_retries:
            disable_sdk_retries()
        return await load_graph(
            str(spec.graph),
            around=around,
            project_file=self._settings.langgraph_json,
            resources=self._stack,
            saver=saver,
            name=spec.name,
        )

    def _store(self, reference: str) -> Store:
        """LangGraph's store for a graph. One of another environment makes the vectors of its items there."""
        if ":" in reference or split(reference) is not None:
            return self._resources.store(None, StoreTerms())
        _, project = find(reference, self._settings.langgraph_json)
        return self._resources.store(project.folder, project.store)

    def step_limit(self, graph: Graph, spec: AgentSpec) -> int:
        """How many steps a graph may take: the agent's `recursion_limit`, the graph's, or the settings'."""
        limits = (spec.run_config.get("recursion_limit"), (graph.config or {}).get("recursion_limit"))
        return next((limit for limit in limits if limit is not None), self._settings.max_steps)

    async def with_pictures(self, input_data: Any) -> Any:
        """A graph's input, with the pictures that the run was given as `data:` URLs in that form again.

        Users' graphs expect what the client sent; only what Airflow and the records keep refers to uploads.
        """
        uploads = self._task.uploads
        pictures: dict[str, str] = {}
        for reference in sorted(named(input_data, uploads)) if uploads else ():
            image = await self._resources.database.run(images.get, reference.removeprefix(SCHEME))
            if image is None:
                raise InputError(f"refers to {reference}, which no longer exists", field="input_data")
            pictures[reference] = await asyncio.to_thread(data_url, image.media_type, image.content)
        return with_references(input_data, pictures) if pictures else input_data


async def _read_upload(database: Database, image_id: uuid.UUID) -> bytes | None:
    reader = upload_reader.get()
    if reader is None:
        return None
    image = await database.run(images.get, str(image_id))
    return image.content if image is not None and reader.may_read(str(image_id), image.user_id) else None
