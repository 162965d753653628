"""Background tasks end with the process, even when a library swallows their cancellation."""

import asyncio

import pytest

from backend.services import background
from backend.services.background import in_background


async def test_tasks_are_cancelled_when_the_context_exits() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with in_background(work("one"), work("other")):
        await asyncio.sleep(0)
        assert ended == []
    assert sorted(ended) == ["one", "other"]


async def test_a_swallowed_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "CANCEL_INTERVAL", 0.01)
    started = 0

    async def survives_cancellation() -> None:
        nonlocal started
        while started < 3:
            started += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async with asyncio.timeout(10):
        async with in_background(survives_cancellation()):
            await asyncio.sleep(0)
    assert started == 3
