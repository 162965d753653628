"""Where requests to hosts that users name may never lead, in whatever spelling, and servers that answer strangely."""

import asyncio
import contextlib
import gzip
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from backend.outbound.checked_transport import HostError, checked_addresses, is_public, resolve_host, url_fault
from backend.pictures.fetch import fetch_image
from backend.pictures.load import ImageFetchError, ImageInputError
from tests.kit.servers.pictures import PictureServer, answer, serving

PRIVATE = [
    # IPv4, range by range (RFC 6890 and its updates), first and last addresses
    "0.0.0.0", "0.0.0.1", "0.255.255.255", "10.0.0.0", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.64.0.1",
    "100.100.100.200", "100.127.255.255", "127.0.0.0", "127.0.0.1", "127.0.0.2", "127.127.127.127", "127.255.255.255",
    "169.254.0.1", "169.254.169.123", "169.254.169.253", "169.254.169.254", "169.254.170.2", "169.254.170.23",
    "169.254.255.255", "172.16.0.0", "172.17.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.8", "192.0.0.170",
    "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.88.99.255", "192.168.0.1", "192.168.65.2", "192.168.255.255",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "203.0.113.255", "224.0.0.1", "224.0.0.251",
    "239.255.255.250", "240.0.0.1", "250.250.250.250", "255.255.255.254", "255.255.255.255", "168.63.129.16",
    # IPv4 in other notations: decimal, octal, hexadecimal, mixed, short, with leading zeros
    "2130706433", "017700000001", "0x7f000001", "0x7F000001", "0X7f.1", "127.1", "127.0.1", "0x7f.0x0.0x0.0x1",
    "0177.0.0.1", "0177.0x0.0.1", "00000177.0.0.1", "127.0.0.01", "127.0.0.0x1", "127.0.1.", "0", "0x0", "00.0.0.0",
    "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "0251.0376.0251.0376", "169.254.43518", "169.16689662",
    "167772161", "10.1", "0xa.1", "012.1", "3232235521", "0xc0a80001", "192.168.257", "0xac100001", "2886729729",
    "127.0.0.1.", "169.254.169.254.", "10.0.0.1.",
    # other digits and dots, which IDNA maps to these
    "１２７.０.０.１", "①②⑦.⓪.⓪.①", "127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "１６９.２５４.１６９.２５４",
    "１0.0.0.1",
    # names of this machine
    "localhost", "LOCALHOST", "localhost.", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "ｌｏｃａｌｈｏｓｔ",
    # IPv6, range by range
    "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::2]", "[100::1]", "[64:ff9b:1::1]", "[2001::1]",
    "[2001:2::1]", "[2001:10::1]", "[2001:db8::1]", "[3fff::1]", "[3fff:fff:ffff::1]", "[4000::1]", "[5f00::1]",
    "[8000::1]", "[fc00::1]", "[fd00::1]", "[fdff:ffff::1]", "[fd00:ec2::254]", "[fd00:ec2::23]", "[fd20:ce::254]",
    "[fd00:42::42]", "[fe80::1]", "[fe80::a9fe:a9fe]", "[febf::1]", "[fec0::1]", "[feff::1]", "[ff00::1]", "[ff01::1]",
    "[ff02::1]", "[ff02::fb]", "[ff05::2]", "[ff0e::1]", "[FF02::1]", "[FE80::1]",
    # with a zone
    "[fe80::1%25eth0]", "[fe80::1%25lo]", "[::1%25lo]", "[fe80::a9fe:a9fe%251]",
    # IPv4 in IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::FFFF:10.0.0.1]", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]",
    "[0:0:0:0:0:ffff:c0a8:1]", "[::ffff:0.0.0.0]", "[::ffff:100.100.100.200]", "[::ffff:168.63.129.16]",
    "[::127.0.0.1]", "[::7f00:1]", "[::10.0.0.1]", "[::169.254.169.254]", "[::ffff:0:127.0.0.1]", "[::ffff:0:a00:1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::10.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b::]",
    "[64:ff9b:1::127.0.0.1]", "[64:ff9b:1:ffff::a9fe:a9fe]", "[2002:7f00:1::]", "[2002:7f00:0001::1]",
    "[2002:a00:1::]", "[2002:a9fe:a9fe::]", "[2002:c0a8:101::1]", "[2001:0:7f00:1::]", "[2001:0:a9fe:a9fe::1]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[2001:0:808:808:0:0:5601:5601]", "[2001:470::5efe:7f00:1]",
    "[2001:470::200:5efe:a9fe:a9fe]", "[2606:4700::5efe:10.0.0.1]",
]  # fmt: skip

PUBLIC = [
    "8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1",
    "192.167.255.255", "198.17.255.255", "198.20.0.1", "223.255.255.255", "134744072", "0x08080808", "8.8.2056",
    "[2606:4700:4700::1111]", "[2a00:1450:4001:81b::200e]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]",
    "[2002:808:808::1]", "[2001:470::5efe:808:808]",
]  # fmt: skip

