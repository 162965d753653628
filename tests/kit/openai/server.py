"""A local server that speaks OpenAI's HTTP API and misbehaves on request: real clients meet real errors.

In a test::

    with OpenAIServer() as server:
        server.script("rate_limit", retry_after=2, times=3)
        model = ChatOpenAI(base_url=server.base_url, api_key="test", model="gpt-4o-mini")

From a shell: ``python -m tests.kit.openai.server --port 9009 --latency 0.2``, then
``curl -d '{"preset": "quota"}' http://127.0.0.1:9009/_kit/behaviours``.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from types import TracebackType
from typing import Annotated, Any, Self

import httpx
import typer
import uvicorn

from tests.kit.openai.app import openai_app
from tests.kit.openai.behaviour import PRESETS, Behaviour, Preset, behaviour
from tests.kit.openai.exchange import TransportProtocol
from tests.kit.openai.log import RequestRecord, Stats
from tests.kit.openai.state import ServerState, Settings

__all__ = [
    "PRESETS",
    "Behaviour",
    "OpenAIServer",
    "Preset",
    "RequestRecord",
    "Settings",
    "Stats",
    "behaviour",
]

HOST = "127.0.0.1"
BACKLOG = 4096
ROOT = Path(__file__).parents[3]


def _uvicorn(state: ServerState, *, host: str = HOST, port: int = 0, quiet: bool = True) -> uvicorn.Server:
    config = uvicorn.Config(
        openai_app(state),
        host=host,
        port=port,
        http=TransportProtocol,
        ws="none",
        lifespan="off",
        log_level="critical" if quiet else "info",
        access_log=not quiet,
        backlog=BACKLOG,
        date_header=False,  # sent by the answer itself, where a behaviour can set it
        # A pooled connection closed while the client reuses it would be an error nobody scripted.
        timeout_keep_alive=3600,
    )
    if quiet:
        config.log_config = None
    return uvicorn.Server(config)


def _stop(server: uvicorn.Server) -> None:
    server.force_exit = True
    server.should_exit = True


class OpenAIServer:
    """The running server and its remote control, which goes over HTTP wherever the server runs.

    `OpenAIServer(...)` runs it in a thread of this process, `OpenAIServer.subprocess(...)` in a process of
    its own, so that a load test's client does not share the interpreter lock with it. Both are context
    managers and take the fields of `Settings`. The methods block for about a millisecond; they may be called
    from any thread."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self._in_process = True
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None
        self._process: Popen[bytes] | None = None
        self._control: httpx.Client | None = None
        self._resets = 0
        self.url = ""

    @classmethod
    def subprocess(cls, **settings: Any) -> Self:
        server = cls(**settings)
        server._in_process = False
        return server

    @property
    def base_url(self) -> str:
        """For `ChatOpenAI(base_url=…)` and `OPENAI_BASE_URL`; ends in /v1.

        A reset changes it, the old ones stay good: langchain-openai keeps one async client per address,
        which does not outlive its event loop, so each test needs an address of its own.
        """
        return f"{self.url}/{self._resets}/v1" if self._resets else f"{self.url}/v1"

    @property
    def root_url(self) -> str:
        """The URL for the clients of Anthropic and Ollama, which add the path themselves."""
        return self.base_url.removesuffix("/v1")

    def start(self) -> Self:
        # Bound and listening here, so that the address is known, and requests wait, before the server is up.
        listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        self.url = f"http://{HOST}:{listener.getsockname()[1]}"
        if self._in_process:
            self._server = _uvicorn(ServerState(self.settings))
            self._thread = threading.Thread(
                target=self._server.run, args=([listener],), name="openai-server", daemon=True
            )
            self._thread.start()
        else:
            with listener:
                self._process = self._spawn(listener.fileno())
        self._control = httpx.Client(base_url=self.url, trust_env=False, timeout=60)
        self.stats()  # answered once it is up
        return self

    def _spawn(self, fd: int) -> Popen[bytes]:
        options = self.settings.model_dump(exclude_none=True, exclude={"models"})
        arguments = []
        for name, value in options.items():
            option = name.replace("_", "-")
            arguments.append(
                f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option}={value}"
            )
        return Popen(
            [sys.executable, "-m", "tests.kit.openai.server", f"--fd={fd}", *arguments],
            cwd=ROOT,
            pass_fds=[fd],
            stdin=PIPE,
        )

    def stop(self) -> None:
        """Stop the server and cut off requests in flight, within some tenths of a second. Idempotent."""
        if self._control is not None:
            with contextlib.suppress(httpx.HTTPError):  # the process may have ended with the same Ctrl-C
                self.reset()
            self._control.close()
            self._control = None
        if self._server is not None and self._thread is not None:
            _stop(self._server)
            self._thread.join(timeout=10)
            self._server = self._thread = None
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _call(self, method: str, path: str, json: Any = None) -> Any:
        if self._control is None:
            raise RuntimeError("the server is not running")
        response = self._control.request(method, f"/_kit/{path}", json=json)
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise ValueError(response.json()["detail"])
        response.raise_for_status()
        return response.json() if response.content else None

    def script(self, preset: Preset | Behaviour | None = None, /, **changes: Any) -> None:
        """Add a behaviour after those already scripted: a preset or `Behaviour`, with changes to its fields.

        It answers one request unless `times` says otherwise. Raises `KeyError` for an unknown preset and
        pydantic's `ValidationError` for a field that does not exist or does not fit.
        """
        self._call("POST", "behaviours", behaviour(preset, **changes).model_dump(mode="json", exclude_unset=True))

    def configure(self, **settings: Any) -> None:
        """Change `Settings` until the next reset. Raises `ValueError` for an unknown setting."""
        self._call("POST", "settings", settings)

    def release(self) -> None:
        """Respond to the requests that a behaviour with `hold` is keeping."""
        self._call("POST", "release")

    def reset(self) -> None:
        """Restore the initial settings, remove all behaviours, empty the log and cut off requests in flight."""
        self._call("POST", "reset")
        self._resets += 1

    @property
    def requests(self) -> list[RequestRecord]:
        """The current log, oldest request first."""
        return [RequestRecord.model_validate(record) for record in self._call("GET", "requests")]

    def stats(self) -> Stats:
        return Stats.model_validate(self._call("GET", "stats"))

    @property
    def in_flight(self) -> int:
        return self.stats().in_flight

    @property
    def max_in_flight(self) -> int:
        """The largest number of requests in flight at once."""
        return self.stats().max_in_flight

    def wait_for(self, condition: Callable[[Stats], bool], timeout: float = 10.0) -> Stats:
        """Wait until the counters meet the condition. Raises `TimeoutError` with the last counters.

        In a coroutine: ``await asyncio.to_thread(server.wait_for, …)``, or the client stands still meanwhile.
        """
        deadline = time.monotonic() + timeout
        while not condition(stats := self.stats()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout} s: {stats!r}")
            time.sleep(0.01)
        return stats


