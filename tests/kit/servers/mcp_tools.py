"""An MCP server with tools that keep a record of their effects, over streamable HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from mcp.server import MCPServer


@dataclass
class ToolServer:
    """`url` is the server's; `effects` are the calls that it has carried out."""

    url: str
    effects: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def tool_server() -> Iterator[ToolServer]:
    """Serve until the context ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    found = ToolServer(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp")
    server = MCPServer("weather", log_level="ERROR")

    @server.tool()
    def forecast(town: str) -> str:
        """The weather of a town."""
        found.effects.append(("forecast", town))
        return f"It rains in {town}."

    @server.tool()
    def order_umbrella(colour: str) -> str:
        """Order an umbrella."""
        found.effects.append(("order_umbrella", colour))
        return f"A {colour} umbrella is on its way."

    web = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="error", lifespan="on"))
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        web.should_exit = True
        thread.join(10)
