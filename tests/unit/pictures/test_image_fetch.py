"""Fetching pictures from a real server: what is accepted, what is refused, and what a retry may mend."""

import asyncio
import gzip
import pickle
import socket
import ssl
import time
from collections.abc import AsyncIterator

import pytest

from backend.core.settings import Settings
from backend.outbound.checked_transport import is_public
from backend.pictures.fetch import fetch_image
from backend.pictures.load import ImageFetchError, ImageInputError, load_image
from tests.kit.certificates import self_signed
from tests.kit.pictures import bomb, encode, photo
from tests.kit.servers.pictures import PictureServer, answer, serving

PNG = encode(photo(64, 48))
LIMIT = 64 * 1024
PUBLIC = Settings(_env_file=None, max_image_bytes=LIMIT, image_fetch_timeout=5)
PRIVATE = Settings(_env_file=None, allow_private_images=True, max_image_bytes=LIMIT, image_fetch_timeout=5)


@pytest.fixture
async def server() -> AsyncIterator[PictureServer]:
    async with serving() as pictures:
        yield pictures


async def test_fetches_and_decodes(server: PictureServer) -> None:
    server.answers["/a.png"] = answer(PNG)
    loaded = await load_image(server.url("/a.png"), PRIVATE)
    assert (loaded.facts.width, loaded.facts.height, loaded.facts.format) == (64, 48, "PNG")
    assert loaded.data == PNG


async def test_sends_no_cookie_and_no_credentials(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.answers["/a"] = answer(b"", "302 Found", extra="Location: /b\r\nSet-Cookie: session=1\r\n")
    server.answers["/b"] = answer(PNG)
    await load_image(server.url("/a"), PRIVATE)
    heads = "".join(server.requests).lower()
    assert len(server.requests) == 2
    assert "cookie" not in heads
    assert "authorization" not in heads
    assert f"host: 127.0.0.1:{server.port}" in heads


async def test_the_content_type_is_ignored(server: PictureServer) -> None:
    server.answers["/picture"] = answer(PNG, content_type="text/html")
    assert (await load_image(server.url("/picture"), PRIVATE)).facts.media_type == "image/png"
    server.answers["/page"] = answer(b"<html>hello</html>", content_type="image/png")
    with pytest.raises(ImageInputError, match=r"^image_url: this is not a picture that can be read; accepted"):
        await load_image(server.url("/page"), PRIVATE)


async def test_chunked_without_a_length(server: PictureServer) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (PNG[:100], PNG[100:]))
    server.answers["/c"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    assert (await load_image(server.url("/c"), PRIVATE)).data == PNG


async def test_stops_reading_when_the_limit_is_passed(server: PictureServer) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"2000\r\n" + bytes(0x2000) + b"\r\n")
            await writer.drain()
            sent += 0x2000

    server.answers["/endless"] = endless
    with pytest.raises(ImageInputError, match=r"larger than the limit of 65536 bytes; send a smaller one"):
        await load_image(server.url("/endless"), PRIVATE)
    assert sent < 50 * 2**20


async def test_refuses_by_the_announced_length(server: PictureServer) -> None:
    server.answers["/big"] = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
    with pytest.raises(ImageInputError, match="larger than the limit"):
        await load_image(server.url("/big"), PRIVATE)


async def test_refuses_a_compressed_body(server: PictureServer) -> None:
    server.answers["/gz"] = answer(gzip.compress(bytes(10**7)), extra="Content-Encoding: gzip\r\n")
    with pytest.raises(ImageInputError, match="compressed answer"):
        await load_image(server.url("/gz"), PRIVATE)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("404 Not Found", "the server answered 404 Not Found; check that the picture still exists"),
        ("403 Forbidden", "answered 403 Forbidden; the picture must be readable without signing in"),
        ("418 Teapot", "answered 418 .*give an address that answers with the picture itself"),
        ("304 Not Modified", "answered 304"),
        ("204 No Content", "answered 204"),
    ],
)
async def test_a_client_error_is_final(server: PictureServer, status: str, message: str) -> None:
    server.answers["/x"] = answer(b"", status)
    with pytest.raises(ImageInputError, match=message) as caught:
        await load_image(server.url("/x"), PRIVATE)
    assert caught.value.field == "image_url"
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own
    assert (str(copy), copy.field) == (str(caught.value), "image_url")


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"])
async def test_a_server_error_may_be_retried(server: PictureServer, status: str) -> None:
    server.answers["/x"] = answer(b"", status, extra="Retry-After: 7\r\n")
    with pytest.raises(ImageFetchError, match=f"^image_url: the server answered {status}") as caught:
        await load_image(server.url("/x"), PRIVATE)
    assert caught.value.retry_after == 7
    assert not isinstance(caught.value, ValueError)


