"""Middleware for every request: headers of its response, where it may come from, and the limit on its body.

Pure ASGI, so that streams are not buffered.
"""

import json
import logging
import re
import uuid
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.deps import session_cookie
from backend.api.identity.refusals import SAFE, SIGN_IN, record_refusal
from backend.api.origins import comes_from_elsewhere
from backend.core.problems import Forbidden, Problem, TooLarge
from backend.core.settings import Settings

log = logging.getLogger(__name__)

_ACCEPTABLE_ID = re.compile(r"[\w.:-]{1,128}\Z")
_MULTIPART_OVERHEAD = 64 * 1024


def security_headers(settings: Settings) -> dict[str, str]:
    """What browsers may do with a response that doesn't say itself: nothing."""
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if settings.public_url.startswith("https:"):
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return headers


class ResponseHeaders:
    """Sets the headers of every response.

    `X-Request-ID` is the request's own if it is well-formed, or else a new one. The others apply where the response
    says nothing else: no caching, because what is sent here changes or is private, and nothing that a browser could do
    with it besides reading it.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._defaults = {"Cache-Control": "no-store", **security_headers(settings)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ACCEPTABLE_ID.match(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in self._defaults.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            if not started:
                raise
            # Too late for an error response: the connection ends without the rest.
            log.warning("request %s failed after its response began", request_id, exc_info=True)


class BodyLimit:
    """Rejects a body that is larger than the limit, by its declared length or as it arrives."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._limit = settings.max_body_bytes
        self._upload_limit = settings.max_image_bytes + _MULTIPART_OVERHEAD

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        uploads = scope["path"] == "/images"
        limit = self._upload_limit if uploads else self._limit
        setting = "VISUAL_AI_MAX_IMAGE_BYTES" if uploads else "VISUAL_AI_MAX_BODY_BYTES"
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            await _refuse(send, limit, setting)
            return
        received = 0
        refused = False

        async def limited_receive() -> Message:
            nonlocal received, refused
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    refused = True
                    raise _BodyTooLarge
            return message

        async def guarded_send(message: Message) -> None:
            if not refused:
                await send(message)

        with suppress(_BodyTooLarge):
            await self.app(scope, limited_receive, guarded_send)
        if refused:
            await _refuse(send, limit, setting)


class _BodyTooLarge(Exception):
    """Stops reading a body."""


async def _refuse(send: Send, limit: int, setting: str) -> None:
    problem = TooLarge(
        f"The body is larger than {limit} bytes, the limit of {setting}. Upload pictures with POST /images and send "
        "their image_url."
    )
    await _send(send, problem)


async def _send(send: Send, problem: Problem) -> None:
    """Respond without having read the body: the connection can't be used again."""
    body = json.dumps(problem.body()).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class CrossSite:
    """Refuses requests that another site's page makes with a user's cookie.

    `SameSite=Strict` keeps the cookie from other sites, but pages on sibling hosts and on other ports of the same host
    are of the same site. Browsers say where a request comes from; whoever sends a token by itself isn't asked.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] not in SAFE and self._is_foreign(scope):
            refusal = Forbidden("This request comes from a page of another origin, which may not make it.")
            record_refusal(Request(scope), refusal)
            await _send(send, refusal)
            return
        await self.app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        # Signing in sets the cookie: a foreign page could sign a browser in as somebody else.
        if scope["path"] not in SIGN_IN and (
            "authorization" in headers or session_cookie(cookie_parser(headers.get("cookie", ""))) is None
        ):
            return False
        return comes_from_elsewhere(headers, self._settings)
