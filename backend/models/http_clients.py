"""HTTP clients for OpenAI's models, which last as long as the event loop they belong to."""

import logging
import ssl
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """How servers' certificates are checked: as OpenAI's client does by itself. Reading the machine's certificates
    takes 20 ms, so the process that forks tasks does it for them."""
    import httpx2

    return httpx2.create_ssl_context()


class HttpClients:
    """The clients of one event loop, made when they are first needed and shared by its models.

    With `many_calls` for hundreds of calls at once: httpx looks through all its connections before and after each call,
    aiohttp takes less than half the time at 500 at once.
    """

    def __init__(self, *, many_calls: bool = False) -> None:
        self._many_calls = many_calls
        self._clients: dict[str, Any] = {}

    def arguments(self) -> dict[str, Any]:
        """For `build_model`."""
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
    """Each line of a log is a message to the process that supervises this one; a triggerer's looks through its database
    for each. What the calls did is recorded anyway. A level that somebody has set stays."""
    logger = logging.getLogger("httpx2")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
