"""Uploaded pictures: checked on upload, stored in the database, readable by their owner."""

import asyncio
import uuid
from hashlib import sha256

from backend.core.errors.input_error import InputError
from backend.core.problems import FieldError, Invalid, NotFound
from backend.core.roles import Principal
from backend.core.settings import Settings
from backend.db import images
from backend.db.engine import Database
from backend.db.images import StoredImage
from backend.pictures.inline import SCHEME
from backend.pictures.load import UploadFacts, inspect_upload, read_sample


class Images:
    """Stores pictures that runs refer to by their `image_url`."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    async def add(self, who: Principal, content: bytes) -> tuple[str, str]:
        """Store a picture; returns its id and the `image_url` for `input_data`. Raises `Invalid` for other files."""
        try:
            found, digest = await asyncio.to_thread(self._inspect, content)
        except InputError as error:
            raise Invalid(f"/file: {error.message}", errors=[FieldError("/file", error.message)]) from error
        image_id = await self.keep(who.username, content, found, digest)
        return image_id, f"{SCHEME}{image_id}"

    async def keep(self, user_id: str, content: bytes, facts: UploadFacts, digest: str) -> str:
        """Store a picture that was checked, once for each user and `digest`, its SHA-256; returns its id."""
        return await self._database.run(
            images.add,
            user_id=user_id,
            media_type=facts.media_type,
            width=facts.width,
            height=facts.height,
            sha256=digest,
            content=content,
        )

    def _inspect(self, content: bytes) -> tuple[UploadFacts, str]:
        return inspect_upload(content, self._settings), sha256(content).hexdigest()

    async def sample(self, name: str) -> bytes:
        """The picture `sample://<name>`, a PNG. Raises `NotFound`, which names the samples."""
        try:
            return await asyncio.to_thread(read_sample, name)
        except InputError as error:
            raise NotFound(f"{error.message.capitalize()}.") from error

    async def get(self, who: Principal, image_id: str) -> StoredImage:
        """The picture, for its owner and for roles that see all. Raises `NotFound`."""
        try:
            checked_id = str(uuid.UUID(image_id))
        except ValueError:
            raise NotFound("There is no such picture.") from None
        image = await self._database.run(images.get, checked_id)
        if image is None or not (who.sees_all or image.user_id == who.username):
            raise NotFound("There is no such picture.")
        return image
