"""The uploads that a run's input names: the run's user has to be able to see each of them."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from backend.core.jsonable import Path
from backend.core.large_values import apart
from backend.core.problems import FieldError, Invalid, pointer
from backend.core.roles import Principal
from backend.pictures.inline import SCHEME, long_texts
from backend.services.images import Images

MAX_UPLOADS = 1_000
"""Uploads of one input that are looked up. A run that names more finds out about the others itself."""


async def check_uploads(images: Images, who: Principal, user: str, input_data: Mapping[str, Any]) -> list[str]:
    """Check that a run that `who` starts for `user` may read the uploads in its input; returns those of other people.

    Raises `Invalid`, with a pointer, for one that doesn't exist, or that `who` may not see.
    """
    named = await apart(input_data, partial(_find_uploads, input_data))
    if not named:
        return []
    owners = await images.owners(named)
    for image_id, path in named.items():
        owner = owners.get(image_id)
        if owner is None or not (who.sees_all or owner in (user, who.username)):
            place = pointer("input_data", *path)
            detail = "there is no such upload, or it is somebody else's; upload the picture with POST /images"
            raise Invalid(f"{place}: {detail}", errors=[FieldError(place, detail)])
    return sorted(f"{SCHEME}{image_id}" for image_id in named if owners[image_id] not in (user, who.username))


def _find_uploads(input_data: Mapping[str, Any]) -> dict[str, Path]:
    """The ids of uploads, and where in the input each stands first."""
    found: dict[str, Path] = {}
    for path, text in long_texts(input_data):
        if (image_id := _upload_id(text)) is not None:
            found.setdefault(image_id, path)
            if len(found) == MAX_UPLOADS:
                break
    return found


def _upload_id(text: str) -> str | None:
    """The id in a reference to an upload; None for any other text."""
    text = text.strip()
    if len(text) > 100 or not text.lower().startswith(SCHEME):
        return None
    try:
        return str(UUID(text[len(SCHEME) :]))
    except ValueError:
        return None
