"""Dependencies of endpoints: the services, the caller with the required role, and common parameters."""

import ipaddress
from typing import Annotated

from fastapi import Depends, Query, Request

from backend.api.event_stream import HEAD
from backend.core.problems import Forbidden, Unauthorized
from backend.core.roles import Principal, Role
from backend.services.application import Application

COOKIE = "visual_ai_session"


# All of these are coroutines: FastAPI runs plain functions in a thread, which costs more than they do.


async def get_application(request: Request) -> Application:
    """The services, which were created when the process started."""
    application: Application = request.app.state.application
    return application


Services = Annotated[Application, Depends(get_application)]


def user_of(request: Request, services: Application) -> Principal:
    """The user of the bearer token or the cookie. Raises `Unauthorized` if there is no valid one."""
    token = _token(request)
    if token is None:
        raise Unauthorized("This needs a token: send `Authorization: Bearer <token>` from POST /auth/token.")
    return services.authenticator.verify(token)


async def signed_in(request: Request, services: Services) -> Principal:
    """`user_of` as a dependency."""
    return user_of(request, services)


async def reader(request: Request, services: Services) -> Principal:
    """A caller who may read: a signed-in user or, in development, anyone on this machine without a token."""
    if _token(request) is None and services.settings.development and is_local(request, services):
        return Principal("anonymous", Role.VIEWER)
    return user_of(request, services)


async def starter(principal: Annotated[Principal, Depends(signed_in)]) -> Principal:
    """A user who may trigger runs. Raises `Forbidden` for a Viewer."""
    if principal.role < Role.USER:
        raise Forbidden("The role Viewer may not trigger workflows; the role User or higher is needed.")
    return principal


async def author(principal: Annotated[Principal, Depends(signed_in)]) -> Principal:
    """A user who may change templates. Raises `Forbidden` for a Viewer."""
    if principal.role < Role.USER:
        raise Forbidden("The role Viewer may not change templates; the role User or higher is needed.")
    return principal


async def operator(principal: Annotated[Principal, Depends(signed_in)]) -> Principal:
    """A user who operates the service. Raises `Forbidden` below the role Op."""
    if principal.role < Role.OP:
        raise Forbidden("This is for the roles Op and Admin.")
    return principal


def wants_head(request: Request) -> bool:
    """Whether the client sent HEAD, so that nothing needs to be streamed."""
    return bool(request.scope.get("state", {}).get(HEAD))


# PostgreSQL rejects queries that contain a NUL, and no stored name does.
Name = Annotated[str | None, Query(min_length=1, max_length=250, pattern=r"^[^\x00]*$")]
"""A query parameter that filters a list by a name."""

Reader = Annotated[Principal, Depends(reader)]
SignedIn = Annotated[Principal, Depends(signed_in)]
Starter = Annotated[Principal, Depends(starter)]
Author = Annotated[Principal, Depends(author)]
Operator = Annotated[Principal, Depends(operator)]


def _token(request: Request) -> str | None:
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("The Authorization header is not of the form `Bearer <token>`.")
        return token.strip()
    return request.cookies.get(COOKIE)


def is_local(request: Request, services: Application) -> bool:
    """Whether the request comes from a program on this machine, and not through a proxy on it.

    In a container the host's requests come from the gateway, which `VISUAL_AI_LOCAL_NETWORKS` names.
    """
    # A proxy on this machine also connects from the loopback, but what it forwards is not local.
    if "x-forwarded-for" in request.headers or "forwarded" in request.headers:
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
