"""Caches the pictures that this process loaded recently, so that a graph's later nodes need not fetch them again.

A graph's state, and with it every checkpoint, only holds a picture's facts; the bytes are kept here.
"""

import hashlib
import threading
from functools import lru_cache

from cachetools import TTLCache

from backend.core.settings import Settings
from backend.pictures.load import ReadUpload, load_image
from backend.pictures.picture import LoadedImage
from backend.pictures.reader import upload_reader

MAX_BYTES = 64 * 2**20
"""The limit on all cached pictures together, in bytes as they are held, compressed."""

LIFETIME = 300.0
"""In seconds: long enough for the nodes of one run, and short enough that a deleted upload is gone soon."""


class ImageCache:
    """A cache of pictures by their source. Threads and event loops may share it."""

    def __init__(self, max_bytes: int = MAX_BYTES, lifetime: float = LIFETIME) -> None:
        self._lock = threading.Lock()
        self._images: TTLCache[str, LoadedImage] = TTLCache(
            max_bytes, lifetime, getsizeof=lambda image: image.held_bytes
        )

    async def load(self, source: str, settings: Settings, *, read_upload: ReadUpload | None = None) -> LoadedImage:
        """Return the picture from the cache, or load it. Raises what `load_image` raises; failures are not cached."""
        key = _key(source.strip(), settings)
        with self._lock:
            image = self._images.get(key)
        if image is None:
            image = await load_image(source, settings, read_upload=read_upload)
            if image.held_bytes <= self._images.maxsize:
                with self._lock:
                    self._images[key] = image
        return image


def _key(source: str, settings: Settings) -> str:
    # The limits are part of the key, because one configuration may load what another may not. Data URLs are long,
    # so the key is a hash.
    # Another run may not see the same uploads.
    reader = upload_reader.get() if source.lower().startswith("upload:") else None
    limits = (settings.allow_private_images, settings.max_image_bytes, settings.max_image_pixels)
    return hashlib.sha256(repr((limits, source, reader)).encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=1)
def process_images() -> ImageCache:
    """The cache that all agents in this process share."""
    return ImageCache()
