"""Dependencies of endpoints: the services, the caller with the required role, and common parameters."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Query, Request, WebSocket
from pydantic import IPvAnyNetwork
from starlette.requests import HTTPConnection

from backend.api.event_stream import HEAD
from backend.api.origins import comes_from_elsewhere
from backend.core.problems import Forbidden, Unauthorized
from backend.core.roles import NO_DAGS, STANDARD_RIGHTS, Origin, Principal, Role, Scope
from backend.services.application import Application
from backend.services.identity.service_tokens import PREFIX

COOKIE = "visual_ai_session"
SECURE_COOKIE = f"__Host-{COOKIE}"
"""Its name over TLS: with this prefix browsers take the cookie from this host only, not from a sibling."""


# All of these are coroutines: FastAPI runs plain functions in a thread, which costs more than they do.


async def get_application(request: Request) -> Application:
    """The services, which were created when the process started."""
    application: Application = request.app.state.application
    return application


Services = Annotated[Application, Depends(get_application)]


async def user_of(request: Request, services: Application) -> Principal:
    """The user of the bearer token or the cookie.

    Raises `Unauthorized` if there is no valid one, `Forbidden` if the user has no rights left, and `Unavailable`.
    """
    token = token_of(request)
    if token is None:
        raise Unauthorized("This needs a token: send `Authorization: Bearer <token>` from POST /auth/token.")
    who = replace(await services.authenticator.verify(token), origin=origin_of(request, services))
    request.state.who = who
    return who


async def may_connect(websocket: WebSocket, services: Application) -> Principal:
    """`reader` for a WebSocket. Raises `Forbidden` for a page of another origin."""
    token = token_of(websocket)
    if token is None and services.settings.development and is_local(websocket, services):
        return Principal("anonymous", STANDARD_RIGHTS[Role.VIEWER])
    if token is None:
        raise Unauthorized("This needs a token: send `Authorization: Bearer <token>` from POST /auth/token.")
    if session_cookie(websocket.cookies) == token and comes_from_elsewhere(websocket.headers, services.settings):
        raise Forbidden("This connection comes from a page of another origin, which may not make it.")
    principal = await services.authenticator.verify(token)
    _check_scope(principal, "read")
    return principal


async def authenticated(request: Request, services: Services) -> Principal:
    """`user_of` as a dependency: a user, or a machine with a service token of any scope."""
    return await user_of(request, services)


async def reader(request: Request, services: Services) -> Principal:
    """A caller who may read: a user, a service token with that scope or, in development, anyone on this machine."""
    if token_of(request) is None and services.settings.development and is_local(request, services):
        return Principal("anonymous", STANDARD_RIGHTS[Role.VIEWER])
    principal = await user_of(request, services)
    _check_scope(principal, "read")
    return principal


async def token_reader(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """`reader`, but never without a token."""
    _check_scope(principal, "read")
    return principal


async def signed_in(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """A user who has signed in. Raises `Forbidden` for a service token."""
    if principal.service_token is not None:
        raise Forbidden("A service token can't do this; sign in.")
    return principal


async def starter(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """A caller who may trigger runs. Raises `Forbidden` for a Viewer."""
    _check_scope(principal, "trigger")
    if principal.rights.starts == NO_DAGS:
        raise Forbidden("The role Viewer may not trigger workflows; the role User or higher is needed.")
    return principal


async def stopper(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """A caller who may stop and retry runs, as far as their tokens say."""
    _check_scope(principal, "stop")
    return principal


async def author(principal: Annotated[Principal, Depends(signed_in)]) -> Principal:
    """A user who may change templates. Raises `Forbidden` for a Viewer."""
    if principal.rights.starts == NO_DAGS:
        raise Forbidden("The role Viewer may not change templates; the role User or higher is needed.")
    return principal


async def operator(principal: Annotated[Principal, Depends(signed_in)]) -> Principal:
    """A user who operates the service. Raises `Forbidden` below the role Op."""
    if principal.role < Role.OP:
        raise Forbidden("This is for the roles Op and Admin.")
    return principal


async def administrator(principal: Annotated[Principal, Depends(signed_in)]) -> Principal:
    """A user who administers accounts. Raises `Forbidden` below the role Admin."""
    if principal.role < Role.ADMIN:
        raise Forbidden("This is for the role Admin.")
    return principal


def _check_scope(principal: Principal, scope: Scope) -> None:
    token = principal.service_token
    if token is not None and scope not in token.scopes:
        raise Forbidden(f"The service token {token.name!r} doesn't have the scope {scope!r}.")


def wants_head(request: Request) -> bool:
    """Whether the client sent HEAD, so that nothing needs to be streamed."""
    return bool(request.scope.get("state", {}).get(HEAD))


# PostgreSQL rejects queries that contain a NUL, and no stored name does.
Name = Annotated[str | None, Query(min_length=1, max_length=250, pattern=r"^[^\x00]*$")]
"""A query parameter that filters a list by a name."""

Reader = Annotated[Principal, Depends(reader)]
Authenticated = Annotated[Principal, Depends(authenticated)]
TokenReader = Annotated[Principal, Depends(token_reader)]
SignedIn = Annotated[Principal, Depends(signed_in)]
Starter = Annotated[Principal, Depends(starter)]
Stopper = Annotated[Principal, Depends(stopper)]
Author = Annotated[Principal, Depends(author)]
Operator = Annotated[Principal, Depends(operator)]
Administrator = Annotated[Principal, Depends(administrator)]


def token_of(request: HTTPConnection) -> str | None:
    """The token of the Authorization header or, without one, of `X-Api-Key`, which LangGraph's clients send, or of the
    cookie. Raises `Unauthorized`."""
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("The Authorization header is not of the form `Bearer <token>`.")
        return token.strip()
    key = request.headers.get("x-api-key", "").strip()
    # A key of another service, which LangGraph's clients find in their environment, is none of ours.
    if key.startswith(PREFIX) or key.count(".") == 2:
        return key
    return session_cookie(request.cookies)


def session_cookie(cookies: Mapping[str, str]) -> str | None:
    """The token in a browser's cookies, if there is one."""
    return cookies.get(SECURE_COOKIE) or cookies.get(COOKIE)


