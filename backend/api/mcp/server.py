"""`/mcp`: workflows as tools, over MCP's streamable HTTP.

Each request stands alone, so that any backend can serve it, and is made with the caller's own rights: whoever may not
see or start a workflow has no tool for it. Protocol, versions and framing are the SDK's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)
from starlette.types import Receive, Scope, Send

import backend
from backend.api.deps import TokenReader
from backend.api.mcp.tools import GET_RUN, Tools, UnknownToolError
from backend.core.problems import Problem
from backend.core.roles import Principal
from backend.services.application import Application
from backend.services.background import in_background

INSTRUCTIONS = (
    "Each tool starts a run of a workflow and returns its result. A run that takes longer than a call may is returned "
    f"with the state `running`: call `{GET_RUN}` for it later. One with the state `awaiting_input` asks people a "
    "question, which they answer at its page."
)

router = APIRouter(tags=["mcp"])

_caller: ContextVar[Principal] = ContextVar("mcp_caller")
"""Who has sent the request that is being handled."""


@router.post("/mcp", include_in_schema=False)  # its messages are MCP's
async def handle(request: Request, who: TokenReader) -> Response:
    """Handle one message of an MCP client. Needs a token of any role; tools follow what the caller may do."""
    return _Handled(request.app.state.mcp, who)


class _Handled(Response):
    """The response that the SDK writes to a request of this caller."""

    def __init__(self, sessions: StreamableHTTPSessionManager, who: Principal) -> None:
        super().__init__()
        self._sessions = sessions
        self._who = who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _caller.set(self._who)
        await self._sessions.handle_request(scope, receive, send)


@asynccontextmanager
async def serving(app: FastAPI, application: Application) -> AsyncIterator[None]:
    """Handle messages until the context ends."""
    tools = Tools(application)

    async def list_tools(
        context: ServerRequestContext[Any],  # noqa: ARG001  # prescribed
        params: PaginatedRequestParams | None,  # noqa: ARG001  # prescribed
    ) -> ListToolsResult:
        return ListToolsResult(tools=await tools.list(_caller.get()))

    async def call_tool(context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        try:
            return await tools.call(_caller.get(), params.name, params.arguments or {}, context.session.report_progress)
        except UnknownToolError as error:
            raise MCPError(INVALID_PARAMS, str(error)) from None
        except Problem as problem:
            return CallToolResult(content=[TextContent(text=_text(problem))], is_error=True)

    server = Server(
        "langgraph-flow",
        title="LangGraph Flow",
        version=backend.__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    sessions = StreamableHTTPSessionManager(
        server, stateless=True, max_request_body_size=application.settings.max_body_bytes
    )
    running = asyncio.Event()

    async def run() -> None:
        # In a task of its own, because what starts the application need not be the task that ends it.
        async with sessions.run():
            running.set()
            await asyncio.Event().wait()

    async with in_background(run()):
        await running.wait()
        app.state.mcp = sessions
        yield


def _text(problem: Problem) -> str:
    """A problem as a model can act on it: what is wrong, where, and whether to try again."""
    faults = [f"{error.pointer}: {error.detail}" for error in problem.errors if error.detail not in problem.detail]
    again = [f"Try again in {problem.retry_after} s."] if problem.retry_after else []
    return "\n".join([problem.detail, *faults, *again])
