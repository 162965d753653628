"""Asks the task before each model call of a run, and reports the calls and tools to it."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langgraph_flow_host.errors import describe
from langgraph_flow_host.link import Link

_METADATA = ("ls_", "langgraph_", "visual_ai_", "lc_")


class TaskCallbacks(BaseCallbackHandler):
    """The callback handler of one run. What the task refuses, ends the call before it is made."""

    raise_error = True
    # In a thread of its own, where it can wait for the task, unless LangChain is in one already.
    run_inline = False

    def __init__(self, link: Link, run: int, *, chains: bool, tools: bool) -> None:
        """`chains` and `tools` say whether the task wants to hear of nodes and tools, too: it counts or traces them."""
        self._link = link
        self._run = run
        self._chains = chains
        self._tools = tools
        self._places: set[str] = set()

    @property
    def ignore_chain(self) -> bool:
        """Whether LangChain need not report nodes."""
        return not self._chains

    @property
    def ignore_agent(self) -> bool:
        """Whether LangChain need not report tools."""
        return not self._tools

    def on_chain_start(self, serialized: Any, inputs: Any, **more: Any) -> None:
        place = str((more.get("metadata") or {}).get("langgraph_checkpoint_ns", ""))
        if place and place not in self._places:
            self._places.add(place)
            self._ask("on_chain_start", [None, None], more)

    def on_chat_model_start(self, serialized: Any, messages: list[list[Any]], **more: Any) -> None:
        self._ask("on_chat_model_start", [None, messages], more)

    def on_llm_start(self, serialized: Any, prompts: list[str], **more: Any) -> None:
        self._ask("on_llm_start", [None, prompts], more)

    def on_llm_end(self, response: LLMResult, **more: Any) -> None:
        generations = [
            [{"text": one.text, "message": one.message if isinstance(one, ChatGeneration) else None} for one in batch]
            for batch in response.generations
        ]
        self._ask("on_llm_end", [generations], more)

    def on_llm_error(self, error: BaseException, **more: Any) -> None:
        self._ask("on_llm_error", [describe(error)], more)

    def on_tool_start(self, serialized: Any, input_str: str, **more: Any) -> None:
        self._ask("on_tool_start", [{"name": (serialized or {}).get("name")}, input_str], more)

    def on_tool_end(self, output: Any, **more: Any) -> None:
        self._ask("on_tool_end", [output if isinstance(output, ToolMessage | str) else str(output)], more)

    def on_tool_error(self, error: BaseException, **more: Any) -> None:
        self._ask("on_tool_error", [describe(error)], more)

    def _ask(self, event: str, arguments: list[Any], more: Mapping[str, Any]) -> None:
        known: dict[str, Any] = {
            name: str(value) for name in ("run_id", "parent_run_id") if isinstance(value := more.get(name), UUID)
        }
        known["metadata"] = {
            name: value for name, value in (more.get("metadata") or {}).items() if name.startswith(_METADATA)
        }
        if isinstance(more.get("name"), str):
            known["name"] = more["name"]
        if isinstance(given := more.get("invocation_params"), Mapping):
            known["invocation_params"] = {
                name: value
                for name, value in given.items()
                if name == "tools" or isinstance(value, str | int | float | bool)
            }
        self._link.wait("callback", [self._run, event, arguments, known])
