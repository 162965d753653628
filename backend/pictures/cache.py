"""The pictures that this process loaded lately, so that a graph's later nodes need not fetch them again.

A graph's state, and so every checkpoint, holds facts only; the bytes stay here.
"""

import hashlib
import threading
from functools import lru_cache

from cachetools import TTLCache

from backend.core.settings import Settings
from backend.pictures.load import LoadedImage, ReadUpload, load_image

MAX_BYTES = 64 * 2**20
"""What all kept pictures may weigh together, in bytes of their compressed originals."""

LIFETIME = 300.0
"""Seconds: long enough for the nodes of one run, short enough that a deleted upload is soon gone."""


class ImageCache:
    """A least-recently-used cache by source. Safe to share between threads and event loops."""

    def __init__(self, max_bytes: int = MAX_BYTES, lifetime: float = LIFETIME) -> None:
        self._lock = threading.Lock()
        self._images: TTLCache[str, LoadedImage] = TTLCache(
            max_bytes, lifetime, getsizeof=lambda image: len(image.data)
        )

    async def load(self, source: str, settings: Settings, *, read_upload: ReadUpload | None = None) -> LoadedImage:
        """The picture, from memory or through `load_image`, whose errors pass through; failures are not kept."""
        key = _key(source, settings)
        with self._lock:
            image = self._images.get(key)
        if image is None:
            image = await load_image(source, settings, read_upload=read_upload)
            if len(image.data) <= self._images.maxsize:
                with self._lock:
                    self._images[key] = image
        return image


def _key(source: str, settings: Settings) -> str:
    # The limits are part of the key: what one configuration may load, another may not. A data URL is long:
    # hash it.
    limits = (settings.allow_private_images, settings.max_image_bytes, settings.max_image_pixels)
    return hashlib.sha256(repr((limits, source)).encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=1)
def process_images() -> ImageCache:
    """The cache that all agents of this process share."""
    return ImageCache()
