"""HTTP requests to hosts that users named: pictures of a run, receivers of a webhook.

The rules follow the OWASP "Server-Side Request Forgery Prevention" cheat sheet: few schemes are allowed; every address
that a name resolves to is checked; the connection goes to an address that was checked, because a second look-up could
return another one (DNS rebinding); and each redirect is checked like the first request.

HostError
├── PrivateHostError   an address of the host is not public; a retry doesn't help
├── UnknownHostError   the host's name is invalid or does not exist; a retry doesn't help
└── LookupFailedError  the name could not be looked up at the moment; a retry may help
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection
from functools import lru_cache

import httpx

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Turns a host name and a port into IP addresses, as text. Raises `socket.gaierror`."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_EMBEDDING = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "::/96",  # IPv4-compatible (RFC 4291)
            "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765)
            "64:ff9b:1::/48",  # NAT64 within a network (RFC 8215)
        ),
    )
)
"""Where an IPv6 address of a private network ends in an IPv4 one."""
_ISATAP = (0x00005EFE, 0x02005EFE)
"""What precedes an IPv4 address in an interface identifier of ISATAP (RFC 5214)."""

_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "3fff::/20",  # documentation (RFC 9637), which Python 3.11 doesn't know yet
            "192.88.99.0/24",  # relays of 6to4, which are gone (RFC 7526)
            "192.0.0.0/24",  # protocol assignments (RFC 6890), some of which Python takes for public
        ),
    )
)
_METADATA = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16", "fe80::/10",  # link-local: AWS, Azure, Google Cloud and most others
            "168.63.129.16/32",  # Azure's platform
            "100.100.100.200/32",  # Alibaba Cloud
            "192.0.0.192/32",  # Oracle Cloud
            "fd00:ec2::/32", "fd20:ce::/32", "fd00:42::42/128",  # AWS, Google Cloud, Scaleway
        ),
    )
)  # fmt: skip
"""Where clouds tell their machines secrets. No setting allows these: a private picture is never there."""

CONNECT_TIMEOUT = 5.0
"""Seconds per address of a host, so that a dead IPv6 route leaves time for the IPv4 one."""


class HostError(Exception):
    """The host must not or cannot be connected to. The message names no address: a client could map the network."""


class PrivateHostError(HostError):
    """The host is not on the public internet. `str()` begins with "the host", or with "the server redirected to"."""


class UnknownHostError(HostError):
    """The host's name is invalid or does not exist."""


class LookupFailedError(HostError):
    """The host's name could not be looked up at the moment."""


async def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of `host`, in the system's order of preference. Raises `socket.gaierror` and `UnicodeError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def url_fault(url: httpx.URL, schemes: Collection[str] = ("http", "https")) -> str | None:
    """What is wrong with a URL, worded to follow "the address"; None when nothing is."""
    if url.scheme not in schemes:
        return f"is not {' or '.join(f'{scheme}://' for scheme in schemes)}"
    try:
        host = url.host
    except UnicodeError:  # an internationalised name that decodes to nothing
        return "names a host that can't exist; check it for typing errors"
    if not host:
        return "names no host"
    if url.port is not None and not 0 < url.port < 65536:
        return "has a port that does not exist"
    if url.userinfo:
        return "holds a user name or a password, which is not accepted"
    return None


async def checked_addresses(url: httpx.URL, *, allow_private: bool, resolve: Resolve, redirected: bool) -> list[str]:
    """All addresses of the URL's host. Raises `HostError` when there is none or one of them is not allowed."""
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        addresses = await resolve(url.host, port)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise LookupFailedError("the host's name could not be looked up just now; try again later") from None
        raise UnknownHostError("the host's name does not exist; check it for typing errors") from None
    except (UnicodeError, OSError):
        raise UnknownHostError("the host's name is not a valid one; check it for typing errors") from None
    if not addresses:
        raise UnknownHostError("the host has no address; check its name for typing errors")
    subject = "the server redirected to a host that" if redirected else "the host"
    if not allow_private and not all(map(is_public, addresses)):
        raise PrivateHostError(f"{subject} is not on the public internet, which is not allowed")
    if not all(map(is_connectable, addresses)):
        raise PrivateHostError(f"{subject} is reserved for the machine's own use, which is never allowed")
    return addresses


def certificate_refused(error: BaseException | None) -> bool:
    """Whether a connection failed because the server's certificate could not be verified."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


@lru_cache(maxsize=1)
def default_ssl_context() -> ssl.SSLContext:
    """The context that verifies certificates. Loading the trusted roots takes tens of milliseconds, so it is kept."""
    return httpx.create_ssl_context(trust_env=False)


class CheckedTransport(httpx.AsyncBaseTransport):
    """An httpx transport that resolves a host once, checks every address and connects only to those addresses.

    The caller follows redirects, and sets `redirected` before it does. Raises `HostError` besides httpx's errors.
    """

    def __init__(
        self, *, allow_private: bool, resolve: Resolve = resolve_host, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.redirected = False
        self._allow_private = allow_private
        self._resolve = resolve
        self._inner = httpx.AsyncHTTPTransport(
            verify=ssl_context or default_ssl_context(),
            trust_env=False,
            # No connection is reused: the pool keys them by address, which two hosts may share.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` to a checked address of its host."""
        addresses = await checked_addresses(
            request.url, allow_private=self._allow_private, resolve=self._resolve, redirected=self.redirected
        )
        failure: httpx.TransportError | None = None
        for address in addresses:
            # The Host header and the TLS server name remain those of the requested host.
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": request.url.host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError("no address")

    async def aclose(self) -> None:
        """Close open connections."""
        await self._inner.aclose()


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet. Also checks an IPv4 address that is embedded in an IPv6 one."""
    found = _parsed(address)
    return bool(found) and all(map(_is_public, found))


def is_connectable(address: str) -> bool:
    """Whether an IP address may be connected to where private hosts are allowed: it is an ordinary host's."""
    found = _parsed(address)
    return bool(found) and not any(
        ip.is_multicast or ip.is_unspecified or (ip.version == 4 and ip.is_reserved) or _within(ip, _METADATA)
        for ip in found
    )


def _is_public(ip: IPAddress) -> bool:
    # Outside 2000::/3 there are only local, multicast, reserved and local-use NAT64 addresses.
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
    return (
        ip.is_global
        and not ip.is_multicast
        and not ip.is_reserved
        and not _within(ip, _NOT_PUBLIC)
        and not _within(ip, _METADATA)
    )


def _within(ip: IPAddress, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    return any(ip in network for network in networks)


def _parsed(address: str) -> tuple[IPAddress, ...]:
    """The address, or the IPv4 addresses in it that its packets may go to; nothing for what is no address."""
    try:
        ip: IPAddress = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ()
    if not isinstance(ip, ipaddress.IPv6Address):
        return (ip,)
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip.sixtofour is not None:
        return (ip.sixtofour,)
    if ip.teredo is not None:
        return ip.teredo
    last = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip in _NAT64:
        return (last,)
    embedded = int(ip) >> 32 & 0xFFFFFFFF in _ISATAP or any(ip in network for network in _EMBEDDING)
    return (ip, last) if embedded else (ip,)
