"""Which pages may act with a user's cookie: our own, and those of the origins that the settings name."""

from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from backend.core.settings import Settings


def comes_from_elsewhere(headers: Headers, settings: Settings) -> bool:
    """Whether a request, or a WebSocket's, comes from a page of another origin. A client that is no browser doesn't
    say where it comes from."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin in _own(settings.public_url, settings.pages_link_base, settings.cors_origins):
        return False
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


@lru_cache(maxsize=8)
def _own(public_url: str, pages: str, others: tuple[str, ...]) -> frozenset[str]:
    return frozenset((*others, *(f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, (public_url, pages)))))
