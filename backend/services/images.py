"""Uploaded pictures: checked on upload, stored in the database, readable by their owner."""

import asyncio
import uuid
from collections.abc import Callable, Collection
from hashlib import sha256

from sqlalchemy import Connection

from backend.core.errors.input_error import InputError, InputUnavailableError
from backend.core.limits import LimitUse
from backend.core.problems import FieldError, Invalid, NotFound, TooLarge, Unavailable
from backend.core.roles import Principal
from backend.core.settings import Settings
from backend.db import audit, images
from backend.db.engine import Database
from backend.db.images import StoredImage
from backend.pictures.inline import SCHEME
from backend.pictures.load import UploadFacts, inspect_upload, load_image, read_sample
from backend.services.fetch_quota import FetchQuota
from backend.services.limits.admission import Admission

SHOWN_SIDE = 2048
"""The longer side of a remote picture that a browser gets, in pixels."""


class Images:
    """Stores pictures that runs refer to by their `image_url`."""

    def __init__(self, settings: Settings, database: Database, admission: Admission) -> None:
        self._settings = settings
        self._database = database
        self._admission = admission
        self._quota = FetchQuota(settings.remote_image_bytes_per_minute)

    async def add(self, who: Principal, content: bytes) -> tuple[str, str]:
        """Store a picture; returns its id and the `image_url` for `input_data`. Raises `Invalid` for other files, and
        `TooLarge` as `keep` does."""
        try:
            found = await inspect_upload(content, self._settings)
            digest = await asyncio.to_thread(lambda: sha256(content).hexdigest())
        except InputUnavailableError as error:
            raise Unavailable(f"/file: {error.message}", retry_after=10) from error
        except InputError as error:
            raise Invalid(f"/file: {error.message}", errors=[FieldError("/file", error.message)]) from error

        def record(connection: Connection, image_id: str) -> None:
            audit.record(connection, who, "image.upload", image_id, bytes=len(content), media_type=found.media_type)

        image_id = await self._store(who.username, content, found, digest, record)
        return image_id, f"{SCHEME}{image_id}"

    async def keep(self, user_id: str, content: bytes, facts: UploadFacts, digest: str) -> str:
        """Store a picture that was checked, once for each user and `digest`, its SHA-256; returns its id.

        Raises `TooLarge` when it exceeds what an operator permits the user to store.
        """
        return await self._store(user_id, content, facts, digest, None)

    async def _store(
        self,
        user_id: str,
        content: bytes,
        facts: UploadFacts,
        digest: str,
        record: Callable[[Connection, str], None] | None,
    ) -> str:
        check = await self._admission.upload_check(user_id)

        def store(connection: Connection) -> str | LimitUse:
            if check is not None and not images.is_stored(connection, user_id, digest):
                refused = check(connection, len(content))
                if refused is not None:
                    return refused
            image_id = images.add(
                connection,
                user_id=user_id,
                media_type=facts.media_type,
                width=facts.width,
                height=facts.height,
                sha256=digest,
                content=content,
            )
            if record is not None:
                record(connection, image_id)
            return image_id

        stored = await self._database.run(store)
        if isinstance(stored, str):
            return stored
        await self._admission.count(stored)
        raise TooLarge(stored.refusal(f", and this picture has {len(content)}"))

    async def sample(self, name: str) -> bytes:
        """The picture `sample://<name>`, a PNG. Raises `NotFound`, which names the samples."""
        try:
            return await asyncio.to_thread(read_sample, name)
        except InputError as error:
            raise NotFound(f"{error.message.capitalize()}.") from error

    async def remote(self, who: Principal, address: str) -> tuple[bytes, str]:
        """The picture at an `https://` or `http://` address for a browser, and its media type.

        It is fetched and checked as an agent would fetch it, scaled down, and encoded anew, so that whoever owns the
        address neither learns who looks nor has anything but pixels shown. Raises `Invalid` and `Unavailable`, and
        `TooManyRequests` for a user who has much fetched.
        """
        try:
            if not address.strip().lower().startswith(("https://", "http://")):
                raise InputError("has to be an https:// or http:// address", field="url")
            async with self._quota.fetching(who.username) as received:
                picture = await load_image(address, self._settings, received=received)
            return await asyncio.to_thread(picture.for_model, SHOWN_SIDE)
        except InputUnavailableError as error:
            raise Unavailable(f"?url: {error.message}", retry_after=10) from error
        except InputError as error:
            raise Invalid(f"?url: {error.message}", errors=[FieldError("?url", error.message)]) from error

    async def owners(self, image_ids: Collection[str]) -> dict[str, str]:
        """Who owns each of these pictures, of those that exist."""
        return await self._database.run(images.owners, image_ids)

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
