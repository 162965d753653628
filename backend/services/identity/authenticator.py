"""Signs users in with their Airflow credentials, and verifies the tokens it issues."""

import logging
import secrets
import time
from dataclasses import dataclass, replace

import jwt

from backend.clients.airflow import AirflowClient, AirflowError, AirflowRefused, AirflowUnavailable
from backend.core.audit import Action, Entry, Outcome, entry_of
from backend.core.problems import Forbidden, Problem, TooManyRequests, Unauthorized, Unavailable
from backend.core.roles import NO_RIGHTS, Origin, Principal, Role
from backend.services.identity.accounts import Account, Accounts
from backend.services.identity.audit_log import AuditLog
from backend.services.identity.revocations import Revocations
from backend.services.identity.service_tokens import PREFIX, ServiceTokens
from backend.services.identity.throttle import SignInThrottle
from backend.services.notifications.secret_box import SecretBox, UnreadableError

log = logging.getLogger(__name__)

_ALGORITHM = "HS256"
_ISSUER = "langgraph-flow"
_AUDIENCE = "langgraph-flow-api"
_REQUIRED = ["exp", "iat", "sub", "iss", "aud", "jti", "aft"]


@dataclass(frozen=True, slots=True)
class Session:
    """A token that was issued, its lifetime in seconds, and whom it was issued to."""

    token: str
    expires_in: int
    who: Principal

    @property
    def role(self) -> Role:
        """The user's role."""
        return self.who.role


