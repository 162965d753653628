"""Loads pictures from an address, a data URL or an upload, and makes sure that they can be decoded.

A picture comes from whoever starts a run, so nothing about it is taken on trust: bytes and pixels are limited before
anything is decompressed, the format is determined from the content, and the whole picture is decoded once. What follows
(models, OCR, measurements) gets a `LoadedImage`, which holds the compressed original and its facts.
"""

import asyncio
import base64
import binascii
import hashlib
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes
from uuid import UUID

from backend.core.settings import Settings
from backend.pictures.errors import ImageFetchError, ImageInputError
from backend.pictures.exif import read_exif
from backend.pictures.parts import MAX_PARTS
from backend.pictures.picture import MEDIA_TYPES, LoadedImage, PictureFacts

if TYPE_CHECKING:
    from PIL import Image

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


class ImageLimits(Protocol):
    """The limits of a picture: its compressed size in bytes, and its pixels. `Settings` implements it."""

    @property
    def max_image_bytes(self) -> int: ...

    @property
    def max_image_pixels(self) -> int: ...


SAMPLES = ("invoice",)
"""The sample pictures that come with the package, by their names in `sample://<name>`."""


@dataclass(frozen=True, slots=True)
class UploadFacts:
    """The media type of an accepted upload, and its size in pixels as a viewer shows it."""

    media_type: str
    width: int
    height: int


async def load_image(
    source: str,
    settings: Settings,
    *,
    read_upload: ReadUpload | None = None,
    resolve: "Resolve | None" = None,
) -> LoadedImage:
    """Load the picture at `https://`, `http://`, `data:image/…;base64,`, `upload://<uuid>` or `sample://<name>`.

    The limits in bytes, pixels and seconds are those of `settings`. Raises `ImageInputError` if the picture or its
    address is wrong (a retry doesn't help) and `ImageFetchError` if its server is (a retry may help).
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
    return await asyncio.to_thread(decode_image, data, settings)


def inspect_upload(data: bytes, limits: ImageLimits) -> UploadFacts:
    """Check that `data` is a picture within the limits. Blocking. Raises `ImageInputError`."""
    facts = decode_image(data, limits).facts
    return UploadFacts(facts.media_type, facts.width, facts.height)


def decode_image(data: bytes, limits: ImageLimits) -> LoadedImage:
    """Decode `data` completely, whatever its sender declares it to be. Blocking. Raises `ImageInputError`."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ImageInputError("the picture is empty")
    if len(data) > limits.max_image_bytes:
        raise _too_large(limits.max_image_bytes)
    try:
        with Image.open(io.BytesIO(data), formats=list(MEDIA_TYPES)) as image:
            # Only the header has been read so far, so a decompression bomb is refused before it is decompressed.
            _check_pixels(image, limits.max_image_pixels)
            # Before the metadata is read: reading it may also load a PNG, and would hide that the data is damaged.
            image.load()
            # A GIF's first frame may grow the canvas.
            _check_pixels(image, limits.max_image_pixels)
            facts = _facts(image, data)
            page_frames, pages = _pages(image, facts, limits.max_image_pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(limits.max_image_pixels) from None
    except UnidentifiedImageError:
        raise ImageInputError(
            f"this is not a picture that can be read; accepted are {', '.join(MEDIA_TYPES)}"
        ) from None
    except ImageInputError:
        raise
    except Exception as error:  # decoders of untrusted bytes raise whatever the damage leads to
        raise ImageInputError("the picture is damaged or cut off and can't be decoded; send it again") from error
    return LoadedImage(facts, data, page_frames, pages)


def _pages(image: "Image.Image", facts: PictureFacts, max_pixels: int) -> tuple[tuple[tuple[int, int, int], ...], int]:
    """The pages of a TIFF, of which the first `MAX_PARTS` are decoded too, and how many there are."""
    if facts.format != "TIFF" or facts.frames == 1:
        return ((0, facts.width, facts.height),), 1
    listed: list[tuple[int, int, int]] = []
    pages = 0
    for frame in range(facts.frames):
        image.seek(frame)
        # Beside a page its file may hold a smaller copy of it (TIFF 6.0, tag 254).
        if frame > 0 and int(image.tag_v2.get(254, 0)) & 1:  # type: ignore[attr-defined]  # a TIFF has tags
            continue
        pages += 1
        if len(listed) < MAX_PARTS:
            _check_pixels(image, max_pixels)
            image.load()
            width, height = image.size
            if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):
                width, height = height, width
            listed.append((frame, width, height))
    return tuple(listed), pages


def _facts(image: "Image.Image", data: bytes) -> PictureFacts:
    width, height = image.size
    # A phone's JPEG may contain further pictures after the first one; Pillow calls that format MPO.
    mode, image_format = image.mode, "JPEG" if image.format == "MPO" else str(image.format)
    exif = read_exif(image)
    # Orientations 5 to 8 swap width and height (EXIF 2.32, tag 0x0112).
    if exif.get("Orientation") in (5, 6, 7, 8):
        width, height = height, width
    frames = int(getattr(image, "n_frames", 1))
    return PictureFacts(
        width=width,
        height=height,
        format=image_format,
        media_type=MEDIA_TYPES[image_format],
        mode=mode,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        animated=frames > 1 and image_format not in ("TIFF", "JPEG"),
        frames=frames,
        exif=exif,
    )


def _check_pixels(image: "Image.Image", limit: int) -> None:
    width, height = image.size
    if width * height > limit:
        raise _too_many_pixels(limit, f"{width} × {height}")


def decode_data_url(source: str, max_bytes: int) -> bytes:
    """The bytes of a picture's `data:` URL. Blocking. Raises `ImageInputError`."""
    header, comma, body = source.partition(",")
    media_type, *parameters = header[len("data:") :].lower().split(";")
    if not comma or "base64" not in parameters or not media_type.startswith("image/"):
        raise ImageInputError("a data URL must read data:image/<type>;base64,<data>")
    if len(body) > 4 * max_bytes:  # at worst all of it is percent-encoded; checked before any copy is made
        raise _too_large(max_bytes)
    raw = b"".join(unquote_to_bytes(body).split())
    if len(raw) * 3 // 4 > max_bytes + 2:
        raise _too_large(max_bytes)
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


def _too_large(limit: int) -> ImageInputError:
    return ImageInputError(
        f"the picture is larger than the limit of {limit} bytes; send a smaller one or raise VISUAL_AI_MAX_IMAGE_BYTES"
    )


def _too_many_pixels(limit: int, size: str | None = None) -> ImageInputError:
    found = f"the picture has {size} pixels, more than" if size else "the picture has more pixels than"
    return ImageInputError(f"{found} the limit of {limit}; send a smaller one or raise VISUAL_AI_MAX_IMAGE_PIXELS")
