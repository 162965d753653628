"""Many stream clients in a separate process, which `streams` starts: `python -m tests.benchmarks.stream_clients`.

It connects and prints how long that took, and after two lines on standard input prints its measurements as JSON:
milliseconds from the time in each event to its arrival.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer

from tests.kit.sse_client import Message, StreamProtocol, open_stream, path_of

AT_ONCE = 50


async def _watch(url: str, token: str, dag_id: str, runs: int, clients: int) -> None:
    latencies: list[float] = []
    seen = [0] * clients
    lost = 0

    def client(index: int) -> Callable[[Message], None]:
        def on_message(message: Message) -> None:
            nonlocal lost
            if message.type == "token":
                sent = float(message.data[message.data.index(b'"at":') + 5 :].split(b"}")[0].split(b",")[0])
                latencies.append((time.time() - sent) * 1000)
            if message.id is not None:
                if seen[index] and message.id != seen[index] + 1:
                    lost += 1
                seen[index] = message.id

        return on_message

    gate = asyncio.Semaphore(AT_ONCE)
    streams: list[StreamProtocol] = []

    async def connect(index: int) -> None:
        async with gate:
            path = path_of(dag_id, f"run-{index % runs}")
            stream = await open_stream(url, path, client(index), token=token)
            streams.append(stream)
            while not seen[index]:
                if stream.closed.done():
                    raise RuntimeError(f"a stream was refused with {stream.status}")
                await asyncio.sleep(0.01)

    began = time.perf_counter()
    await asyncio.gather(*(connect(index) for index in range(clients)))
    gc.freeze()
    sys.stdout.write(json.dumps({"connected_s": time.perf_counter() - began}) + "\n")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.readline)  # the figures of connecting don't count
    latencies.clear()
    await loop.run_in_executor(None, sys.stdin.readline)
    closed = sum(stream.closed.done() for stream in streams)
    sys.stdout.write(json.dumps({"latencies": latencies, "lost": lost, "closed": closed}) + "\n")
    sys.stdout.flush()


def main(
    url: Annotated[str, typer.Option()],
    token: Annotated[str, typer.Option()],
    dag_id: Annotated[str, typer.Option()],
    runs: Annotated[int, typer.Option()],
    clients: Annotated[int, typer.Option()],
) -> None:
    """Watch `runs` runs with `clients` streams."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_watch(url, token, dag_id, runs, clients))


if __name__ == "__main__":
    typer.run(main)
