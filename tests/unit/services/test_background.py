"""What runs beside the requests ends with the process, whatever its libraries make of a cancellation."""

import asyncio

import pytest

from backend.services import background
from backend.services.background import in_background


async def test_work_ends_with_the_context() -> None:
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


async def test_a_cancellation_that_is_lost_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "AGAIN_SECONDS", 0.01)
    begun = 0

    async def goes_on_after_errors() -> None:
        nonlocal begun
        while begun < 3:
            begun += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async with asyncio.timeout(10):
        async with in_background(goes_on_after_errors()):
            await asyncio.sleep(0)
    assert begun == 3
