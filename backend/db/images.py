"""Uploaded images."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from backend.db.tables import images


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An uploaded image, unchanged."""

    user_id: str
    media_type: str
    content: bytes


def add(
    connection: Connection,
    *,
    user_id: str,
    media_type: str,
    width: int,
    height: int,
    sha256: str,
    content: bytes,
) -> str:
    """Store an image and return its id. Equal images of a user are stored once."""
    statement = insert(images).values(
        user_id=user_id, media_type=media_type, width=width, height=height, sha256=sha256, content=content
    )
    statement = statement.on_conflict_do_update(
        index_elements=["user_id", "sha256"], set_={"media_type": statement.excluded.media_type}
    )
    return str(connection.execute(statement.returning(images.c.id)).scalar_one())


def is_stored(connection: Connection, user_id: str, sha256: str) -> bool:
    """Whether the user has stored this image already."""
    query = select(images.c.id).where(images.c.user_id == user_id, images.c.sha256 == sha256)
    return connection.execute(query).first() is not None


def get(connection: Connection, image_id: str) -> StoredImage | None:
    """The image, if it exists."""
    row = connection.execute(
        select(images.c.user_id, images.c.media_type, images.c.content).where(images.c.id == image_id)
    ).first()
    return StoredImage(row.user_id, row.media_type, bytes(row.content)) if row else None


def owners(connection: Connection, image_ids: Collection[str]) -> dict[str, str]:
    """Who owns each of these images, of those that exist."""
    found = connection.execute(select(images.c.id, images.c.user_id).where(images.c.id.in_(image_ids)))
    return {row.id: row.user_id for row in found}