async def test_slow_server(server: PictureServer) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        while True:  # never idle for long: only a limit on the whole ends it
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    server.answers["/slow"] = drip
    hasty = PRIVATE.model_copy(update={"image_fetch_timeout": 0.4})
    started = time.monotonic()
    with pytest.raises(ImageFetchError, match=r"within 0\.4 s"):
        await load_image(server.url("/slow"), hasty)
    assert time.monotonic() - started < 2


async def test_connection_refused_and_cut(server: PictureServer) -> None:
    server.answers["/cut"] = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nonly this"
    with pytest.raises(ImageFetchError, match="connection to the server failed"):
        await load_image(server.url("/cut"), PRIVATE)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ImageFetchError, match="connection to the server failed") as caught:
            await load_image(f"http://127.0.0.1:{unused.getsockname()[1]}/", PRIVATE)
    assert "127.0.0.1" not in str(caught.value)


async def test_truncated_picture_and_decompression_bomb(server: PictureServer) -> None:
    server.answers["/half"] = answer(PNG[: len(PNG) // 2])
    with pytest.raises(ImageInputError, match="damaged or cut off"):
        await load_image(server.url("/half"), PRIVATE)
    server.answers["/bomb"] = answer(bomb())
    with pytest.raises(ImageInputError, match=r"more pixels than the limit of 50000000"):
        await load_image(server.url("/bomb"), PRIVATE)


async def test_redirects_are_followed_five_times(server: PictureServer) -> None:
    for hop in range(7):
        server.answers[f"/{hop}"] = answer(b"", "302 Found", extra=f"Location: /{hop + 1}\r\n")
    server.answers["/5"] = answer(PNG)
    assert (await load_image(server.url("/0"), PRIVATE)).data == PNG
    server.answers["/5"] = answer(b"", "301 Moved", extra="Location: /6\r\n")
    with pytest.raises(ImageInputError, match="redirected more than 5 times"):
        await load_image(server.url("/0"), PRIVATE)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://example.org/a", "http://u:p@example.org/", "gopher:x"]
)
async def test_redirects_stay_on_http(server: PictureServer, location: str) -> None:
    server.answers["/r"] = answer(b"", "302 Found", extra=f"Location: {location}\r\n")
    with pytest.raises(ImageInputError, match="the server redirected to an address that"):
        await load_image(server.url("/r"), PRIVATE)


async def test_redirect_to_a_private_host(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public host must not redirect to a private one. The loopback stands in for the public host here."""
    monkeypatch.setattr("backend.outbound.checked_transport.is_public", lambda address: address == "127.0.0.1")
    server.answers["/r"] = answer(b"", "302 Found", extra="Location: http://10.1.2.3/admin\r\n")
    with pytest.raises(ImageInputError, match="redirected to a host that is not on the public internet") as caught:
        await load_image(server.url("/r"), PUBLIC)
    assert "10.1.2.3" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1", "017700000001", "[::1]", "[::ffff:127.0.0.1]"],
)
async def test_private_hosts_are_refused(server: PictureServer, host: str) -> None:
    with pytest.raises(ImageInputError, match=r"the host is not on the public internet.*upload the picture"):
        await load_image(server.url("/a.png", host), PUBLIC)
    assert server.requests == []


RESERVED = [
    "169.254.169.254", "169.254.170.2", "[fe80::1]", "[::ffff:169.254.169.254]", "[2002:a9fe:a9fe::]", "0xa9fea9fe",
    "[64:ff9b::a9fe:a9fe]", "168.63.129.16", "100.100.100.200", "192.0.0.192", "[fd00:ec2::254]", "[fd20:ce::254]",
    "0.0.0.0", "[::]", "224.0.0.1", "255.255.255.255", "240.0.0.1", "[ff02::1]",
]  # fmt: skip


@pytest.mark.parametrize("host", RESERVED)
async def test_where_clouds_keep_secrets_is_never_reached(
    server: PictureServer, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connected(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr("httpx.AsyncHTTPTransport.handle_async_request", connected)
    for settings, words in ((PUBLIC, "not on the public internet"), (PRIVATE, "reserved for the machine's own use")):
        with pytest.raises(ImageInputError, match=words):
            await load_image(f"http://{host}/latest/meta-data/", settings)


@pytest.mark.parametrize("host", RESERVED)
async def test_a_private_server_cant_redirect_there_either(server: PictureServer, host: str) -> None:
    server.answers["/r"] = answer(b"", "302 Found", extra=f"Location: http://{host}/latest/meta-data/\r\n")
    with pytest.raises(ImageInputError, match="redirected to a host that is reserved for the machine's own use"):
        await load_image(server.url("/r"), PRIVATE)
    assert len(server.requests) == 1


async def test_one_private_address_among_public_ones_is_enough(server: PictureServer) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    with pytest.raises(ImageInputError, match="not on the public internet"):
        await load_image(server.url("/a.png", "rebind.example"), PUBLIC, resolve=resolve)
    assert server.requests == []


async def test_the_checked_address_is_the_one_connected_to(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: a name that answers differently the second time is never asked a second time."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    def no_lookup(*args: object, **kwargs: object) -> None:
        raise AssertionError("a second look-up")

    server.answers["/a.png"] = answer(PNG)
    # Connecting to a literal address looks up nothing but itself.
    original = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: original(host, *a, **k) if host == "127.0.0.1" else no_lookup()
    )
    await load_image(server.url("/a.png", "rebind.example"), PRIVATE, resolve=resolve)
    assert asked == ["rebind.example"]
    assert f"Host: rebind.example:{server.port}" in server.requests[0]


async def test_an_address_that_does_not_answer_gives_way_to_the_next(server: PictureServer) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["::1", "127.0.0.1"]

    server.answers["/a.png"] = answer(PNG)
    assert (await load_image(server.url("/a.png", "two.example"), PRIVATE, resolve=resolve)).data == PNG


@pytest.mark.parametrize(
    ("errno", "error", "message"),
    [
        (socket.EAI_AGAIN, ImageFetchError, "could not be looked up just now"),
        (socket.EAI_NONAME, ImageInputError, "does not exist"),
    ],
)
async def test_names_that_do_not_resolve(errno: int, error: type[Exception], message: str) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(errno, "no")

    with pytest.raises(error, match=message):
        await load_image("http://nowhere.example/a.png", PUBLIC, resolve=resolve)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://user:secret@example.org/a.png", "holds a user name or a password"),
        ("http:///a.png", "names no host"),
        ("http://exa mple.org/", "name does not exist"),
        ("http://[::1", "not a usable address"),
        ("https://xn--/", "a host that can't exist"),
        ("https://xn--a/", "a host that can't exist"),
        ("https://xn--ls8h--/", "host"),
        ("https://\u2028/", "not a usable address"),
        ("https://①②⑦.⓪.⓪.①/", "not a usable address"),
        ("http://example.org:99999/", "port that does not exist"),
        ("https://" + "a" * 64 + ".example/", "name"),
        ("ftp://example.org/a.png", "starts with https://"),
        ("file:///etc/passwd", "starts with https://"),
        ("/etc/passwd", "starts with https://"),
        ("", "starts with https://"),
    ],
)
async def test_unusable_addresses(url: str, message: str) -> None:
    with pytest.raises(ImageInputError, match=message) as caught:
        await load_image(url, PUBLIC)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("::10.0.0.1", False),
        ("2002:7f00:0001::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("64:ff9b:1::808:808", False),
        ("2001:db8::1", False),
        ("2001:0:7f00:1::", False),
        ("168.63.129.16", False),
        ("100.100.100.200", False),
        ("192.0.0.192", False),
        ("192.88.99.1", False),
        ("198.18.0.1", False),
        ("192.0.2.1", False),
        ("203.0.113.1", False),
        ("3fff::1", False),
        ("3fff:fff::1", False),
        ("4000::1", False),
        ("5f00::1", False),
        ("100::1", False),
        ("fec0::1", False),
        ("2001:470::5efe:a00:1", False),
        ("2001:470::200:5efe:a00:1", False),
        ("2001:470::5efe:808:808", True),
        ("::ffff:169.254.169.254", False),
        ("2002:a9fe:a9fe::", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("not an address", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_tls_keeps_the_name_and_checks_the_certificate() -> None:
    certificate = self_signed("pictures.example")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate.file, certificate.key_file)
    names: list[str | None] = []
    served.sni_callback = lambda _socket, name, _context: names.append(name)
    trusting = ssl.create_default_context(cafile=certificate.file)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def fetch(url: str, context: ssl.SSLContext | None) -> bytes:
        return await fetch_image(
            url, max_bytes=LIMIT, timeout=5, allow_private=True, resolve=resolve, ssl_context=context
        )

    async with serving(served) as server:
        server.answers["/a"] = answer(PNG)
        assert await fetch(server.url("/a", "pictures.example"), trusting) == PNG
        assert names == ["pictures.example"]
        with pytest.raises(ImageInputError, match="TLS certificate could not be verified"):
            await fetch(server.url("/a", "other.example"), trusting)
        with pytest.raises(ImageInputError, match="TLS certificate could not be verified"):
            await fetch(server.url("/a", "pictures.example"), None)
