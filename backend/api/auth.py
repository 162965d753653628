"""`/auth`: sign in with an Airflow user, and out."""

from fastapi import APIRouter, Response

from backend.api.deps import COOKIE, Services
from backend.api.schemas.auth import Credentials, Token
from backend.services.application import Application

router = APIRouter(prefix="/auth", tags=["auth"])


@router.post("/token")
async def create_token(credentials: Credentials, response: Response, services: Services) -> Token:
    """Exchange an Airflow user's credentials for a bearer token.

    The same token is set as an HttpOnly cookie, so that a browser's `EventSource` is authorised.
    """
    token, expires_in, role = await services.authenticator.sign_in(
        credentials.username, credentials.password.get_secret_value()
    )
    response.headers["Cache-Control"] = "no-store"
    response.set_cookie(
        COOKIE,
        token,
        max_age=expires_in,
        httponly=True,
        samesite="strict",
        secure=_secure(services),
    )
    return Token(access_token=token, expires_in=expires_in, role=role.label)


@router.post("/logout", status_code=204)
async def delete_cookie(response: Response, services: Services) -> None:
    """Sign a browser out: its cookie is deleted. Safe to repeat, also without one.

    Tokens are kept nowhere, so none is recalled: one that was copied elsewhere is good until it expires.
    """
    response.headers["Cache-Control"] = "no-store"
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_secure(services))


def _secure(services: Application) -> bool:
    """Whether browsers may send the cookie over TLS only."""
    return services.settings.public_url.startswith("https:")