def read_behave(text: str) -> Behaviour:
    """`quota`: every request; `rate_limit:10`: every tenth one."""
    name, _, every = text.partition(":")
    if name not in PRESETS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(PRESETS)}")
    return behaviour(name, times=None, every=int(every or 1))


def main(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9009,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = HOST,
    latency: Annotated[float, typer.Option(help="Seconds before each answer.")] = 0.0,
    token_delay: Annotated[float, typer.Option(help="Seconds before each event of a stream.")] = 0.0,
    rate: Annotated[float | None, typer.Option(help="Requests a second; 429 over it.")] = None,
    burst: Annotated[int | None, typer.Option(help="Requests at once within the rate.")] = None,
    api_key: Annotated[str | None, typer.Option(help="The one key let in. Default: any.")] = None,
    behave: Annotated[
        list[str] | None,
        typer.Option(help="A preset for each request, or for each n-th: rate_limit:10. Repeatable."),
    ] = None,
    keep_alive: Annotated[bool, typer.Option(help="Keep connections open between requests.")] = True,
    quiet: Annotated[bool, typer.Option(help="No log of requests.")] = False,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A listening socket; ends when stdin does.")] = None,
) -> None:
    """Run a fake OpenAI server."""
    settings = Settings(
        latency=latency,
        token_delay=token_delay,
        rate=rate,
        burst=burst,
        api_key=api_key,
        keep_alive=keep_alive,
    )
    state = ServerState(settings, [read_behave(text) for text in behave or []])
    if fd is None:
        _uvicorn(state, host=host, port=port, quiet=quiet).run()
        return
    server = _uvicorn(state)

    def stop_with_parent() -> None:
        sys.stdin.buffer.read()
        _stop(server)

    threading.Thread(target=stop_with_parent, daemon=True).start()
    server.run([socket.socket(fileno=fd)])


if __name__ == "__main__":
    typer.run(main)
