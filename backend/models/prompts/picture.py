"""How a picture travels inside a prompt."""

import asyncio
import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.pictures.parts import PicturePart, parts_for_model
from backend.pictures.picture import LoadedImage

_CAPTION = re.compile(r"\n\[Picture: ([^\]]*)\]\n")


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture as content blocks, and where in it each image block belongs; `notice` says what isn't shown."""

    blocks: list[str | dict[Any, Any]]
    parts: list[PicturePart]
    notice: str | None

    def places(self) -> list[dict[str, Any]]:
        """For each image its page, that page's width and height, and its box in that page: JSON values."""
        return [{"page": part.page, "size": list(part.page_size), "box": list(part.box)} for part in self.parts]


async def show_picture(picture: LoadedImage, max_side: int, *, tiled: bool = True) -> ShownPicture:
    """Content blocks with the picture itself, each image at most `max_side` pixels on its longer side.

    A picture of several pages or tiles is several images, each after a line that says which one it is. Without `tiled`
    a long strip is one image at its own size.
    """
    shown = await asyncio.to_thread(parts_for_model, picture, max_side, tiled=tiled)
    blocks: list[str | dict[Any, Any]] = []
    for part in shown.parts:
        if len(shown.parts) > 1:
            blocks.append({"type": "text", "text": _caption(part, shown.parts)})
        data = base64.b64encode(part.data).decode("ascii")
        blocks.append({"type": "image", "base64": data, "mime_type": part.media_type})
    if shown.notice:
        blocks.append({"type": "text", "text": f"\n[Picture: {shown.notice}]\n"})
    return ShownPicture(blocks, shown.parts, shown.notice)


def caption_of(block: Mapping[str, Any]) -> str | None:
    """Which page or tile the next image is, if a content block says so."""
    match = _CAPTION.fullmatch(str(block.get("text"))) if block.get("type") == "text" else None
    return match[1] if match else None


def without_captions(text: str) -> str:
    """The text of a message without the lines that say which part of a picture an image is."""
    return _CAPTION.sub("", text)


def _caption(part: PicturePart, parts: list[PicturePart]) -> str:
    said = []
    pages = max(other.page for other in parts)
    if pages > 1:
        said.append(f"page {part.page} of {pages}")
    if part.tile is not None:
        tiles = sum(other.page == part.page for other in parts)
        width, height = part.page_size
        order = "from left to right" if width >= height else "from top to bottom"
        said.append(f"tile {part.tile} of {tiles}, {order}")
    return f"\n[Picture: {', '.join(said)}]\n"
