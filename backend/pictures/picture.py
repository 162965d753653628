"""A picture in memory, and its pixels as they are shown, sent and measured."""

import io
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from backend.pictures.background import flattened

if TYPE_CHECKING:
    from PIL import Image

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
"""The formats that are accepted, by Pillow's names for them."""

STRIP = 4
"""A picture with sides in this proportion or beyond is a strip, which is cut when it is too long to be shown whole."""

LOSSLESS = frozenset({"PNG", "GIF", "BMP", "TIFF"})
MAX_MODEL_PNG = 4 * 2**20
"""A lossless picture of more bytes than this is sent to the model as JPEG: a photograph gains nothing from PNG."""
JPEG_QUALITY = 90
MAX_PLAIN_PNG = 24_000_000
"""Bytes of pixels of a lossless page up to which it is rewritten without loss, which takes twice as long."""


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
class LoadedImage:
    """A picture that was decoded once, completely. Holds compressed bytes, not the pixels.

    `plain` holds the pages as the process that decoded them wrote them anew, where the original may take long.
    `page_frames` holds, for each page of a document, the number of its frame and its size as a viewer shows it; at most
    `parts.MAX_PARTS` of the `pages` are listed. An animation is one page, its first frame.
    """

    facts: PictureFacts
    data: bytes = field(repr=False)
    page_frames: tuple[tuple[int, int, int], ...] = ()
    pages: int = 1
    plain: tuple[bytes, ...] = field(default=(), repr=False, compare=False)

    @property
    def held_bytes(self) -> int:
        """The memory that the picture takes."""
        return len(self.data) + sum(map(len, self.plain))

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
        from PIL import Image

        image = _as_rgb(self._page(page, max_side))
        if max_side is not None and max(image.size) > max_side:
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        return image

    def _page(self, page: int, max_side: int | None = None) -> "Image.Image":
        """A page the right way up, in whatever mode it is stored in."""
        from PIL import Image, ImageOps

        source = self.plain[page - 1] if self.plain else self.data
        with Image.open(io.BytesIO(source), formats=list(MEDIA_TYPES)) as opened:
            if page > 1 and not self.plain:
                opened.seek(self.page_frames[page - 1][0])
            if max_side is not None:
                # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; Pillow never goes below the requested one.
                opened.draft(None, (max_side, max_side))
            return ImageOps.exif_transpose(opened)

    def for_model(self, max_side: int) -> tuple[bytes, str]:
        """The first page as a model gets it: `(bytes, media type)`, PNG or JPEG; blocking.

        It is scaled down to `max_side` pixels, has its orientation applied, and carries no metadata, so that neither
        position nor camera are disclosed.
        """
        return self.encoded(self.upright(max_side), max_side)

    def plain_page(self, page: int) -> bytes:
        """A page the right way up, as a file that is cheap to decode; blocking."""
        image = self._page(page)
        if image.mode not in ("1", "L") or image.has_transparency_data:
            image = _as_rgb(image)
        size = image.width * image.height * len(image.getbands())
        if self.facts.format in LOSSLESS and size <= MAX_PLAIN_PNG:
            return _encoded(image, "PNG", compress_level=1)
        return _encoded(image, "JPEG", quality=95, subsampling=0)

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
