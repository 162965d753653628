"""The project's end of a channel, which runs in a thread of its own.

A node may block the graph's event loop, or call a model without `await`. The task must get an answer nevertheless, and
the node one from the task: so the connection is served by another loop than the graph's.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from langgraph_flow_host.channel import Channel
from langgraph_flow_host.wire import pack


class Wires:
    """The thread and the event loop that serve connections."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="langgraph-flow-wires", daemon=True).start()

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine there; returns its `concurrent.futures.Future`."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)


class Link:
    """A channel, for whoever is in another thread."""

    def __init__(self, wires: Wires, channel: Channel) -> None:
        self._wires = wires
        self._channel = channel

    async def ask(self, method: str, arguments: Any = None) -> Any:
        """The task's answer. Raises as `Channel.ask` does."""
        return await asyncio.wrap_future(self._wires.submit(self._channel.ask(method, pack(arguments))))

    def wait(self, method: str, arguments: Any = None) -> Any:
        """The task's answer, for which the thread waits."""
        return self._wires.submit(self._channel.ask(method, pack(arguments))).result()

    async def tell(self, method: str, arguments: Any = None) -> None:
        """Send something. Waits while the task can't keep up."""
        data = pack(arguments)
        self._wires.loop.call_soon_threadsafe(self._send, method, data)
        if self._channel.full:
            await asyncio.wrap_future(self._wires.submit(self._channel.room()))

    def note(self, method: str, arguments: Any) -> None:
        """Send something without waiting."""
        self._wires.loop.call_soon_threadsafe(self._send, method, pack(arguments))

    def _send(self, method: str, data: bytes) -> None:
        try:
            self._channel.send("tell", method, data)
        except ConnectionError:
            self._channel.close()
