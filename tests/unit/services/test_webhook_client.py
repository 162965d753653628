"""Posting to a real receiver: what goes out, where it may go, and what a further attempt may mend."""

import asyncio
import socket
import ssl
import time
from email.utils import formatdate
from typing import Any

import pytest

from backend.clients.webhooks import WebhookClient, WebhookError, WebhookFailed, WebhookRefused
from backend.core.settings import Settings
from backend.services.notifications.deliveries import MAX_BACKOFF, MAX_RETRY_AFTER, next_wait, signature
from tests.kit.certificates import self_signed
from tests.kit.servers.webhooks import Answer, Receiver, receiving

BODY = b'{"event":"run_failed"}'


def client(*, trusting: bool = True, **changes: Any) -> WebhookClient:
    more = {name: changes.pop(name) for name in ("resolve", "ssl_context") if name in changes}
    allowed = {"allow_private_webhooks": trusting, "allow_http_webhooks": trusting, "webhook_timeout": 3.0}
    return WebhookClient(Settings(_env_file=None, **{**allowed, **changes}), **more)


async def failure(receiver: Receiver, answer: Answer, asking: WebhookClient | None = None) -> WebhookError:
    receiver.script("/hook", answer)
    with pytest.raises(WebhookError) as caught:
        await (asking or client()).post(receiver.url(), BODY, {})
    assert "127.0.0.1" not in str(caught.value)
    return caught.value


async def test_a_request_contains_the_body_and_nothing_else(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    receiver.script("/hook", Answer(204, {"Set-Cookie": "session=1"}))
    assert await client().post(receiver.url(), BODY, {"X-Visual-AI-Id": "7"}) == 204
    (request,) = receiver.received
    assert (request.body, request.headers["content-type"]) == (BODY, "application/json")
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["x-visual-ai-id"] == "7"
    assert not {"cookie", "authorization"} & request.headers.keys()


def test_the_signature_covers_the_time_and_the_body() -> None:
    # By OpenSSL: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'a secret that is long enough'
    assert signature("a secret that is long enough", b'{"a":1}', 1_700_000_000) == (
        "t=1700000000,v1=577fa58b0b57aa89704e9b48db1e5c5abbab9dc98ed5eb4abe127d3c0337598c"
    )


@pytest.mark.parametrize("status", [400, 401, 404, 408, 429, 500, 503])
async def test_errors_that_another_attempt_may_resolve(receiver: Receiver, status: int) -> None:
    error = await failure(receiver, Answer(status, {"Retry-After": "7"}))
    assert isinstance(error, WebhookFailed)
    assert (error.status, error.retry_after, str(error)) == (status, 7, f"the receiver answered {status}")


async def test_retry_after_may_be_a_date(receiver: Receiver) -> None:
    now = time.time()
    headers = {"Date": formatdate(now, usegmt=True), "Retry-After": formatdate(now + 90, usegmt=True)}
    assert (await failure(receiver, Answer(503, headers))).retry_after == 90


async def test_a_receiver_that_is_gone_is_not_tried_again(receiver: Receiver) -> None:
    error = await failure(receiver, Answer(410))
    assert isinstance(error, WebhookRefused)
    assert error.status == 410


async def test_hanging_and_broken_connections_fail(receiver: Receiver) -> None:
    hasty = client(webhook_timeout=0.3)
    error = await failure(receiver, Answer(hang=True), hasty)
    assert (type(error), str(error)) == (WebhookFailed, "no answer within 0.3 s")
    assert isinstance(await failure(receiver, Answer(cut=True)), WebhookFailed)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(WebhookFailed, match=r"^the connection failed \(ConnectError\)$"):
            await client().post(f"http://127.0.0.1:{unused.getsockname()[1]}/", BODY, {})


async def test_an_endless_response_is_not_read(receiver: Receiver) -> None:
    receiver.script("/hook", Answer(endless=True))
    async with asyncio.timeout(2):
        assert await client().post(receiver.url(), BODY, {}) == 200


# Redirects


async def test_a_redirect_that_keeps_the_body_is_followed(receiver: Receiver) -> None:
    receiver.script("/hook", Answer(308, {"Location": "/moved"}))
    assert await client().post(receiver.url(), BODY, {"X-Visual-AI-Id": "7"}) == 200
    assert [(r.body, r.headers["x-visual-ai-id"]) for r in receiver.at("/moved")] == [(BODY, "7")]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_drops_the_body_is_refused(receiver: Receiver, status: int) -> None:
    error = await failure(receiver, Answer(status, {"Location": "/moved"}))
    assert isinstance(error, WebhookRefused)
    assert "give the final address" in str(error)
    assert receiver.at("/moved") == []


async def test_the_number_of_redirects_is_limited(receiver: Receiver) -> None:
    error = await failure(receiver, Answer(307, {"Location": "/hook"}))
    assert isinstance(error, WebhookRefused)
    assert "more than 3 times" in str(error)
    assert len(receiver.received) == 4


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://u:p@127.0.0.1/", "gopher:x"])
async def test_redirects_stay_on_http(receiver: Receiver, location: str) -> None:
    error = await failure(receiver, Answer(307, {"Location": location}))
    assert isinstance(error, WebhookRefused)
    assert "redirected to an address" in str(error)


async def test_a_redirect_from_a_public_to_a_private_host_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.outbound.checked_transport.is_public", lambda address: address == "127.0.0.1")
    checking = client(allow_private_webhooks=False)
    error = await failure(receiver, Answer(307, {"Location": "http://10.1.2.3/admin"}), checking)
    assert isinstance(error, WebhookRefused)
    assert "redirected to a host that is not on the public internet" in str(error)
    assert "10.1.2.3" not in str(error)


# Where it may go


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "169.254.169.254"])
async def test_private_hosts_are_refused(receiver: Receiver, host: str) -> None:
    checking = client(allow_private_webhooks=False)
    with pytest.raises(WebhookRefused, match=r"not on the public internet.*VISUAL_AI_ALLOW_PRIVATE_WEBHOOKS"):
        await checking.post(receiver.url(host=host), BODY, {})
    fault = await checking.check(receiver.url(host=host))
    assert fault is not None
    assert "not on the public internet" in fault
    assert receiver.received == []


