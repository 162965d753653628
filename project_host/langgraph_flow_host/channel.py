"""The protocol: a connection on which both ends ask and tell.

A frame is its length, four bytes with the largest first, and that many bytes of msgpack, which are a list:

    ["ask", id, method, arguments]    expects a reply with the same id
    ["tell", 0, method, arguments]    expects none
    ["reply", id, "", value]
    ["fail", id, "", facts]           `facts` is what `errors.describe` returns

The last element is a value of `wire`, packed by itself. An end that goes away ends the connection, and whatever it was
asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

import ormsgpack

from langgraph_flow_host.wire import pack, unpack

LARGEST_FRAME = 2**31

LARGE = 256 * 1024
"""Bytes above which a frame is read in a thread, so that it doesn't hold up the event loop, and of unsent frames above
which whoever sends more waits."""

Handler = Callable[[str, Any], Awaitable[Any]]
"""Answers what the other end asks: a method and its arguments."""


class ConnectionLostError(ConnectionError):
    """The other end went away."""


class Channel:
    """One end of a connection. `run` reads it until it ends; everything else may be called meanwhile, on its loop."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handler: Handler,
        *,
        told: Callable[[str, Any], Awaitable[None]] | None = None,
        packed: Callable[[BaseException], Any],
        unpacked: Callable[[Any], BaseException],
    ) -> None:
        """`told` is called for each thing that the other end tells; the next frame waits for it. `packed` turns an
        error into facts that can be sent, and `unpacked` facts into an error to raise."""
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._told = told
        self._packed = packed
        self._unpacked = unpacked
        self._ids = count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._handling: dict[int, asyncio.Task[None]] = {}
        self._lost: ConnectionLostError | None = None

    @property
    def full(self) -> bool:
        """Whether the other end can't keep up with what it is sent. May be asked from any thread."""
        return self._lost is None and self._writer.transport.get_write_buffer_size() > LARGE

    async def ask(self, method: str, arguments: bytes) -> Any:
        """The other end's answer to packed `arguments`. Raises what it failed with, and `ConnectionLostError`.

        When the caller is cancelled, so is the other end's work.
        """
        number = next(self._ids)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self.send("ask", method, arguments, number)
            return await future
        except asyncio.CancelledError:
            with suppress(ConnectionLostError):
                self.send("tell", "cancel", pack(number))
            raise
        finally:
            self._asked.pop(number, None)

    def send(self, kind: str, method: str, value: bytes, number: int = 0) -> None:
        """Send a frame with a packed value. Raises `ConnectionLostError`."""
        if self._lost is not None:
            raise ConnectionLostError(*self._lost.args)
        frame = ormsgpack.packb([kind, number, method, value])
        self._writer.write(len(frame).to_bytes(4, "big") + frame)

    async def room(self) -> None:
        """Wait while the other end can't keep up."""
        with suppress(ConnectionError):
            await self._writer.drain()

    async def run(self) -> None:
        """Read until the connection ends. Then everything that was asked fails, and what is handled is cancelled."""
        why = "the connection was closed"
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(4), "big")
                if size > LARGEST_FRAME:
                    raise ValueError(f"a frame of {size} bytes")
                kind, number, method, data = ormsgpack.unpackb(await self._reader.readexactly(size))
                value = await asyncio.to_thread(unpack, data) if size > LARGE else unpack(data)
                await self._take(kind, number, method, value)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except ValueError as error:
            why = f"the other end doesn't speak the protocol: {error}"
        finally:
            self._lost = ConnectionLostError(why)
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(self._lost)
                    future.exception()  # whoever asked may be gone
            for task in [*self._handling.values()]:
                task.cancel()
            self._writer.close()

    def close(self) -> None:
        self._writer.close()

    async def _take(self, kind: str, number: int, method: str, value: Any) -> None:
        if kind == "ask":
            task = asyncio.ensure_future(self._handle(number, method, value))
            self._handling[number] = task
            task.add_done_callback(lambda _: self._handling.pop(number, None))
        elif kind == "tell":
            if method == "cancel":
                if (running := self._handling.get(value)) is not None:
                    running.cancel()
            elif self._told is not None:
                await self._told(method, value)
        elif (future := self._asked.get(number)) is not None and not future.done():
            if kind == "reply":
                future.set_result(value)
            else:
                future.set_exception(self._unpacked(value))

    async def _handle(self, number: int, method: str, arguments: Any) -> None:
        kind = "reply"
        try:
            value = pack(await self._handler(method, arguments))
        except asyncio.CancelledError as error:
            if self._lost is not None:
                raise
            kind, value = "fail", pack(self._packed(error))
        except BaseException as error:  # LangGraph and users' code raise some that are no `Exception`
            kind, value = "fail", pack(self._packed(error))
        with suppress(ConnectionLostError):
            self.send(kind, "", value, number)
