"""Reports what blocks an event loop that many agents share."""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, Self

log = logging.getLogger(__name__)

_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python", "<frozen")

AGENT_KEY = "visual_ai_agent"
"""The key of the agent's name in the metadata of a graph's config."""


class BlockingWatch:
    """A thread that warns when one asyncio task blocks the loop for `limit` seconds, while every other agent waits.

    A context manager, to be entered on the loop. It warns once each time the loop is blocked.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        self._loop = loop
        self._limit = limit
        self._beat = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._stop = threading.Event()
        self._watched = threading.get_ident()

    def __enter__(self) -> Self:
        self._tick()
        threading.Thread(target=self._run, name="visual-ai-blocking-watch", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._beat = time.monotonic()
        self._timer = self._loop.call_later(self._limit / 4, self._tick)

    def _run(self) -> None:
        last: tuple[float, int] | None = None  # the loop's last beat, and the task that has been running since
        since, warned = 0.0, False
        while not self._stop.wait(self._limit / 8):
            task = asyncio.current_task(self._loop)
            now = (self._beat, id(task))
            if task is None or now != last:
                # Many tasks with a little work each may delay the loop as well, but that is load, and no agent's fault.
                last, since, warned = now, time.monotonic(), False
            elif not warned and time.monotonic() - since >= self._limit:
                warned = True
                self._warn()

    def _warn(self) -> None:
        frame = sys._current_frames().get(self._watched)
        if frame is None:
            return
        log.warning(
            "the event loop has been blocked for more than %g s by %s: all agents of this process wait. Use an "
            "asynchronous client, `asyncio.to_thread`, or a node that isn't `async def`: such nodes run in threads.",
            self._limit,
            _describe(frame),
        )


def _describe(innermost: FrameType) -> str:
    """The code that the loop's thread is executing, and the node and agent if it belongs to an agent's graph."""
    code, config = "", None
    frame: FrameType | None = innermost
    while frame is not None and config is None:
        name = frame.f_code.co_filename
        if not code and not any(part in name for part in _LIBRARIES):
            code = f"{name}:{frame.f_lineno}, {frame.f_code.co_name}"
        config = _node_config(frame.f_locals)
        frame = frame.f_back
    code = code or f"{innermost.f_code.co_filename}:{innermost.f_lineno}, {innermost.f_code.co_name}"
    if config is None:
        return code
    metadata, configurable = config.get("metadata") or {}, config.get("configurable") or {}
    agent, thread = metadata.get(AGENT_KEY), configurable.get("thread_id") or metadata.get("thread_id")
    return f"node {metadata['langgraph_node']!r} of agent {agent!r} in {thread} ({code})"


def _node_config(variables: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The config of the node that a frame of LangGraph is running, if it is one."""
    config = variables.get("config")
    if isinstance(config, Mapping) and isinstance(metadata := config.get("metadata"), Mapping):
        return config if "langgraph_node" in metadata else None
    return None
