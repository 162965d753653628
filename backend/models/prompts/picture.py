"""How a picture travels inside a prompt."""

import asyncio
import base64
from typing import Any

from backend.pictures.load import LoadedImage


async def image_block(picture: LoadedImage, max_side: int) -> dict[str, Any]:
    """A content block with the picture itself, with at most `max_side` pixels on its longer side."""
    data, media_type = await asyncio.to_thread(picture.for_model, max_side)
    return {"type": "image", "base64": base64.b64encode(data).decode("ascii"), "mime_type": media_type}
