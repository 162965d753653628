"""Middleware for every request: headers of its response, and the limit on its body.

Pure ASGI, so that streams are not buffered.
"""

import json
import logging
import re
import uuid
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.problems import TooLarge
from backend.core.settings import Settings

log = logging.getLogger(__name__)

_ACCEPTABLE_ID = re.compile(r"[\w.:-]{1,128}\Z")
_MULTIPART_OVERHEAD = 64 * 1024


class ResponseHeaders:
    """Sets the headers of every response: `X-Request-ID` is the request's own if it is well-formed, or else a new one;
    `Cache-Control: no-store` where the response says nothing else, because what is sent here changes or is private."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

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
                headers.setdefault("Cache-Control", "no-store")
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
    body = json.dumps(problem.body()).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
