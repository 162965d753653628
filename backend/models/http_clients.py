"""HTTP clients for OpenAI's models. They belong to one event loop, and are closed with it.

LangChain would cache its clients for the whole process, where they are useless to the next event loop.
"""

import logging
import ssl
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """The TLS settings that OpenAI's client uses by default.

    Reading the machine's certificates takes 20 ms, so the process that forks tasks does it once for all of them.
    """
    import httpx2

    return httpx2.create_ssl_context()


class HttpClients:
    """The clients of one event loop. They are created on first use and shared by all of its models.

    `many_calls` is for hundreds of concurrent calls: httpx searches all of its connections before and after each call,
    while aiohttp takes less than half the time at 500 concurrent calls.
    """

    def __init__(self, *, many_calls: bool = False) -> None:
        self._many_calls = many_calls
        self._clients: dict[str, Any] = {}

    def arguments(self) -> dict[str, Any]:
        """The clients as parameters of `build_model`."""
        if not self._clients:
            from openai import DefaultAioHttpClient, DefaultAsyncHttpxClient, DefaultHttpxClient

            if self._many_calls:
                _log_no_requests()
            kind = DefaultAioHttpClient if self._many_calls else DefaultAsyncHttpxClient
            self._clients = {"http_client": DefaultHttpxClient(verify=tls()), "http_async_client": kind(verify=tls())}
        return self._clients

    async def close(self) -> None:
        """Close all connections."""
        if self._clients:
            self._clients["http_client"].close()
            await self._clients["http_async_client"].aclose()
            self._clients = {}


def _log_no_requests() -> None:
    """Don't log each HTTP request, unless somebody has set a level.

    Every log line is a message to the supervising process, and a triggerer's queries its database for each. What the
    calls did is recorded anyway.
    """
    logger = logging.getLogger("httpx2")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
