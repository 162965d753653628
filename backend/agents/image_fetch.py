"""Fetch a picture over HTTP without becoming a way into the private network (SSRF).

The rules follow the OWASP "Server-Side Request Forgery Prevention" cheat sheet: two schemes only, every
address that a name resolves to is checked, the connection goes to an address that was checked (a second
look-up could answer differently: DNS rebinding), and each redirect starts over.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import lru_cache

import httpx

from backend.agents.image_error import ImageFetchError, ImageInputError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Turns a host name and a port into IP addresses, as text. Raises `socket.gaierror`."""

MAX_REDIRECTS = 5
CONNECT_TIMEOUT = 5.0
"""Seconds for one address of a host, so that a dead IPv6 route leaves time for the IPv4 one."""

HEADERS = {
    "User-Agent": "langgraph-flow",
    "Accept": "image/*",
    # A compressed body could unfold to any size before it is counted; pictures are compressed already.
    "Accept-Encoding": "identity",
}
TRANSIENT_STATUS = frozenset({408, 425, 429})
"""Client errors that say "later", next to all of 5xx."""

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


async def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of `host`, in the order the system prefers. Raises `socket.gaierror` and `UnicodeError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def is_public(address: str) -> bool:
    """Whether `address` is reachable from the public internet, also when an IPv4 address hides in an IPv6 one."""
    try:
        ip: IPAddress = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = _embedded_ipv4(ip)
        if embedded is not None:
            return all(inner.is_global and not inner.is_multicast for inner in embedded)
        # Outside 2000::/3 there is nothing to fetch from: local, multicast, reserved or local-use NAT64.
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _embedded_ipv4(ip: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...] | None:
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip.sixtofour is not None:
        return (ip.sixtofour,)
    if ip.teredo is not None:
        return ip.teredo
    if ip in _NAT64:
        return (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF),)
    return None


async def fetch_image(
    url: str,
    *,
    max_bytes: int,
    timeout: float,  # noqa: ASYNC109  # the caller gives the limit; asyncio.timeout enforces it below
    allow_private: bool,
    resolve: Resolve = resolve_host,
    ssl_context: ssl.SSLContext | None = None,
) -> bytes:
    """The body behind an `http://` or `https://` address, at most `max_bytes` long, within `timeout` seconds
    in all.

    Raises `ImageInputError` when the address or the answer is wrong, `ImageFetchError` when a retry may help.
    """
    try:
        target = _checked_url(httpx.URL(url), redirected=False)
    except httpx.InvalidURL:
        raise ImageInputError("this is not a usable address; check it for typing errors") from None
    transport = CheckedTransport(
        allow_private=allow_private, resolve=resolve, ssl_context=ssl_context or _default_ssl_context()
    )
    try:
        async with asyncio.timeout(timeout):
            return await _fetch(target, max_bytes, transport)
    except TimeoutError:
        raise ImageFetchError(f"the server did not deliver the picture within {timeout:g} s; try again later") from None
    except httpx.TimeoutException:
        raise ImageFetchError("the server did not answer in time; try again later") from None
    except httpx.InvalidURL:
        raise ImageInputError("the server redirected to an address that can't be used") from None
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError):
        raise ImageInputError("the server's answer leads to an address that can't be fetched") from None
    except httpx.TransportError as error:
        if _certificate_refused(error):
            raise ImageInputError(
                "the server's TLS certificate could not be verified; use a server with a valid certificate"
            ) from None
        # The exception's own text may name internal addresses.
        raise ImageFetchError("the connection to the server failed; try again later") from None


async def _fetch(target: httpx.URL, max_bytes: int, transport: "CheckedTransport") -> bytes:
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
                    return await _read(response, max_bytes)
                target = _checked_url(target.join(response.headers["Location"]), redirected=True)
                transport.redirected = True
    raise ImageInputError(f"the server redirected more than {MAX_REDIRECTS} times; give the final address")


def _checked_url(url: httpx.URL, *, redirected: bool) -> httpx.URL:
    subject = "the server redirected to an address that" if redirected else "the address"
    if url.scheme not in ("http", "https"):
        raise ImageInputError(f"{subject} is not http:// or https://")
    if not url.host:
        raise ImageInputError(f"{subject} names no host")
    if url.port is not None and not 0 < url.port < 65536:
        raise ImageInputError(f"{subject} has a port that does not exist")
    if url.userinfo:
        raise ImageInputError(f"{subject} holds a user name or a password, which is not accepted")
    return url


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


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
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
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _certificate_refused(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


@lru_cache(maxsize=1)
def _default_ssl_context() -> ssl.SSLContext:
    # Loading the trusted roots takes tens of milliseconds: once a process, not once a picture.
    return httpx.create_ssl_context(trust_env=False)


class CheckedTransport(httpx.AsyncBaseTransport):
    """An httpx transport that resolves a host once, checks every address and connects to exactly those."""

    def __init__(self, *, allow_private: bool, resolve: Resolve, ssl_context: ssl.SSLContext) -> None:
        self.redirected = False
        self._allow_private = allow_private
        self._resolve = resolve
        self._inner = httpx.AsyncHTTPTransport(
            verify=ssl_context,
            trust_env=False,
            # No connection is used twice: the pool keys them by address, and two hosts may share one.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` to an address of its host that was checked. Raises `ImageInputError` for a private one."""
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        addresses = await _resolved(host, port, self._resolve)
        if not self._allow_private and not all(map(is_public, addresses)):
            raise _private_address(self.redirected)
        failure: httpx.TransportError | None = None
        for address in addresses:
            # The Host header and the TLS server name stay those of the address that was asked for.
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError("no address")

    async def aclose(self) -> None:
        """Close what is still open."""
        await self._inner.aclose()


async def _resolved(host: str, port: int, resolve: Resolve) -> list[str]:
    try:
        addresses = await resolve(host, port)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise ImageFetchError("the host's name could not be looked up just now; try again later") from None
        raise ImageInputError("the host's name does not exist; check it for typing errors") from None
    except (UnicodeError, OSError):
        raise ImageInputError("the host's name is not a valid one; check it for typing errors") from None
    if not addresses:
        raise ImageInputError("the host has no address; check its name for typing errors")
    return addresses


def _private_address(redirected: bool) -> ImageInputError:
    # The resolved address stays unsaid: it would let a client map the internal network.
    subject = "the server redirected to a host that" if redirected else "the host"
    return ImageInputError(
        f"{subject} is not on the public internet, which is not allowed; upload the picture instead, "
        "or set VISUAL_AI_ALLOW_PRIVATE_IMAGES=true where private hosts are to be trusted"
    )
