"""`/auth` and `/users`: sign in with an Airflow user, sign out, here or everywhere, and see who is signed in."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from backend.api.deps import (
    COOKIE,
    SECURE_COOKIE,
    Administrator,
    Authenticated,
    Services,
    SignedIn,
    origin_of,
    token_of,
)
from backend.api.json_bodies import JsonRoute
from backend.api.schemas.auth import AirflowToken, Credentials, Me, Token
from backend.core.problems import Unauthorized
from backend.core.roles import NO_DAGS
from backend.services.application import Application
from backend.services.identity.authenticator import Session

router = APIRouter(tags=["auth"], route_class=JsonRoute)

AIRFLOW_COOKIE = "_token"
"""Airflow's cookie with its JWT: SameSite=Lax, so that no other site can have a browser send it here with a POST."""

AlsoTokens = Annotated[bool, Query(description="Also revoke the user's service tokens")]


@router.post("/auth/token")
async def create_token(credentials: Credentials, request: Request, response: Response, services: Services) -> Token:
    """Exchange an Airflow user's credentials for a bearer token.

    The token is also set as an HttpOnly cookie, so that a browser's `EventSource` is authorised. The username may be
    spelled in any way that Airflow accepts, or be the e-mail address. After several wrong passwords, further attempts
    from the same address, or for the same account, have to wait: 429, with `Retry-After`.
    """
    session = await services.authenticator.sign_in(
        credentials.username, credentials.password.get_secret_value(), origin_of(request, services)
    )
    return _signed_in(session, response, services)


@router.get("/auth/airflow", status_code=307, response_class=RedirectResponse)
async def go_to_airflow(services: Services) -> RedirectResponse:
    """Airflow's own sign-in page, with whatever it is set up for: single sign-on (OAuth, OIDC, LDAP) or passwords."""
    return RedirectResponse(f"{services.settings.airflow_link_base}/auth/login/")


@router.post("/auth/airflow")
async def exchange_airflow_token(
    request: Request, response: Response, services: Services, body: Annotated[AirflowToken | None, Body()] = None
) -> Token:
    """Exchange an Airflow token for a bearer token: single sign-on, with whatever Airflow is set up for.

    Without an `airflow_token`, it is taken from the cookie of a browser that has signed in to Airflow, which reaches
    this service if both have the same host name. Airflow checks the token. The answer is that of `POST /auth/token`.
    """
    given = body.airflow_token.get_secret_value() if body is not None else request.cookies.get(AIRFLOW_COOKIE)
    if not given:
        raise Unauthorized("This browser has not signed in to Airflow, or Airflow has another host name.")
    return _signed_in(await services.authenticator.exchange(given, origin_of(request, services)), response, services)


@router.post("/auth/logout", status_code=204)
async def sign_out(request: Request, response: Response, services: Services) -> None:
    """Sign out: the token that was sent is no longer accepted, and a browser's cookie is deleted.

    The process that answers refuses the token at once, and others within `VISUAL_AI_ACCOUNT_CHECK_INTERVAL`. Safe to
    repeat, also without a token. Service tokens are revoked with `DELETE /tokens/{token_id}`.
    """
    _delete_cookie(response, services)
    try:
        token = token_of(request)
    except Unauthorized:
        return
    if token is not None:
        await services.authenticator.sign_out(token, origin_of(request, services))


@router.get("/users/me")
async def get_me(who: Authenticated) -> Me:
    """Who the token belongs to. For a page that was reloaded and has only the cookie."""
    expires_at = datetime.fromtimestamp(who.expires_at, UTC) if who.expires_at is not None else None
    return Me(
        user_id=who.username,
        role=who.role.label,
        expires_at=expires_at,
        may_trigger=who.rights.starts != NO_DAGS,
        sees_all=who.sees_all,
        service_token=who.service_token.name if who.service_token else None,
    )


@router.post("/users/me/sign-out", status_code=204)
async def sign_out_everywhere(
    who: SignedIn, services: Services, response: Response, service_tokens: AlsoTokens = False
) -> None:
    """Sign out on all devices: no token that was issued to you until now is accepted any more."""
    await services.authenticator.sign_out_everywhere(who.username, by=who, service_tokens=service_tokens)
    _delete_cookie(response, services)


@router.post("/users/{user_id}/sign-out", status_code=204)
async def sign_out_user(
    user_id: Annotated[str, Path(min_length=1, max_length=250, pattern=r"^[^\x00]*$")],
    who: Administrator,
    services: Services,
    service_tokens: AlsoTokens = False,
) -> None:
    """Sign a user out on all devices. For Admins. It doesn't lock the account: deactivate it in Airflow for that."""
    await services.authenticator.sign_out_everywhere(user_id, by=who, service_tokens=service_tokens)


def _signed_in(session: Session, response: Response, services: Application) -> Token:
    response.set_cookie(
        _cookie(services),
        session.token,
        max_age=session.expires_in,
        httponly=True,
        samesite="strict",
        secure=_secure(services),
    )
    return Token(access_token=session.token, expires_in=session.expires_in, role=session.role.label)


def _delete_cookie(response: Response, services: Application) -> None:
    response.delete_cookie(_cookie(services), httponly=True, samesite="strict", secure=_secure(services))


def _cookie(services: Application) -> str:
    return SECURE_COOKIE if _secure(services) else COOKIE


def _secure(services: Application) -> bool:
    """Whether browsers must send the cookie over TLS only."""
    return services.settings.public_url.startswith("https:")
