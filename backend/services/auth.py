"""Signs users in with their Airflow credentials, and verifies the tokens it issues."""

import logging
import time

import jwt

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.core.problems import Forbidden, Unauthorized, Unavailable
from backend.core.roles import Principal, Role
from backend.services.notifications.secret_box import SecretBox, UnreadableError

log = logging.getLogger(__name__)

_ALGORITHM = "HS256"
_ISSUER = "langgraph-flow"
_REQUIRED = ["exp", "iat", "sub", "iss", "role", "aft"]


class Authenticator:
    """Checks credentials against Airflow, and issues and verifies the API's own JWT.

    The JWT contains the user's Airflow token, encrypted. Whatever a user does here is therefore done in Airflow under
    their own name and rights, without a session store. A JWT expires no later than its Airflow token.
    """

    def __init__(self, secret: str, lifetime: int, airflow: AirflowClient) -> None:
        self._secret = secret
        self._lifetime = lifetime
        self._airflow = airflow
        self._box = SecretBox(secret, "airflow token in a session")

    async def sign_in(self, username: str, password: str) -> tuple[str, int, Role]:
        """A token, its lifetime in seconds and the user's role.

        Raises `Unauthorized` for wrong credentials, `Forbidden` for a user without a role, `Unavailable` when Airflow
        does not answer.
        """
        try:
            airflow_token = await self._log_in(username, password)
            role = Role.highest(await self._airflow.user_roles(username))
        except AirflowRefused as refused:  # whatever the status, the service account is at fault
            log.error("Airflow refused to return a user's roles: %s", refused)
            raise Unavailable("Airflow refused to return this user's roles.", retry_after=30) from refused
        except AirflowUnavailable as error:
            raise Unavailable("Airflow is out of reach; sign in again shortly.", retry_after=5) from error
        if role is Role.PUBLIC:
            raise Forbidden("This user has none of the roles Viewer, User, Op and Admin in Airflow.")
        now = int(time.time())
        expires = min(now + self._lifetime, _expiry(airflow_token, now + self._lifetime))
        token = jwt.encode(
            {
                "iss": _ISSUER,
                "sub": username,
                "role": role.label,
                "iat": now,
                "exp": expires,
                "aft": self._box.seal(airflow_token),
            },
            self._secret,
            algorithm=_ALGORITHM,
        )
        return token, expires - now, role

    async def _log_in(self, username: str, password: str) -> str:
        try:
            return await self._airflow.login(username, password)
        except AirflowRefused as refused:
            if refused.status in (400, 401, 422):
                raise Unauthorized("Airflow does not accept this username and password.") from refused
            raise

    def verify(self, token: str) -> Principal:
        """The user that the token was issued to. Raises `Unauthorized` when it is malformed, forged or expired."""
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=[_ALGORITHM], issuer=_ISSUER, options={"require": _REQUIRED}
            )
            airflow_token = self._box.open(str(claims["aft"]))
        except jwt.ExpiredSignatureError as error:
            raise Unauthorized("The token has expired; get a new one from POST /auth/token.") from error
        except (jwt.InvalidTokenError, UnreadableError) as error:
            raise Unauthorized("The token is not valid; get one from POST /auth/token.") from error
        return Principal(str(claims["sub"]), Role.highest([str(claims["role"])]), airflow_token, float(claims["exp"]))


def _expiry(airflow_token: str, default: int) -> int:
    try:
        claims = jwt.decode(airflow_token, options={"verify_signature": False})
        return int(claims["exp"])
    except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
        return default
