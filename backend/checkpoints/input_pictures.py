"""Leaves the pictures of a graph's input out of its checkpoints.

A picture that a graph was given as a `data:` URL stands in its state from then on, and LangGraph would write it with
the input, with each channel and with each write. A later try resumes only with the same input (`threads.begin`), so the
picture is known when a checkpoint is read: a serialized value has its digest instead. The graph always sees the URL. A
try that was parked goes on whatever its input is now; if its templates give another picture then, it fails and says so.
"""

import json
import re
from collections.abc import Callable, Iterable
from hashlib import sha256

MARK = "+pictures"
"""What follows the kind of a serialized value from which pictures were cut out."""


PictureUrl = Callable[[str, str, int], bytes]
"""Returns what stands for the picture with a digest, a beginning of its URL and a length, and has that length."""

DIGEST = re.compile(r"\[picture, sha256 [0-9a-f]{64}\]")
"""What `digest` returns, before the spaces that fill it up."""


class MissingPictureError(LookupError):
    """A checkpoint refers to a picture that isn't in the input of this try. A retry doesn't help."""


class InputPictures:
    """The pictures of the inputs of a task's graphs, as `data:` URLs."""

    def __init__(self) -> None:
        self._urls: dict[str, bytes] = {}

    def add(self, urls: Iterable[str]) -> None:
        """Leave these out from now on."""
        for url in urls:
            data = url.encode()
            self._urls[sha256(data).hexdigest()] = data

    def cut(self, kind: str, data: bytes) -> tuple[str, bytes]:
        """A serialized value without the pictures in it."""
        found = []
        for digest, url in self._urls.items():
            at = data.find(url) if len(data) >= len(url) else -1
            while at >= 0:
                found.append((at, digest, url))
                at = data.find(url, at + len(url))
        if not found:
            return kind, data
        places, pieces, end = [], [], 0
        for at, digest, url in sorted(found):
            places.append([at - end, digest, url[: url.find(b",") + 1].decode(), len(url)])
            pieces.append(data[end:at])
            end = at + len(url)
        return kind + MARK, b"".join([json.dumps(places).encode(), b"\n", *pieces, data[end:]])

    def restored(self, kind: str, data: bytes) -> tuple[str, bytes]:
        """The value with its pictures. Raises `MissingPictureError`."""

        def url_of(digest: str, _beginning: str, _size: int) -> bytes:
            if digest not in self._urls:
                raise MissingPictureError("a picture in the checkpoint isn't in the input of this try")
            return self._urls[digest]

        return joined(kind, data, url_of)


def joined(kind: str, data: bytes, url_of: PictureUrl) -> tuple[str, bytes]:
    """A serialized value with something in the places of its pictures: what `url_of` returns for a digest, the URL's
    beginning and its length, which it must have."""
    if not kind.endswith(MARK):
        return kind, data
    header, _, rest = data.partition(b"\n")
    pieces, at = [], 0
    for skipped, digest, beginning, size in json.loads(header):
        pieces += [rest[at : at + skipped], url_of(digest, beginning, size)]
        at += skipped
    return kind.removesuffix(MARK), b"".join([*pieces, rest[at:]])


def filler(_digest: str, beginning: str, size: int) -> bytes:
    """A URL as long as the picture's, without the picture: records show no more of it than its length."""
    return beginning.encode() + b"A" * (size - len(beginning))


def digest(digest: str, beginning: str, size: int) -> bytes:
    """The digest of the picture's URL in place of it, filled up with spaces; of a very short one, no more than its
    length."""
    text = f"[picture, sha256 {digest}]".encode()
    return text.ljust(size) if len(text) <= size else filler(digest, beginning, size)
