"""Fetches a picture over HTTP without opening a way into the private network; see `backend/outbound`."""

import asyncio
import ssl
from collections.abc import Callable

import httpx

from backend.outbound.checked_transport import (
    CONNECT_TIMEOUT,
    CheckedTransport,
    HostError,
    LookupFailedError,
    PrivateHostError,
    Resolve,
    certificate_refused,
    resolve_host,
    url_fault,
)
from backend.pictures.errors import ImageFetchError, ImageInputError

Received = Callable[[int], None]

MAX_REDIRECTS = 5

HEADERS = {
    "User-Agent": "langgraph-flow",
    "Accept": "image/*",
    # A compressed body could expand to any size before it is counted, and pictures are compressed anyway.
    "Accept-Encoding": "identity",
}
TRANSIENT_STATUS = frozenset({408, 425, 429})
"""The 4xx statuses after which a retry may help, as after any 5xx."""


async def fetch_image(
    url: str,
    *,
    max_bytes: int,
    timeout: float,  # noqa: ASYNC109  # the caller gives the limit; asyncio.timeout enforces it below
    allow_private: bool,
    resolve: Resolve = resolve_host,
    ssl_context: ssl.SSLContext | None = None,
    received: Received | None = None,
) -> bytes:
    """Fetch the body at an `http://` or `https://` address: at most `max_bytes`, within `timeout` seconds in total.

    `received` is called with the size of each piece that arrives.

    Raises `ImageInputError` if the address or the response is wrong, and `ImageFetchError` if a retry may help.
    """
    try:
        target = _checked_url(httpx.URL(url), redirected=False)
    except httpx.InvalidURL:
        raise ImageInputError("this is not a usable address; check it for typing errors") from None
    transport = CheckedTransport(allow_private=allow_private, resolve=resolve, ssl_context=ssl_context)
    try:
        async with asyncio.timeout(timeout):
            return await _fetch(target, max_bytes, transport, received)
    except TimeoutError:
        raise ImageFetchError(f"the server did not deliver the picture within {timeout:g} s; try again later") from None
    except HostError as error:
        raise _unreachable(error) from None
    except httpx.TimeoutException:
        raise ImageFetchError("the server did not answer in time; try again later") from None
    except httpx.InvalidURL:
        raise ImageInputError("the server redirected to an address that can't be used") from None
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError):
        raise ImageInputError("the server's answer leads to an address that can't be fetched") from None
    except httpx.TransportError as error:
        if certificate_refused(error):
            raise ImageInputError(
                "the server's TLS certificate could not be verified; use a server with a valid certificate"
            ) from None
        # The exception's own text may contain internal addresses.
        raise ImageFetchError("the connection to the server failed; try again later") from None


async def _fetch(target: httpx.URL, max_bytes: int, transport: "CheckedTransport", received: Received | None) -> bytes:
    client = httpx.AsyncClient(
        transport=transport,
        trust_env=False,
        follow_redirects=False,
        headers=HEADERS,
        timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
    )
    async with client:
        for _ in range(MAX_REDIRECTS + 1):
            client.cookies.clear()
            async with client.stream("GET", target) as response:
                if not response.has_redirect_location:
                    _check_status(response)
                    return await _read(response, max_bytes, received)
                target = _checked_url(target.join(response.headers["Location"]), redirected=True)
                transport.redirected = True
    raise ImageInputError(f"the server redirected more than {MAX_REDIRECTS} times; give the final address")


def _checked_url(url: httpx.URL, *, redirected: bool) -> httpx.URL:
    if (fault := url_fault(url)) is not None:
        subject = "the server redirected to an address that" if redirected else "the address"
        raise ImageInputError(f"{subject} {fault}")
    return url


def _unreachable(error: HostError) -> ImageInputError | ImageFetchError:
    if isinstance(error, LookupFailedError):
        return ImageFetchError(str(error))
    if isinstance(error, PrivateHostError):
        return ImageInputError(
            f"{error}; upload the picture instead, or set VISUAL_AI_ALLOW_PRIVATE_IMAGES=true where private hosts are "
            "to be trusted"
        )
    return ImageInputError(str(error))


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    answered = f"the server answered {status} {response.reason_phrase}".rstrip()
    if status >= 500 or status in TRANSIENT_STATUS:
        raise ImageFetchError(f"{answered}; try again later", retry_after=_retry_after(response))
    remedy = {
        401: "the picture must be readable without signing in",
        403: "the picture must be readable without signing in",
        404: "check that the picture still exists at this address",
        410: "check that the picture still exists at this address",
    }.get(status, "give an address that answers with the picture itself")
    raise ImageInputError(f"{answered}; {remedy}")


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    return float(value) if value.isascii() and value.isdigit() else None


async def _read(response: httpx.Response, max_bytes: int, received: Received | None) -> bytes:
    too_large = ImageInputError(
        f"the picture is larger than the limit of {max_bytes} bytes; send a smaller one "
        "or raise VISUAL_AI_MAX_IMAGE_BYTES"
    )
    if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise ImageInputError("the server sent a compressed answer although it was asked not to")
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if received is not None:
            received(len(chunk))
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)
