"""Uploaded pictures: checked when they come, kept in the database, given out to their owner."""

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
from backend.pictures.load import inspect_upload, read_sample

SCHEME = "upload://"


class Images:
    """Stores pictures for runs to come."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    async def add(self, who: Principal, content: bytes) -> tuple[str, str]:
        """Keep a picture; gives its id and the `image_url` for `input_data`. Raises `Invalid` when it is none."""
        try:
            found = await asyncio.to_thread(inspect_upload, content, self._settings)
        except InputError as error:
            raise Invalid(f"/file: {error.message}", errors=[FieldError("/file", error.message)]) from error
        image_id = await self._database.run(
            images.add,
            user_id=who.username,
            media_type=found.media_type,
            width=found.width,
            height=found.height,
            sha256=sha256(content).hexdigest(),
            content=content,
        )
        return image_id, f"{SCHEME}{image_id}"

    async def sample(self, name: str) -> bytes:
        """The picture behind `sample://<name>`, a PNG. Raises `NotFound`, naming those there are."""
        try:
            return await asyncio.to_thread(read_sample, name)
        except InputError as error:
            raise NotFound(f"{error.message.capitalize()}.") from error

    async def get(self, who: Principal, image_id: str) -> StoredImage:
        """The picture, for its owner and those who see all. Raises `NotFound`."""
        try:
            wanted = str(uuid.UUID(image_id))
        except ValueError:
            raise NotFound("There is no such picture.") from None
        image = await self._database.run(images.get, wanted)
        if image is None or not (who.sees_all or image.user_id == who.username):
            raise NotFound("There is no such picture.")
        return image
