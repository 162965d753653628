"""What the API can answer instead of what was asked for, as RFC 9457 problem details.

Problem
├── Unauthorized          401  sign in again
├── Forbidden             403  a retry doesn't help
├── NotFound              404  a retry doesn't help
├── Conflict              409  a retry doesn't help until the conflict is resolved
├── TooLarge              413  send less
├── Invalid               422  `errors` names each field by JSON pointer
├── TooManyRequests       429  retry after `retry_after` seconds
└── Unavailable           503  retry after `retry_after` seconds
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault of a request: where it is (RFC 6901 JSON pointer) and what to do."""

    pointer: str
    detail: str


class Problem(Exception):
    """Base of all. `detail` is meant for the caller: no secret, no internal address."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    type: ClassVar[str] = "about:blank"

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = (), retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The problem document."""
        document: dict[str, Any] = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [{"pointer": error.pointer, "detail": error.detail} for error in self.errors]
        return document


class Unauthorized(Problem):
    """No token, or one that is not or no longer valid."""

    status = 401
    title = "Unauthorized"


class Forbidden(Problem):
    """The user lacks the right."""

    status = 403
    title = "Forbidden"


class NotFound(Problem):
    """There is no such thing, or the user may not know of it."""

    status = 404
    title = "Not found"


class Conflict(Problem):
    """The request contradicts the present state."""

    status = 409
    title = "Conflict"


class TooLarge(Problem):
    """The body is larger than the limit."""

    status = 413
    title = "Content too large"


class Invalid(Problem):
    """The request is well-formed but breaks a rule; `errors` says which."""

    status = 422
    title = "Unprocessable content"


class TooManyRequests(Problem):
    """A rate or budget limit is reached."""

    status = 429
    title = "Too many requests"


class Unavailable(Problem):
    """Something this answer needs is out of reach."""

    status = 503
    title = "Service unavailable"


def pointer(*path: str | int) -> str:
    """The JSON pointer (RFC 6901) of these keys and indexes."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def field_path(field: str) -> list[str]:
    """The keys and indexes of a field that is written like `agents[0].depends_on`."""
    return re.findall(r"[^.\[\]]+", field)
