"""One request to the fake OpenAI server and its response, sent at once, piece by piece, or not at all."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.kit.openai import wire as wire
from tests.kit.openai.behaviour import Api, Json, error_object, usual_error
from tests.kit.openai.embeddings import embeddings
from tests.kit.openai.log import EXCERPT, RequestRecord
from tests.kit.openai.reply import compact, reply_to
from tests.kit.openai.request import InvalidRequestError, ModelRequest, read_request
from tests.kit.openai.state import PLAIN, ServerState

KEY_HEADERS = ("authorization", "api-key", "x-api-key")
SECRET_HEADERS = {*KEY_HEADERS, "cookie"}


class TransportProtocol(HttpToolsProtocol):
    """Passes the connection to the application, so that it can break it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["transport"] = self.transport


class ClientGoneError(Exception):
    """The client closed the connection before the end of the response."""


class Endpoint:
    """An endpoint of OpenAI's API, as a bare ASGI application, because it must be able to break off."""

    def __init__(self, state: ServerState, api: Api) -> None:
        self.state, self.api = state, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = self.state
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)

        state.number += 1
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        record = RequestRecord(
            number=state.number,
            time=time.monotonic(),
            path=scope["path"],
            api=self.api,
            headers={k: v for k, v in headers.items() if k not in SECRET_HEADERS},
            has_authorization=any(name in headers for name in KEY_HEADERS),
        )
        log, transport = state.log, scope["state"]["transport"]
        gone = asyncio.create_task(_until_gone(receive))
        state.transports.add(transport)
        log.begin(record)
        try:
            exchange = Exchange(state, record, transport, gone, send)
            await exchange.answer(bytes(body), next(filter(None, map(headers.get, KEY_HEADERS)), ""))
        except ClientGoneError:
            record.client_disconnected = True
        finally:
            gone.cancel()
            state.transports.discard(transport)
            record.duration = time.monotonic() - record.time
            log.end(record)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Exchange:
    """One request and its response."""

    def __init__(
        self,
        state: ServerState,
        record: RequestRecord,
        transport: asyncio.Transport,
        gone: asyncio.Task[None],
        send: Send,
    ) -> None:
        self.state, self.record, self.transport, self.gone, self.send = state, record, transport, gone, send
        self.behaviour = PLAIN

    async def answer(self, body: bytes, authorization: str) -> None:
        key = authorization.removeprefix("Bearer ").strip()
        wanted = self.state.settings.api_key
        free = self.record.api == "ollama"
        if not free and (not key or (wanted is not None and key != wanted)):
            await self._error(401, usual_error(401))
            return
        if self.state.bucket is not None and (wait := self.state.bucket.take()):
            self.record.behaviour = "rate"
            limited = {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}
            await self._error(429, usual_error(429), limited)
            return
        try:
            request = self._read(body)
        except InvalidRequestError as error:
            await self._error(400, error_object(str(error), "invalid_request_error"))
            return
        self.behaviour = chosen = self.state.choose(request)
        self.record.behaviour = chosen.name

        if chosen.hold:
            await self._held()
        await self._pause(self.state.settings.latency if chosen.delay is None else chosen.delay)
        if chosen.hang:
            await self._pause(math.inf)
        if chosen.reset:
            # Linger of no seconds: the close is an RST, which the client sees as "connection reset by peer".
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self.transport.abort()
            await self.gone
        elif chosen.status >= 400 and chosen.body is None:
            await self._error(chosen.status, chosen.error or usual_error(chosen.status))
        elif chosen.body is not None:
            await self._whole(chosen.body if isinstance(chosen.body, str) else compact(chosen.body))
        elif request.api == "models":
            names = self.state.settings.models
            listed = [{"id": name, "object": "model", "created": 0, "owned_by": "kit"} for name in names]
            await self._whole(compact({"object": "list", "data": listed}))
        elif request.api == "embeddings":
            await self._whole(compact(embeddings(request)))
        elif request.stream:
            await self._stream(request)
        else:
            await self._whole(compact(wire.body(request, reply_to(request, chosen, self.record.number))))

    def _read(self, body: bytes) -> ModelRequest:
        if self.record.api == "models":
            return ModelRequest(api="models", model="")
        try:
            parsed = json.loads(body)
        except ValueError:
            parsed = None
        request = read_request(self.record.api, parsed)
        record = self.record
        record.model, record.stream, record.params = request.model, request.stream, request.params
        record.prompt, record.prompt_length = request.prompt[:EXCERPT], len(request.prompt)
        record.images, record.tools = [str(image) for image in request.images], list(request.tools)
        record.image_pixels = [image.pixels for image in request.images]
        return request

    async def _held(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.state.held.add(future)
        try:
            await asyncio.wait({self.gone, future}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.state.held.discard(future)

    async def _pause(self, seconds: float) -> None:
        """Raise `ClientGoneError` as soon as the client disconnects."""
        if seconds > 0:
            await asyncio.wait({self.gone}, timeout=None if math.isinf(seconds) else seconds)
        else:
            await asyncio.sleep(0)
        if self.gone.done():
            raise ClientGoneError

    async def _close(self) -> None:
        """Close the connection after what was written has been sent; the client sees it end too early."""
        self.transport.close()
        await self.gone

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        all_headers = {
            "content-type": "application/json",
            "date": format_datetime(datetime.now(UTC), usegmt=True),
            "x-request-id": f"req_{self.record.number}",
            "openai-version": "2020-10-01",
            "openai-processing-ms": str(round((time.monotonic() - self.record.time) * 1000)),
            **({} if self.state.settings.keep_alive else {"connection": "close"}),
            **self._limits(),
            **self._retry_after(),
            **headers,
            **{name.lower(): value for name, value in self.behaviour.headers.items()},
        }
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in all_headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})
        self.record.status = status

    def _limits(self) -> dict[str, str]:
        bucket = self.state.bucket
        requests, left = (bucket.capacity, math.floor(bucket.level)) if bucket else (10_000, 9_999)
        return {
            "x-ratelimit-limit-requests": str(requests),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": f"{1 / bucket.rate:.3f}s" if bucket else "6ms",
            "x-ratelimit-limit-tokens": "2000000",
            "x-ratelimit-remaining-tokens": "1999000",
            "x-ratelimit-reset-tokens": "30ms",
        }

    def _retry_after(self) -> dict[str, str]:
        seconds = self.behaviour.retry_after
        if seconds is None:
            return {}
        match self.behaviour.retry_after_format:
            case "seconds":
                return {"retry-after": f"{seconds:g}"}
            case "ms":
                return {"retry-after-ms": f"{seconds * 1000:g}"}
            case "date":
                then = datetime.now(UTC) + timedelta(seconds=math.ceil(seconds))
                return {"retry-after": format_datetime(then, usegmt=True)}

    async def _error(self, status: int, error: Json, headers: dict[str, str] | None = None) -> None:
        await self._whole(compact(wire.error_body(self.record.api, error, self.record.number)), status, headers)

    async def _whole(self, text: str, status: int | None = None, headers: dict[str, str] | None = None) -> None:
        chosen = self.behaviour
        data = text.encode(chosen.encoding)
        half = data[: len(data) // 2]
        if chosen.malformed:
            data = half
        broken = chosen.cut_after is not None or chosen.stall_after is not None
        await self._start(status or chosen.status, {"content-length": str(len(data)), **(headers or {})})
        await self.send({"type": "http.response.body", "body": half if broken else data, "more_body": broken})
        if chosen.stall_after is not None:
            await self._pause(math.inf)
        elif broken:
            await self._close()

    async def _stream(self, request: ModelRequest) -> None:
        chosen = self.behaviour
        kind = "application/x-ndjson" if request.api == "ollama" else "text/event-stream; charset=utf-8"
        await self._start(chosen.status, {"content-type": kind})
        delay = self.state.settings.token_delay if chosen.token_delay is None else chosen.token_delay
        for position, event in enumerate(wire.events(request, reply_to(request, chosen, self.record.number))):
            await self._pause(delay)
            if position == chosen.hold_after:
                await self._held()
            if position == chosen.cut_after:
                await self._close()
                return
            if position == chosen.end_after:
                break
            if position == chosen.stall_after:
                await self._pause(math.inf)
            if position == chosen.error_after:
                error = chosen.error or usual_error(500)
                await self._event(wire.error_event(request, error, position))
                break
            if chosen.malformed and position == 2:
                event = event[: len(event) // 2] + b"\n\n"
            await self._event(event)
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _event(self, event: bytes) -> None:
        await self.send({"type": "http.response.body", "body": event, "more_body": True})
        self.record.events_sent += 1
