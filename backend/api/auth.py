"""`/auth` and `/users/me`: sign in with an Airflow user, sign out, and see who is signed in."""

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from backend.api.deps import COOKIE, Services, SignedIn
from backend.api.json_bodies import JsonRoute
from backend.api.schemas.auth import Credentials, Me, Token
from backend.services.application import Application

router = APIRouter(tags=["auth"], route_class=JsonRoute)


@router.post("/auth/token")
async def create_token(credentials: Credentials, response: Response, services: Services) -> Token:
    """Exchange an Airflow user's credentials for a bearer token.

    The token is also set as an HttpOnly cookie, so that a browser's `EventSource` is authorised.
    """
    token, expires_in, role = await services.authenticator.sign_in(
        credentials.username, credentials.password.get_secret_value()
    )
    response.set_cookie(
        COOKIE,
        token,
        max_age=expires_in,
        httponly=True,
        samesite="strict",
        secure=_secure(services),
    )
    return Token(access_token=token, expires_in=expires_in, role=role.label)


@router.post("/auth/logout", status_code=204)
async def delete_cookie(response: Response, services: Services) -> None:
    """Sign a browser out by deleting its cookie. Safe to repeat, also without a cookie.

    Tokens are not stored, so they can't be revoked: a copied token remains valid until it expires.
    """
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_secure(services))


@router.get("/users/me")
async def get_me(who: SignedIn) -> Me:
    """The signed-in user. For a page that was reloaded and has only the cookie."""
    expires_at = datetime.fromtimestamp(who.expires_at, UTC) if who.expires_at is not None else None
    return Me(user_id=who.username, role=who.role.label, expires_at=expires_at)


def _secure(services: Application) -> bool:
    """Whether browsers must send the cookie over TLS only."""
    return services.settings.public_url.startswith("https:")