METADATA = [
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518",
    "１６９.２５４.１６９.２５４", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]",
    "[2001:470::5efe:a9fe:a9fe]", "[fe80::1]", "[fe80::1%25eth0]", "169.254.170.2", "168.63.129.16",
    "100.100.100.200", "192.0.0.192", "[fd00:ec2::254]", "[fd20:ce::254]", "[fd00:42::42]", "0.0.0.0", "0",
    "[::]", "224.0.0.1", "[ff02::1]", "255.255.255.255", "[::169.254.169.254]", "[::ffff:0:169.254.169.254]",
    "[64:ff9b:1::169.254.169.254]",
]  # fmt: skip
"""Never allowed, whatever the settings: clouds' secrets, and what is no host's own address."""


async def connectable(url: str, *, allow_private: bool) -> list[str]:
    """The addresses that a request would be sent to: none where the URL or its host is refused."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return []
    if url_fault(parsed) is not None:
        return []
    try:
        return await checked_addresses(parsed, allow_private=allow_private, resolve=resolve_host, redirected=False)
    except HostError:
        return []


@pytest.mark.parametrize("host", PRIVATE)
async def test_a_private_address_in_any_spelling(host: str) -> None:
    assert await connectable(f"http://{host}/", allow_private=False) == []
    assert await connectable(f"https://{host}:8443/x.png?y#z", allow_private=False) == []


@pytest.mark.parametrize("host", PUBLIC)
async def test_a_public_address_in_any_spelling(host: str) -> None:
    found = await connectable(f"http://{host}/", allow_private=False)
    assert found
    assert all(map(is_public, found))


@pytest.mark.parametrize("host", METADATA)
async def test_what_no_setting_allows(host: str) -> None:
    assert await connectable(f"http://{host}/latest/meta-data/", allow_private=True) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://user@8.8.8.8/", "http://user:password@8.8.8.8/", "http://8.8.8.8@127.0.0.1/", "http://8.8.8.8:80@10.0.0.1/",
        "http://127.0.0.1#@8.8.8.8/", "http://127.0.0.1?@8.8.8.8/", "http://127.0.0.1\\@8.8.8.8/",
        "http://8.8.8.8\\@127.0.0.1/", "http://127.0.0.1%2f@8.8.8.8/", "http://127.0.0.1%00.example.org/",
        "http://127.0.0.1%0d%0aHost:%20x/", "http://127.0.0.1\t/", "http://xn--/", "http://xn--a/", "http://xn--0.example/",
        "http://a..b/", "http://./", "http:///x", "http:x", "//8.8.8.8/", "http://[::1/", "http://[]/", "http://[1.2.3.4]/",
        "http://[::ffff:1.2.3]/", "http://8.8.8.8:0/", "http://8.8.8.8:99999/", "http://8.8.8.8:-1/", "http://8.8.8.8:x/",
        "http://256.256.256.256/", "http://1.2.3.4.5/", "http://0x100000000/", "http://4294967296/",
        "file:///etc/passwd", "ftp://8.8.8.8/", "gopher://127.0.0.1:6379/_x", "dict://127.0.0.1:11211/", "ldap://8.8.8.8/",
        "jar:http://8.8.8.8!/", "unix:///var/run/docker.sock", "http+unix://%2fvar%2frun%2fdocker.sock/",
        f"http://{'a' * 64}.example/", f"http://{'a.' * 130}example/",
    ],
)  # fmt: skip
async def test_an_address_that_two_parsers_could_read_differently(url: str) -> None:
    assert await connectable(url, allow_private=False) == []


@pytest.fixture
async def server() -> AsyncIterator[PictureServer]:
    async with serving() as pictures:
        yield pictures


async def fetch(url: str, **more: Any) -> bytes:
    return await fetch_image(url, **{"max_bytes": 65_536, "timeout": 2.0, "allow_private": True, **more})


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/", "//10.0.0.1/x", "http://[::1]/", "http://0x7f.1/", "http://localhost/", "https://192.168.1.1/",
        "http://169.254.169.254/latest/", "http://[fe80::1%25eth0]/", "http://2130706433/", "http://127.0.0.1.:1/",
    ],
)  # fmt: skip
async def test_no_redirect_leads_there(monkeypatch: pytest.MonkeyPatch, location: str, status: str) -> None:
    """The name of a public host; the server behind it stands in for that host."""
    checked = "backend.outbound.checked_transport.is_public"
    monkeypatch.setattr(checked, lambda address: address == "127.0.0.9" or is_public(address))
    connected: list[str] = []
    original = httpx.AsyncHTTPTransport.handle_async_request

    async def watched(transport: Any, request: httpx.Request) -> httpx.Response:
        connected.append(request.url.host)
        return await original(transport, request)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.9"] if host == "public.example" else await resolve_host(host, port)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", watched)
    async with serving_at("127.0.0.9") as public:
        public.answers["/r"] = answer(b"", status, extra=f"Location: {location}\r\n")
        with pytest.raises((ImageInputError, ImageFetchError)):
            await fetch(public.url("/r", "public.example"), allow_private=False, resolve=resolve)
    assert connected == ["127.0.0.9"]


@contextlib.asynccontextmanager
async def serving_at(address: str) -> AsyncIterator[PictureServer]:
    """A server at another address of the loopback."""
    pictures = PictureServer()
    listening = await asyncio.start_server(pictures._serve, address, 0)
    pictures.port = listening.sockets[0].getsockname()[1]
    try:
        yield pictures
    finally:
        listening.close()
        await listening.wait_closed()


async def test_a_name_that_changes_between_redirects_is_checked_each_time(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.outbound.checked_transport.is_public", lambda address: address == "127.0.0.1")
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def resolve(host: str, port: int) -> list[str]:
        return next(answers)

    server.answers["/r"] = answer(b"", "302 Found", extra="Location: /again\r\n")
    with pytest.raises(ImageInputError, match="redirected to a host that is not on the public internet"):
        await fetch(server.url("/r", "rebind.example"), allow_private=False, resolve=resolve)
    assert len(server.requests) == 1


async def test_a_name_with_a_private_address_among_public_ones() -> None:
    for mixed in (["8.8.8.8", "10.0.0.1"], ["::1", "2606:4700:4700::1111"], ["8.8.8.8", "::ffff:127.0.0.1"]):

        async def resolve(host: str, port: int, found: list[str] = mixed) -> list[str]:
            return found

        with pytest.raises(ImageInputError, match="not on the public internet"):
            await fetch("http://mixed.example/", allow_private=False, resolve=resolve)


async def test_a_name_without_an_address() -> None:
    async def nothing(host: str, port: int) -> list[str]:
        return []

    async def garbage(host: str, port: int) -> list[str]:
        return ["not an address"]

    async def fails(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "x")

    for resolve in (nothing, garbage, fails):
        with pytest.raises(ImageInputError):
            await fetch("http://nowhere.example/", resolve=resolve)


OK = b"HTTP/1.1 200 OK\r\n"


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(OK)
    while True:
        writer.write(b"X-More: " + b"a" * 8000 + b"\r\n")
        await writer.drain()


async def endless_status(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0)


async def endless_chunk_sizes(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1;x=" + b"y" * 1000 + b"\r\na\r\n")
        await writer.drain()


async def endless_body(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def more_than_announced(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Content-Length: 10\r\n\r\n" + b"x" * 1_000_000)
    await writer.drain()


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def slow_headers(writer: asyncio.StreamWriter) -> None:
    for byte in OK * 100:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


STRANGE: dict[str, Any] = {
    "endless headers": endless_headers,
    "endless interim answers": endless_status,
    "endless chunk extensions": endless_chunk_sizes,
    "an endless body": endless_body,
    "silence": silent,
    "headers byte by byte": slow_headers,
    "less than announced": OK + b"Content-Length: 60000\r\n\r\nx",
    "more than allowed": OK + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000,
    "a length of digits beyond all numbers": OK + b"Content-Length: " + b"9" * 200 + b"\r\n\r\nx",
    "a negative length": OK + b"Content-Length: -1\r\n\r\nx",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a compressed bomb": OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(30_000_000)),
    "compression in capitals": OK + b"Content-Encoding: GZIP\r\n\r\n" + gzip.compress(bytes(1_000_000)),
    "an unknown encoding": OK + b"Content-Encoding: zstd, br\r\n\r\nx",
    "chunks that are none": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no HTTP": b"220 mail.example ESMTP\r\n",
    "HTTP/0.9": b"<html>",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a redirect to nowhere": b"HTTP/1.1 302 Found\r\nLocation: \r\nContent-Length: 0\r\n\r\n",
    "a redirect to itself": b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    "a redirect to what is no address": b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\nContent-Length: 0\r\n\r\n",
    "part of the body": b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx",
}


@pytest.mark.parametrize("name", STRANGE)
async def test_a_server_that_answers_strangely(server: PictureServer, name: str) -> None:
    server.answers["/x"] = STRANGE[name]
    began = time.monotonic()
    with pytest.raises((ImageInputError, ImageFetchError)) as caught:
        await fetch(server.url("/x"))
    assert time.monotonic() - began < 6
    assert "127.0.0.1" not in str(caught.value)


async def test_what_follows_the_announced_length_is_ignored(server: PictureServer) -> None:
    server.answers["/x"] = more_than_announced
    assert await fetch(server.url("/x")) == b"x" * 10


def test_the_table_is_large() -> None:
    assert len(PRIVATE) > 150
    assert len(set(PRIVATE)) == len(PRIVATE)