_PROXIES = frozenset({"forwarded", "via", "x-real-ip", "x-original-host", "x-client-ip", "cf-connecting-ip"})
"""Headers by which proxies say that they forward a request, besides `X-Forwarded-…`."""


def client_address(request: HTTPConnection, services: Application) -> str:
    """The client's address. Of what a proxy reports, only that of one in `VISUAL_AI_TRUSTED_PROXIES` is believed."""
    address = request.client.host if request.client is not None else ""
    reported = [one.strip() for one in ",".join(request.headers.getlist("x-forwarded-for")).split(",") if one.strip()]
    while reported and _is_within(address, services.settings.trusted_proxies):
        address = reported.pop()
    return address[:64]


def origin_of(request: Request, services: Application) -> Origin:
    """Where the request comes from, for the audit log."""
    return Origin(client_address(request, services), request.state.request_id)


def _is_within(address: str, networks: Iterable[IPvAnyNetwork]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def is_local(request: HTTPConnection, services: Application) -> bool:
    """Whether the request comes from a program on this machine, and not through a proxy on it.

    In a container the host's requests come from the gateway, which `VISUAL_AI_LOCAL_NETWORKS` names.
    """
    # A proxy on this machine also connects from the loopback, but what it forwards is not local.
    if any(name in _PROXIES or name.startswith("x-forwarded-") for name in request.headers):
        return False
    # DNS rebinding: a foreign page whose name was made to resolve to this machine still sends its own host name.
    if request.url.hostname not in ("localhost", "127.0.0.1", "::1"):
        return False
    try:
        address = ipaddress.ip_address(request.client.host) if request.client is not None else None
    except ValueError:
        return False
    if address is None:
        return False
    return address.is_loopback or any(address in network for network in services.settings.local_networks)
