"""Errors that the API reports to its clients, as RFC 9457 problem details.

Problem
├── Unauthorized          401  sign in again
├── Forbidden             403  a retry doesn't help
├── NotFound              404  a retry doesn't help
├── Conflict              409  a retry doesn't help until the conflict is resolved
├── Gone                  410  a retry doesn't help
├── TooLarge              413  send a smaller body
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
    """One error in a request: where it is (a JSON pointer, RFC 6901) and what to change."""

    pointer: str
    detail: str


class Problem(Exception):
    """The base class. `detail` is shown to the client: it contains no secret and no internal address."""

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
    """There is no token, or it is invalid or expired."""

    status = 401
    title = "Unauthorized"


class Forbidden(Problem):
    """The user doesn't have the right."""

    status = 403
    title = "Forbidden"


class NotFound(Problem):
    """There is no such resource, or the user may not know that it exists."""

    status = 404
    title = "Not found"


class Conflict(Problem):
    """The request conflicts with the current state."""

    status = 409
    title = "Conflict"


class Gone(Problem):
    """What is asked for isn't kept, or not any more."""

    status = 410
    title = "Gone"


class TooLarge(Problem):
    """The body, or a part of it, is larger than the limit."""

    status = 413
    title = "Content too large"


class Invalid(Problem):
    """The request is well-formed but breaks rules, which `errors` lists."""

    status = 422
    title = "Unprocessable content"


class TooManyRequests(Problem):
    """A rate limit or a budget is used up."""

    status = 429
    title = "Too many requests"


class Unavailable(Problem):
    """A service that the request depends on is unavailable."""

    status = 503
    title = "Service unavailable"


def pointer(*path: str | int) -> str:
    """The JSON pointer (RFC 6901) of these keys and indexes, with halves of surrogate pairs as escapes."""
    joined = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    return joined.encode("utf-8", "backslashreplace").decode()


def field_path(field: str) -> list[str]:
    """The keys and indexes of a field that is written like `agents[0].depends_on`."""
    return re.findall(r"[^.\[\]]+", field)
