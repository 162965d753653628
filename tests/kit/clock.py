"""Time that passes at once."""

from backend.models.attempts import RetryTiming


class Clock:
    """Waits without taking time, and remembers how long."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Remember it."""
        self.waits.append(seconds)

    @property
    def timing(self) -> RetryTiming:
        """No jitter: each wait is the longest that it can be."""
        return RetryTiming(self.sleep, lambda: 1.0)
