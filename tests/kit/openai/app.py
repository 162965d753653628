"""The fake OpenAI server's ASGI application: OpenAI's endpoints under /v1 and the kit's own under /_kit.

So are Anthropic's /v1/messages and Ollama's /api/chat, for their clients' sake: they answer and misbehave likewise.
All are under /<anything> too, so that a test can have an address of its own.

POST /_kit/behaviours  one behaviour or a list; `{"preset": "rate_limit", "times": 2}` starts from a preset
POST /_kit/settings    a part of `Settings`: latency, token_delay, rate, burst, api_key
POST /_kit/release     answer the requests that are held
POST /_kit/reset       back to the start: settings, behaviours and log; what is in flight is cut off
GET  /_kit/requests    the log (`?since=<number>` the later ones), GET /_kit/stats its counters
"""

from __future__ import annotations

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.kit.openai.behaviour import behaviour
from tests.kit.openai.exchange import Endpoint
from tests.kit.openai.state import Scripted, ServerState, Settings


def openai_app(state: ServerState) -> Starlette:
    control = Control(state)
    routes = [
        *openai_routes(state, ""),
        *openai_routes(state, "/{session}"),
        Route("/_kit/behaviours", control.post_behaviours, methods=["POST"]),
        Route("/_kit/settings", control.post_settings, methods=["POST"]),
        Route("/_kit/release", control.post_release, methods=["POST"]),
        Route("/_kit/reset", control.post_reset, methods=["POST"]),
        Route("/_kit/requests", control.get_requests),
        Route("/_kit/stats", control.get_stats),
    ]
    return Starlette(routes=routes)


def openai_routes(state: ServerState, prefix: str) -> list[Route]:
    return [
        Route(f"{prefix}/v1/chat/completions", Endpoint(state, "chat"), methods=["POST"]),
        Route(f"{prefix}/v1/responses", Endpoint(state, "responses"), methods=["POST"]),
        Route(
            f"{prefix}/openai/deployments/{{deployment}}/chat/completions", Endpoint(state, "chat"), methods=["POST"]
        ),
        Route(f"{prefix}/v1/embeddings", Endpoint(state, "embeddings"), methods=["POST"]),
        Route(f"{prefix}/v1/models", Endpoint(state, "models"), methods=["GET"]),
        Route(f"{prefix}/v1/messages", Endpoint(state, "messages"), methods=["POST"]),
        Route(f"{prefix}/api/chat", Endpoint(state, "ollama"), methods=["POST"]),
    ]


class Control:
    """The kit's own endpoints."""

    def __init__(self, state: ServerState) -> None:
        self.state = state

    async def post_behaviours(self, request: Request) -> Response:
        given = await request.json()
        try:
            new = [
                behaviour(item.get("preset"), **{k: v for k, v in item.items() if k != "preset"})
                for item in (given if isinstance(given, list) else [given])
            ]
        except (ValidationError, KeyError) as error:
            return JSONResponse({"detail": str(error)}, 422)
        self.state.scripted.extend(Scripted(b) for b in new)
        return Response(status_code=204)

    async def post_settings(self, request: Request) -> Response:
        try:
            self.state.configure(Settings.model_validate({**self.state.settings.model_dump(), **await request.json()}))
        except ValidationError as error:
            return JSONResponse({"detail": str(error)}, 422)
        return Response(status_code=204)

    async def post_release(self, _: Request) -> Response:
        for future in self.state.held:
            if not future.done():
                future.set_result(None)
        return Response(status_code=204)

    async def post_reset(self, _: Request) -> Response:
        self.state.start_anew()
        for transport in list(self.state.transports):
            transport.abort()
        return Response(status_code=204)

    async def get_requests(self, request: Request) -> Response:
        since = int(request.query_params.get("since", 0))
        return JSONResponse([r.model_dump(mode="json") for r in self.state.log.records if r.number > since])

    async def get_stats(self, _: Request) -> Response:
        return JSONResponse(self.state.log.stats().model_dump(mode="json"))
