"""Records in the audit log what was refused: 401 and 403.

A 403 is recorded whatever was asked for. A 401 is recorded when a token was sent, or something was to be changed: what
reads without one is a page whose session has ended, or a crawler.
"""

from starlette.requests import Request

from backend.api.deps import origin_of, session_cookie
from backend.core.audit import Entry, entry_of
from backend.core.problems import Forbidden, Problem, Unauthorized
from backend.core.roles import Principal
from backend.services.application import Application

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

SIGN_IN = frozenset({"/auth/token", "/auth/airflow"})
"""Attempts to sign in have entries of their own."""


def record_refusal(request: Request, problem: Problem) -> None:
    """Record a problem, if it is a refusal."""
    application: Application | None = getattr(request.app.state, "application", None)
    if application is None or not isinstance(problem, Unauthorized | Forbidden) or request.url.path in SIGN_IN:
        return
    sent = "authorization" in request.headers or session_cookie(request.cookies) is not None
    if isinstance(problem, Unauthorized) and request.method in SAFE and not sent:
        return
    route = getattr(request.scope.get("route"), "path", "")
    asked = f"{request.method} {route}".strip()
    details = {"status": problem.status, "reason": problem.detail}
    who: Principal | None = getattr(request.state, "who", None)
    if who is not None:
        application.audit.note_refusal(entry_of(who, "request.refused", asked, outcome="refused", **details))
        return
    origin = origin_of(request, application)
    entry = Entry("request.refused", "refused", origin=origin, object=asked, details=details)
    application.audit.note_refusal(entry)
