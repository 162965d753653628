"""Which backend the commands connect to."""

from dataclasses import dataclass

import httpx

from backend.cli.errors import CliError
from backend.deployment.layout import Layout, StackError
from backend.deployment.options import StackOptions, read_environment, read_options

URL_VARIABLE = "VISUAL_AI_URL"
TOKEN_VARIABLE = "VISUAL_AI_TOKEN"  # noqa: S105  # a variable's name
DEFAULT = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Target:
    """A backend: its address without a trailing slash, the token given for it, and the options of this checkout's stack
    if it belongs to that."""

    url: str
    token: str | None
    own: StackOptions | None

    @property
    def local(self) -> bool:
        """Whether the backend runs on this machine."""
        return httpx.URL(self.url).host in ("localhost", "127.0.0.1", "::1")


def find_target(url: str | None, token: str | None) -> Target:
    """The backend named by `--url`, `VISUAL_AI_URL` or `.env`, or else the one of this checkout's stack.

    Raises `CliError` for an invalid address and for invalid settings in `.env`.
    """
    try:
        root = Layout.find().root
    except StackError:  # installed without a checkout
        return Target(_checked(url) if url else DEFAULT, token, None)
    environment = read_environment(root)
    token = token or environment.get(TOKEN_VARIABLE) or None
    if chosen := url or environment.get(URL_VARIABLE):
        return Target(_checked(chosen), token, None)
    try:
        own = read_options(root)
    except StackError as error:
        raise CliError(str(error)) from error
    return Target(own.backend_url, token, own)


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise CliError(f"--url, {URL_VARIABLE}: {url!r} is not a valid address; expected something like {DEFAULT}")
    return url.rstrip("/")