class Authenticator:
    """Checks credentials against Airflow, and issues and verifies the API's own JWT.

    The JWT contains the user's Airflow token, encrypted. Whatever a user does here is therefore done in Airflow under
    their own name and rights. A JWT expires no later than its Airflow token; before that it ends when its user signs
    out, or no longer has an active account. What the user may do is asked for again and again (`accounts`).
    """

    def __init__(
        self,
        secret: str,
        lifetime: int,
        airflow: AirflowClient,
        accounts: Accounts,
        revocations: Revocations,
        service_tokens: ServiceTokens,
        throttle: SignInThrottle,
        audit: AuditLog,
    ) -> None:
        self._secret = secret
        self._lifetime = lifetime
        self._airflow = airflow
        self._accounts = accounts
        self._revocations = revocations
        self._service_tokens = service_tokens
        self._throttle = throttle
        self._audit = audit
        self._box = SecretBox(secret, "airflow token in a session")

    async def sign_in(self, username: str, password: str, origin: Origin) -> Session:
        """A session of the user, whose name may be spelled as Airflow accepts it.

        Raises `Unauthorized` for wrong credentials, `Forbidden` for a user without rights, `TooManyRequests` after too
        many wrong passwords and `Unavailable` when Airflow does not answer.
        """
        try:
            session = await self._sign_in(username, password, origin.address)
        except Problem as problem:
            await self._record_failure("sign_in", problem, origin, username)
            raise
        await self._audit.write(entry_of(replace(session.who, origin=origin), "sign_in"))
        return session

    async def _sign_in(self, username: str, password: str, address: str) -> Session:
        attempt = await self._throttle.begin(username, address)
        try:
            airflow_token = await self._log_in(username, password)
        except Problem as problem:
            if isinstance(problem, Unauthorized):
                log.warning("a wrong password was given for %r from %s", username, address)
            else:
                await self._throttle.take_back(attempt)
            raise
        await self._throttle.succeeded(attempt)
        return await self._session(airflow_token, username)

    async def exchange(self, airflow_token: str, origin: Origin) -> Session:
        """A session of the user whom an Airflow token belongs to, however they signed in to Airflow.

        Raises `Unauthorized` when Airflow does not accept the token, and otherwise as `sign_in` does.
        """
        try:
            session = await self._count_and_exchange(airflow_token, origin.address)
        except Problem as problem:
            await self._record_failure("sign_in.airflow", problem, origin)
            raise
        await self._audit.write(entry_of(replace(session.who, origin=origin), "sign_in.airflow"))
        return session

    async def _count_and_exchange(self, airflow_token: str, address: str) -> Session:
        attempt = await self._throttle.begin_anonymous(address)
        try:
            session = await self._exchange(airflow_token)
        except Problem as problem:
            if not isinstance(problem, Unauthorized):
                await self._throttle.take_back(attempt)
            raise
        await self._throttle.take_back(attempt)
        return session

    async def _record_failure(
        self, action: Action, problem: Problem, origin: Origin, username: str | None = None
    ) -> None:
        """Record that a sign-in was refused. When Airflow or the database is away, nothing was."""
        if isinstance(problem, Unavailable):
            return
        outcome: Outcome = "failed" if isinstance(problem, Unauthorized) else "refused"
        name = username.strip().casefold() if username is not None else None
        entry = Entry(action, outcome, name, origin=origin, details={"status": problem.status})
        if isinstance(problem, TooManyRequests):
            self._audit.note_refusal(entry)
        else:  # these are slowed down, so there can't be many
            self._audit.note(entry)

    async def _exchange(self, airflow_token: str) -> Session:
        try:
            claims = jwt.decode(airflow_token, options={"verify_signature": False})
        except jwt.InvalidTokenError as error:
            raise Unauthorized("This is no token of Airflow's.") from error
        if not isinstance(claims.get("exp"), int | float):
            raise Unauthorized("This is no token of Airflow's: it doesn't expire.")
        try:
            name = await self._airflow.username(airflow_token)
        except AirflowRefused as refused:
            raise Unauthorized("Airflow does not accept this token.") from refused
        except AirflowUnavailable as error:
            raise _out_of_reach() from error
        if name is None:
            raise Unavailable("This version of Airflow doesn't say whom a token belongs to.")
        return await self._session(airflow_token, name)

    async def _session(self, airflow_token: str, username: str) -> Session:
        try:
            account = await self._accounts.fetch(username)
            if account is None:  # it was an e-mail address, in which Airflow looks second
                name = await self._airflow.username(airflow_token)
                account = await self._accounts.fetch(name) if name is not None else None
        except AirflowRefused as refused:  # whatever the status, the service account is at fault
            log.error("Airflow refused to return a user's roles: %s", refused)
            raise Unavailable("Airflow refused to return this user's roles.", retry_after=30) from refused
        except AirflowError as error:
            raise _out_of_reach() from error
        if account is None:
            raise Unauthorized("Airflow has no such active user.")
        _check_rights(account)
        return self._issue(account, airflow_token)

    async def verify(self, token: str) -> Principal:
        """The user that the token was issued to, with the rights that they have now.

        Raises `Unauthorized` when it is malformed, forged or expired, or has ended; `Forbidden` when the user has no
        rights left; `Unavailable` when none of this can be checked.
        """
        if token.startswith(PREFIX):
            return await self._service_tokens.verify(token)
        return await self.recheck(self._decode(token))

    def _decode(self, token: str) -> Principal:
        """The user that the token was issued to, without rights. Raises `Unauthorized`."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                audience=_AUDIENCE,
                options={"require": _REQUIRED},
            )
            airflow_token = self._box.open(str(claims["aft"]))
            return Principal(
                str(claims["sub"]),
                NO_RIGHTS,
                airflow_token=airflow_token,
                expires_at=float(claims["exp"]),
                token_id=str(claims["jti"]),
                issued_at=float(claims["iat"]),
                account=claims.get("acc"),
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthorized("The token has expired; get a new one from POST /auth/token.") from error
        except (jwt.InvalidTokenError, UnreadableError, TypeError, ValueError) as error:
            raise Unauthorized("The token is not valid; get one from POST /auth/token.") from error

    async def recheck(self, who: Principal) -> Principal:
        """The same user with the rights that they have now. Raises as `verify` does."""
        if who.service_token is not None:
            return await self._service_tokens.recheck(who.service_token)
        if who.token_id is None:  # on this machine, without a token
            return who
        if who.expires_at is not None and who.expires_at <= time.time():
            raise Unauthorized("The token has expired; get a new one from POST /auth/token.")
        if await self._revocations.has_ended(who.token_id, who.username, who.issued_at):
            raise Unauthorized("This session was signed out; sign in again.")
        account = await self._accounts.get(who.username)
        if account is None or account.mark != who.account:
            raise Unauthorized("This account is gone or no longer active.")
        _check_rights(account)
        return replace(who, rights=account.rights)

    async def sign_out(self, token: str, origin: Origin) -> None:
        """End the session of a token. A token that isn't valid, or a service token, is ignored."""
        try:
            who = self._decode(token)
        except Unauthorized:
            return
        if who.token_id is not None and who.expires_at is not None:
            entry = Entry("sign_out", user_id=who.username, credential=who.credential, origin=origin)
            await self._revocations.end(who.token_id, who.username, who.expires_at, entry)

    async def sign_out_everywhere(self, username: str, *, by: Principal, service_tokens: bool) -> None:
        """End all sessions of a user, in any spelling, and, if asked to, revoke their service tokens."""
        if username != by.username:
            try:
                account = await self._accounts.fetch(username)
            except AirflowError:  # it must not keep anybody signed in
                account = None
            username = account.username if account is not None else username
        entry = entry_of(by, "sign_out.everywhere", username, service_tokens=service_tokens)
        await self._revocations.end_all(username, by=by.username, entry=entry)
        if service_tokens:
            await self._service_tokens.revoke_all(username, by=by.username)

    async def _log_in(self, username: str, password: str) -> str:
        try:
            return await self._airflow.login(username, password)
        except AirflowUnavailable as error:
            raise _out_of_reach() from error
        except AirflowRefused as refused:
            if refused.status in (400, 401, 422):
                raise Unauthorized("Airflow does not accept this username and password.") from refused
            raise Unavailable("Airflow refused to sign anyone in.", retry_after=30) from refused

    def _issue(self, account: Account, airflow_token: str) -> Session:
        now = time.time()
        expires = min(int(now) + self._lifetime, _expiry(airflow_token, int(now) + self._lifetime))
        token_id = secrets.token_urlsafe(16)
        token = jwt.encode(
            {
                "iss": _ISSUER,
                "aud": _AUDIENCE,
                "sub": account.username,
                "role": account.rights.role.label,
                "jti": token_id,
                "iat": now,  # with its fraction: a session may begin in the second in which all others end
                "exp": expires,
                "acc": account.mark,
                "aft": self._box.seal(airflow_token),
            },
            self._secret,
            algorithm=_ALGORITHM,
        )
        return Session(token, expires - int(now), Principal(account.username, account.rights, token_id=token_id))


def _check_rights(account: Account) -> None:
    if account.rights.role is Role.PUBLIC:
        raise Forbidden(
            "This user may not see any workflow: none of their roles in Airflow is Viewer, User, Op or Admin, or "
            "permits reading a DAG."
        )


def _out_of_reach() -> Unavailable:
    return Unavailable("Airflow is out of reach; sign in again shortly.", retry_after=5)


def _expiry(airflow_token: str, default: int) -> int:
    try:
        claims = jwt.decode(airflow_token, options={"verify_signature": False})
        return int(claims["exp"])
    except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
        return default
