"""Decodes pictures once, completely, whatever their sender declares them to be.

Most pictures take a fraction of a second, and are decoded here. A few kilobytes can be made to take minutes, though: a
progressive JPEG is painted as often as its sender likes. Whatever isn't surely cheap (`structure.py`) is decoded in a
process of its own, with limits on its time and memory, and without any of this process's secrets; a picture that
exceeds them is refused. That process returns the pages anew, as plain files, so that nobody here decodes the original.
"""

import asyncio
import hashlib
import io
import json
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Protocol

from backend.core.child_process import FOLDER, bare_environment, module_command
from backend.pictures.errors import ImageFetchError, ImageInputError
from backend.pictures.exif import read_exif
from backend.pictures.parts import MAX_PARTS
from backend.pictures.picture import MEDIA_TYPES, LoadedImage, PictureFacts
from backend.pictures.structure import is_plain

if TYPE_CHECKING:
    from PIL import Image

SECONDS = 15.0
"""How long a picture may take to decode in a process of its own. An honest one of 50 megapixels takes 4 s."""
MEMORY = 3 * 2**30
"""How much memory that process may ask for, in bytes."""
WAITING = 16
"""How many pictures may wait for such a process."""

# Threads of their own: a picture must not keep other work waiting, nor a costly one the others.
_ordinary = ThreadPoolExecutor(2, thread_name_prefix="visual-ai-picture")
_costly = ThreadPoolExecutor(2, thread_name_prefix="visual-ai-costly-picture")
_places = threading.BoundedSemaphore(WAITING)


class ImageLimits(Protocol):
    """The limits of a picture: its compressed size in bytes, and its pixels. `Settings` implements it."""

    @property
    def max_image_bytes(self) -> int: ...

    @property
    def max_image_pixels(self) -> int: ...


async def decode(data: bytes, limits: ImageLimits) -> LoadedImage:
    """Decode `data` completely.

    Raises `ImageInputError` for what is no picture or exceeds a limit, and `ImageFetchError` while too many costly
    pictures are being decoded (a retry may help).
    """
    loop = asyncio.get_running_loop()
    if not await loop.run_in_executor(_ordinary, is_costly, data, limits):
        return await loop.run_in_executor(_ordinary, decode_image, data, limits)
    if not _places.acquire(blocking=False):
        raise ImageFetchError("too many pictures that take long to decode are being decoded; try again later")
    try:
        return await loop.run_in_executor(_costly, _decode_apart, data, limits)
    finally:
        _places.release()


def is_costly(data: bytes, limits: ImageLimits) -> bool:
    """Whether a picture may take long to decode."""
    return len(data) <= limits.max_image_bytes and not is_plain(data)


def _decode_apart(data: bytes, limits: ImageLimits) -> LoadedImage:
    """`decode_image` in a process of its own. Blocking."""
    allowed = (str(limits.max_image_bytes), str(limits.max_image_pixels))
    try:
        ended = subprocess.run(  # noqa: S603  # our own module; the picture comes through a pipe
            module_command("backend.pictures.decoder", *allowed),
            input=data,
            capture_output=True,
            timeout=SECONDS,
            cwd=FOLDER,
            env=bare_environment(),
            check=False,
        )
        header, _, content = ended.stdout.partition(b"\n")
        found: dict[str, Any] = json.loads(header)
    except subprocess.TimeoutExpired:
        raise ImageInputError(
            f"the picture takes longer than {SECONDS:g} s to decode; save it again as an ordinary JPEG or PNG"
        ) from None
    except ValueError:  # it ended without a word: out of memory, or crashed
        raise ImageInputError("the picture can't be decoded within the limits; send a smaller one") from None
    if "fault" in found:
        raise ImageInputError(found["fault"])
    pages = tuple((frame, width, height) for frame, width, height in found["page_frames"])
    ends = [0, *accumulate(found["sizes"])]
    plain = tuple(content[begin:end] for begin, end in pairwise(ends))
    if not all(map(is_plain, plain)):
        raise ImageInputError("the picture can't be decoded within the limits; send a smaller one")
    return LoadedImage(PictureFacts(**found["facts"]), data, pages, found["pages"], plain)


def decode_image(data: bytes, limits: ImageLimits) -> LoadedImage:
    """Decode `data` completely, whatever its sender declares it to be. Blocking. Raises `ImageInputError`."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ImageInputError("the picture is empty")
    if len(data) > limits.max_image_bytes:
        raise too_large(limits.max_image_bytes)
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


def too_large(limit: int) -> ImageInputError:
    """The error for a picture of more bytes than allowed."""
    return ImageInputError(
        f"the picture is larger than the limit of {limit} bytes; send a smaller one or raise VISUAL_AI_MAX_IMAGE_BYTES"
    )


def _too_many_pixels(limit: int, size: str | None = None) -> ImageInputError:
    found = f"the picture has {size} pixels, more than" if size else "the picture has more pixels than"
    return ImageInputError(f"{found} the limit of {limit}; send a smaller one or raise VISUAL_AI_MAX_IMAGE_PIXELS")
