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
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes
from uuid import UUID

from backend.core.settings import Settings
from backend.pictures.background import flattened
from backend.pictures.errors import ImageFetchError, ImageInputError
from backend.pictures.exif import read_exif
from backend.pictures.parts import MAX_PARTS, STRIP

if TYPE_CHECKING:
    from PIL import Image

    from backend.outbound.checked_transport import Resolve

__all__ = [
    "ImageFetchError",
    "ImageInputError",
    "LoadedImage",
    "PictureFacts",
    "ReadUpload",
    "UploadFacts",
    "inspect_upload",
    "load_image",
    "read_sample",
]

ReadUpload = Callable[[UUID], Awaitable[bytes | None]]
"""Returns the bytes of an upload, or None if there is no such upload, or no longer."""

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
"""The formats that are accepted, by Pillow's names for them."""


class ImageLimits(Protocol):
    """The limits of a picture: its compressed size in bytes, and its pixels. `Settings` implements it."""

    @property
    def max_image_bytes(self) -> int: ...

    @property
    def max_image_pixels(self) -> int: ...


SAMPLES = ("invoice",)
"""The sample pictures that come with the package, by their names in `sample://<name>`."""

LOSSLESS = frozenset({"PNG", "GIF", "BMP", "TIFF"})
MAX_MODEL_PNG = 4 * 2**20
"""A lossless picture of more bytes than this is sent to the model as JPEG: a photograph gains nothing from PNG."""
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """The technical facts of a picture, regardless of what it shows.

    `width` and `height` are in pixels, with the EXIF orientation applied, as a viewer shows the picture. Boxes use the
    same coordinates everywhere. `mode` is Pillow's; `frames` counts the pictures in an animation or a multi-page file.
    """

    width: int
    height: int
    format: str
    media_type: str
    mode: str
    size_bytes: int
    sha256: str
    animated: bool
    frames: int
    exif: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class UploadFacts:
    """The media type of an accepted upload, and its size in pixels as a viewer shows it."""

    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A picture that was decoded once, completely. Holds the original bytes, not the pixels.

    `page_frames` holds, for each page of a document, the number of its frame and its size as a viewer shows it; at most
    `MAX_PARTS` of the `pages` are listed. An animation is one page, its first frame.
    """

    facts: PictureFacts
    data: bytes = field(repr=False)
    page_frames: tuple[tuple[int, int, int], ...] = ()
    pages: int = 1

    def page_size(self, page: int = 1) -> tuple[int, int]:
        """Width and height of a page in pixels."""
        if page == 1:
            return self.facts.width, self.facts.height
        _, width, height = self.page_frames[page - 1]
        return width, height

    def is_strip(self, page: int, max_side: int) -> bool:
        """Whether a page is so long that it would be illegible at `max_side` pixels."""
        width, height = self.page_size(page)
        return max(width, height) > max(max_side, STRIP * min(width, height) - 1)

    def upright(self, max_side: int | None = None, page: int = 1) -> "Image.Image":
        """A page in RGB, the right way up, transparency laid on a ground that it stands out from; blocking.

        With `max_side`, neither side is longer than that many pixels; a smaller picture is not enlarged.
        """
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(self.data), formats=list(MEDIA_TYPES)) as opened:
            if page > 1:
                opened.seek(self.page_frames[page - 1][0])
            if max_side is not None:
                # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; Pillow never goes below the requested one.
                opened.draft(None, (max_side, max_side))
            image = _as_rgb(ImageOps.exif_transpose(opened))
        if max_side is not None and max(image.size) > max_side:
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        return image

    def for_model(self, max_side: int) -> tuple[bytes, str]:
        """The first page as a model gets it: `(bytes, media type)`, PNG or JPEG; blocking.

        It is scaled down to `max_side` pixels, has its orientation applied, and carries no metadata, so that neither
        position nor camera are disclosed.
        """
        return self.encoded(self.upright(max_side), max_side)

    def encoded(self, image: "Image.Image", max_side: int | None) -> tuple[bytes, str]:
        """Pixels of this picture as `(bytes, media type)`, without metadata; PNG when the original is lossless."""
        from PIL import Image

        if max_side is not None and max(image.size) > max_side:
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        if self.facts.format in LOSSLESS:
            data = _encoded(image, "PNG")
            if len(data) <= MAX_MODEL_PNG:
                return data, "image/png"
        return _encoded(image, "JPEG", quality=JPEG_QUALITY), "image/jpeg"


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
        data = await asyncio.to_thread(_decode_data_url, source, settings.max_image_bytes)
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


def _as_rgb(image: "Image.Image") -> "Image.Image":
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Pillow clips grey values of more than 8 bits at 255 instead of scaling them.
        low, high = (float(value) for value in image.getextrema())  # type: ignore[arg-type]  # one band
        if image.mode.startswith("I;16"):
            low, high = 0.0, 65535.0
        scale = 255.0 / (high - low) if high > low else 0.0
        return image.convert("F").point(lambda value: value * scale - low * scale).convert("L").convert("RGB")
    if image.has_transparency_data:
        return flattened(image.convert("RGBA"))
    return image.convert("RGB")


def _encoded(image: "Image.Image", image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.info.clear()  # the original's metadata
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _decode_data_url(source: str, max_bytes: int) -> bytes:
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
