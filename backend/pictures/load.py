"""Loads pictures from an address, a data URL or an upload, and makes sure that they can be decoded.

A picture comes from whoever starts a run, so nothing about it is taken on trust: bytes and pixels are limited before
anything is decompressed, the format is determined from the content, and the whole picture is decoded once
(`pictures/decode.py`). What follows (models, OCR, measurements) gets a `LoadedImage`, which holds the compressed
original and its facts.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes
from uuid import UUID

from backend.core.settings import Settings
from backend.pictures.decode import ImageLimits, decode, too_large
from backend.pictures.errors import ImageFetchError, ImageInputError
from backend.pictures.picture import LoadedImage

if TYPE_CHECKING:
    from backend.outbound.checked_transport import Resolve

__all__ = [
    "ImageFetchError",
    "ImageInputError",
    "ReadUpload",
    "UploadFacts",
    "decode_data_url",
    "inspect_upload",
    "load_image",
    "read_sample",
]

ReadUpload = Callable[[UUID], Awaitable[bytes | None]]
"""Returns the bytes of an upload, or None if there is no such upload, or no longer."""


SAMPLES = ("invoice",)
"""The sample pictures that come with the package, by their names in `sample://<name>`."""


@dataclass(frozen=True, slots=True)
class UploadFacts:
    """The media type of an accepted upload, and its size in pixels as a viewer shows it."""

    media_type: str
    width: int
    height: int


async def inspect_upload(data: bytes, limits: ImageLimits) -> UploadFacts:
    """Check that `data` is a picture within the limits. Raises what `decode` raises."""
    facts = (await decode(data, limits)).facts
    return UploadFacts(facts.media_type, facts.width, facts.height)


async def load_image(
    source: str,
    settings: Settings,
    *,
    read_upload: ReadUpload | None = None,
    resolve: "Resolve | None" = None,
    received: Callable[[int], None] | None = None,
) -> LoadedImage:
    """Load the picture at `https://`, `http://`, `data:image/…;base64,`, `upload://<uuid>` or `sample://<name>`.

    The limits in bytes, pixels and seconds are those of `settings`. Raises `ImageInputError` if the picture or its
    address is wrong (a retry doesn't help) and `ImageFetchError` if its server is (a retry may help). `received` is
    called with the size of each piece that arrives from a server.
    """
    source = source.strip()
    scheme = source.partition(":")[0].lower() if ":" in source else ""
    if scheme in ("http", "https"):
        from backend.outbound.checked_transport import resolve_host
        from backend.pictures.fetch import fetch_image  # brings httpx

        data = await fetch_image(
            source,
            max_bytes=settings.max_image_bytes,
            timeout=settings.image_fetch_timeout,
            allow_private=settings.allow_private_images,
            resolve=resolve or resolve_host,
            received=received,
        )
    elif scheme == "data":
        data = await asyncio.to_thread(decode_data_url, source, settings.max_image_bytes)
    elif scheme == "upload":
        data = await _read_upload(source, read_upload)
    elif scheme == "sample":
        data = await asyncio.to_thread(read_sample, source[len("sample://") :])
    else:
        raise ImageInputError(
            "give the address of a picture that starts with https://, http://, data:image/ or upload://"
        )
    return await decode(data, settings)


def decode_data_url(source: str, max_bytes: int) -> bytes:
    """The bytes of a picture's `data:` URL. Blocking. Raises `ImageInputError`."""
    header, comma, body = source.partition(",")
    media_type, *parameters = header[len("data:") :].lower().split(";")
    if not comma or "base64" not in parameters or not media_type.startswith("image/"):
        raise ImageInputError("a data URL must read data:image/<type>;base64,<data>")
    if len(body) > 4 * max_bytes:  # at worst all of it is percent-encoded; checked before any copy is made
        raise too_large(max_bytes)
    raw = b"".join(unquote_to_bytes(body).split())
    if len(raw) * 3 // 4 > max_bytes + 2:
        raise too_large(max_bytes)
    try:
        return base64.b64decode(raw, validate=True)
    except binascii.Error:
        raise ImageInputError("the data URL does not hold valid base64; encode the picture again") from None


def read_sample(name: str) -> bytes:
    """The PNG of `sample://<name>`. Blocking. Raises `ImageInputError` if there is no such sample."""
    if name not in SAMPLES:
        raise ImageInputError(f"there is no such sample; there is {', '.join(SAMPLES)}")
    return (files("backend.pictures") / "samples" / f"{name}.png").read_bytes()


async def _read_upload(source: str, read_upload: ReadUpload | None) -> bytes:
    try:
        name = UUID(source[len("upload://") :] if source.lower().startswith("upload://") else "")
    except ValueError:
        raise ImageInputError("an upload is named upload://<uuid>, as POST /images answered") from None
    if read_upload is None:
        raise ImageInputError("uploads can't be read here; give an https:// address or a data URL")
    data = await read_upload(name)
    if data is None:
        raise ImageInputError("there is no such upload, or it has expired; upload the picture again")
    return data
