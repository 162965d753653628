"""`/auth`: sign in with an Airflow user."""

from fastapi import APIRouter, Response

from backend.api.deps import COOKIE, Services
from backend.api.schemas.auth import Credentials, Token

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
        secure=services.settings.public_url.startswith("https:"),
    )
    return Token(access_token=token, expires_in=expires_in, role=role.label)
