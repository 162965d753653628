"""Conditional and range requests (RFC 9110, sections 13 and 14) for JSON text that is read in pieces."""

import re
from collections.abc import AsyncIterator, Callable, Mapping

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from backend.api.deps import wants_head

_RANGE = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*\Z", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


def json_response(
    request: Request,
    *,
    size: int,
    tag: str,
    read: Callable[[int, int], AsyncIterator[bytes]],
    headers: Mapping[str, str],
) -> Response:
    """The response with the text, or the part of it that the request asks for: 200, 206, 304 or 416.

    `tag` identifies the text of `size` bytes; `read(start, stop)` returns a part of it. Several ranges at once are
    answered with the whole, as are ranges with an `If-Range` that names another text.
    """
    etag = f'"{tag}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", **headers}
    if _names(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    start, stop, status = 0, size, 200
    given = _RANGE.match(request.headers.get("range", "").strip())
    if given is not None and any(given.groups()) and request.headers.get("if-range", etag).strip() == etag:
        part = _part(given.group(1), given.group(2), size)
        if part is None:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
        if part[1] > part[0]:
            (start, stop), status = part, 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    if wants_head(request):
        return Response(status_code=status, headers=headers, media_type="application/json")
    return StreamingResponse(read(start, stop), status, headers, media_type="application/json")


def _part(first: str, last: str, size: int) -> tuple[int, int] | None:
    """The bytes of a range, from and up to; empty if the range is invalid, and None if it can't be satisfied."""
    if not first:
        return (max(0, size - int(last)), size) if int(last) else None
    start, stop = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return 0, 0
    return (start, stop) if start < size else None


def _names(condition: str | None, etag: str) -> bool:
    return condition is not None and (condition.strip() == "*" or etag in _TAG.findall(condition))
