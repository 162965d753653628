"""Pictures that stand in a run's input as `data:` URLs.

Airflow would keep each in half a dozen places for each run: the run's conf, its log, rendered arguments, checkpoints.
They become uploads instead, kept once per user and content, and the input refers to them.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from backend.core.errors.input_error import InputError, InputUnavailableError
from backend.core.jsonable import Path
from backend.core.problems import FieldError, Invalid, Unavailable, pointer
from backend.core.settings import Settings
from backend.pictures.inline import SHORTEST, long_texts
from backend.pictures.load import UploadFacts, decode_data_url, inspect_upload
from backend.pictures.picture import MEDIA_TYPES

MAX_PICTURES = 100
"""Pictures of one input that become uploads. Each is decoded; further ones stay where they are."""

_BEGINNINGS = tuple(f"data:{media_type}" for media_type in (*MEDIA_TYPES.values(), "image/jpg"))


@dataclass(frozen=True, slots=True)
class InlinePicture:
    """A picture in a run's input, decoded and checked."""

    source: str
    content: bytes
    facts: UploadFacts
    sha256: str


def find_pictures(input_data: Mapping[str, Any], least: int) -> dict[str, Path]:
    """The `data:` URLs of pictures with more than `least` characters, and where in the input each stands first."""
    found: dict[str, Path] = {}
    for path, text in long_texts(input_data):
        if len(text) > least and _is_picture(text):
            found.setdefault(text, path)
            if len(found) == MAX_PICTURES:
                break
    return found


async def decode_pictures(found: Mapping[str, Path], settings: Settings) -> list[InlinePicture]:
    """Decode and check what `find_pictures` found.

    Raises `Invalid`, with a pointer to the picture, for one that can't be decoded or exceeds the limits of uploads.
    """
    return [await _decoded(source, path, settings) for source, path in found.items()]


def _is_picture(text: str) -> bool:
    beginning = text[:SHORTEST].lstrip().lower()
    return beginning.startswith(_BEGINNINGS) and ";base64," in beginning


async def _decoded(source: str, path: Path, settings: Settings) -> InlinePicture:
    try:
        content = await asyncio.to_thread(decode_data_url, source.strip(), settings.max_image_bytes)
        facts = await inspect_upload(content, settings)
        digest = await asyncio.to_thread(lambda: sha256(content).hexdigest())
    except InputUnavailableError as error:
        raise Unavailable(error.message, retry_after=10) from error
    except InputError as error:
        place = pointer("input_data", *path)
        raise Invalid(f"{place}: {error.message}", errors=[FieldError(place, error.message)]) from error
    return InlinePicture(source, content, facts, digest)