async def test_one_private_address_among_public_ones_is_refused(receiver: Receiver) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    with pytest.raises(WebhookRefused, match="not on the public internet"):
        await client(allow_private_webhooks=False, resolve=resolve).post(receiver.url(host="two.example"), BODY, {})
    assert receiver.received == []


async def test_connections_go_to_the_checked_address(receiver: Receiver) -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    assert await client(resolve=resolve).post(receiver.url(host="rebind.example"), BODY, {}) == 200
    assert asked == ["rebind.example"]
    assert receiver.received[0].headers["host"] == f"rebind.example:{receiver.port}"


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://example.org/", "is not https://; where that is to be trusted, set VISUAL_AI_ALLOW_HTTP_WEBHOOKS=true"),
        ("ftp://example.org/", "is not https://"),
        ("hooks.example.org", "is not https://"),
        ("https://", "names no host"),
        ("https://user:pw@example.org/", "holds a user name or a password, which is not accepted"),
        ("https://example.org:99999/", "has a port that does not exist"),
        ("https://[::1", "is not a usable address; check it for typing errors"),
        ("https://10.0.0.8/", "can't be used: the host is not on the public internet"),
    ],
)
async def test_unusable_addresses_are_refused(url: str, fault: str) -> None:
    checking = client(trusting=False)
    found = await checking.check(url)
    assert found is not None
    assert found.startswith(fault)
    assert "pw" not in found
    with pytest.raises(WebhookRefused):
        await checking.post(url, BODY, {})


@pytest.mark.parametrize(("errno", "accepted"), [(socket.EAI_AGAIN, True), (socket.EAI_NONAME, False)])
async def test_names_that_can_not_be_resolved(errno: int, accepted: bool) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(errno, "no")

    asking = client(trusting=False, resolve=resolve)
    assert (await asking.check("https://nowhere.example/") is None) is accepted
    with pytest.raises(WebhookFailed, match="name"):  # it may be there the next time
        await asking.post("https://nowhere.example/", BODY, {})


async def test_tls_uses_the_host_name_and_verifies_the_certificate() -> None:
    certificate = self_signed("hooks.example")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate.file, certificate.key_file)
    trusting = ssl.create_default_context(cafile=certificate.file)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with receiving(served) as receiver:
        known = client(resolve=resolve, ssl_context=trusting, allow_http_webhooks=False)
        assert await known.post(receiver.url(host="hooks.example"), BODY, {}) == 200
        for asking, host in ((known, "other.example"), (client(resolve=resolve), "hooks.example")):
            with pytest.raises(WebhookFailed, match="its TLS certificate could not be verified"):
                await asking.post(receiver.url(host=host), BODY, {})
    assert len(receiver.received) == 1


# How long it waits


def test_the_wait_doubles_and_half_of_it_is_random() -> None:
    for attempt, full in ((1, 10.0), (2, 20.0), (5, 160.0), (9, 2560.0), (12, MAX_BACKOFF), (1000, MAX_BACKOFF)):
        waits = [next_wait(attempt, 10.0) for _ in range(200)]
        assert full / 2 <= min(waits) < max(waits) <= full
        assert max(waits) - min(waits) > full / 5


def test_the_wait_that_the_receiver_asks_for_is_observed() -> None:
    assert 90 <= next_wait(1, 10.0, 90) <= 99
    assert next_wait(5, 10.0, 3) >= 80, "less than the backoff is no reason to hurry"
    assert next_wait(1, 10.0, 10**9) <= MAX_RETRY_AFTER * 1.1
