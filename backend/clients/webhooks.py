"""Posts to webhooks that users named: only to permitted hosts, and within a time limit.

WebhookError
├── WebhookRefused   the address is not permitted, or the receiver has opted out; a retry doesn't help
└── WebhookFailed    no response, or an error; a retry may help
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from backend.core.errors.retry_after import wait_asked_for
from backend.core.settings import Settings
from backend.outbound.checked_transport import (
    CONNECT_TIMEOUT,
    CheckedTransport,
    HostError,
    PrivateHostError,
    Resolve,
    UnknownHostError,
    certificate_refused,
    checked_addresses,
    resolve_host,
    url_fault,
)

MAX_REDIRECTS = 3
LOOKUP_TIMEOUT = 3.0
"""Seconds that the look-up of a name may take while a client waits for the response."""

_SAME_REQUEST = frozenset({307, 308})
"""Redirects that keep method and body (RFC 9110, section 15.4)."""


class WebhookError(Exception):
    """An attempt failed. Operators and the webhook's owner read the message: it contains no address and no secret."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class WebhookRefused(WebhookError):
    """Another attempt would have the same result."""


class WebhookFailed(WebhookError):
    """Another attempt may succeed. `retry_after` is how many seconds the receiver asked to wait."""


@dataclass(frozen=True, slots=True)
class WebhookClient:
    """Posts to webhooks. `resolve` and `ssl_context` are the seams for tests."""

    settings: Settings
    resolve: Resolve = resolve_host
    ssl_context: ssl.SSLContext | None = None

    async def check(self, address: str) -> str | None:
        """What is wrong with an address, worded to follow its field's name; None when it can be used.

        A name that can't be looked up at the moment is not a fault.
        """
        try:
            url = httpx.URL(address)
            url.host  # noqa: B018  # decodes an international name, which may fail although the rest is valid
        except (httpx.InvalidURL, UnicodeError):
            return "is not a usable address; check it for typing errors"
        if (fault := self._fault(url)) is not None:
            return fault
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                await checked_addresses(
                    url, allow_private=self.settings.allow_private_webhooks, resolve=self.resolve, redirected=False
                )
        except (PrivateHostError, UnknownHostError) as error:
            return f"can't be used: {_explained(error)}"
        except (HostError, TimeoutError):
            return None
        return None

    async def post(self, address: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send the body and return the status, which is 2xx. Raises `WebhookError`.

        The receiver has `VISUAL_AI_WEBHOOK_TIMEOUT` seconds in total. Only the head of its response is read.
        """
        limit = self.settings.webhook_timeout
        transport = CheckedTransport(
            allow_private=self.settings.allow_private_webhooks, resolve=self.resolve, ssl_context=self.ssl_context
        )
        try:
            async with asyncio.timeout(limit):
                return await self._post(address, body, headers, transport)
        except PrivateHostError as error:
            raise WebhookRefused(_explained(error)) from None
        except HostError as error:
            raise WebhookFailed(str(error)) from None
        except (TimeoutError, httpx.TimeoutException):
            raise WebhookFailed(f"no answer within {limit:g} s") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            raise WebhookRefused("the receiver redirected to an address that can't be used") from None
        except httpx.TransportError as error:
            # The exception's own text may name internal addresses.
            reason = (
                "its TLS certificate could not be verified" if certificate_refused(error) else "the connection failed"
            )
            raise WebhookFailed(f"{reason} ({type(error).__name__})") from None

    async def _post(self, address: str, body: bytes, headers: Mapping[str, str], transport: CheckedTransport) -> int:
        url = httpx.URL(address)
        if (fault := self._fault(url)) is not None:
            raise WebhookRefused(f"the address {fault}")
        async with httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": "langgraph-flow", "Content-Type": "application/json", **headers},
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
        ) as client:
            for _ in range(MAX_REDIRECTS + 1):
                client.cookies.clear()
                async with client.stream("POST", url, content=body) as response:
                    if response.status_code not in _SAME_REQUEST or not response.has_redirect_location:
                        return _judged(response)
                    url = url.join(response.headers["Location"])
                if (fault := self._fault(url)) is not None:
                    raise WebhookRefused(f"the receiver redirected to an address that {fault}")
                transport.redirected = True
        raise WebhookRefused(f"the receiver redirected more than {MAX_REDIRECTS} times; give the final address")

    def _fault(self, url: httpx.URL) -> str | None:
        if self.settings.allow_http_webhooks:
            return url_fault(url)
        fault = url_fault(url, ("https",))
        if fault is not None and url.scheme == "http":
            return f"{fault}; where that is to be trusted, set VISUAL_AI_ALLOW_HTTP_WEBHOOKS=true"
        return fault


def _judged(response: httpx.Response) -> int:
    """The response's status if it is 2xx. Raises `WebhookError` otherwise."""
    status = response.status_code
    if response.is_success:
        return status
    answered = f"the receiver answered {status}"
    if response.has_redirect_location:
        raise WebhookRefused(f"{answered}, a redirect that would drop the body; give the final address", status=status)
    if status == httpx.codes.GONE:
        raise WebhookRefused(f"{answered}: it wants no more notifications", status=status)
    raise WebhookFailed(answered, status=status, retry_after=wait_asked_for(response.headers))


def _explained(error: HostError) -> str:
    if isinstance(error, PrivateHostError):
        return f"{error}; where private hosts are to be trusted, set VISUAL_AI_ALLOW_PRIVATE_WEBHOOKS=true"
    return str(error)
