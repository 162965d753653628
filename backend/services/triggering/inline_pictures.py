"""Pictures that stand in a run's input as `data:` URLs.

Airflow would keep each in half a dozen places for each run: the run's conf, its log, rendered arguments, checkpoints.
They become uploads instead, kept once per user and content, and the input refers to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from backend.core.errors.input_error import InputError
from backend.core.jsonable import Path
from backend.core.problems import FieldError, Invalid, pointer
from backend.core.settings import Settings
from backend.pictures.inline import SHORTEST, is_plain
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
    pending: list[tuple[Path, Any]] = [((), input_data)]
    while pending and len(found) < MAX_PICTURES:
        path, value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend(((*path, key), part) for key, part in value.items() if not is_plain(part))
        elif isinstance(value, list):
            pending.extend(((*path, index), part) for index, part in enumerate(value) if not is_plain(part))
        elif len(value) > least and _is_picture(value):
            found.setdefault(value, path)
    return found


def decode_pictures(found: Mapping[str, Path], settings: Settings) -> list[InlinePicture]:
    """Decode and check what `find_pictures` found. Blocking.

    Raises `Invalid`, with a pointer to the picture, for one that can't be decoded or exceeds the limits of uploads.
    """
    return [_decoded(source, path, settings) for source, path in found.items()]


def _is_picture(text: str) -> bool:
    beginning = text[:SHORTEST].lstrip().lower()
    return beginning.startswith(_BEGINNINGS) and ";base64," in beginning


def _decoded(source: str, path: Path, settings: Settings) -> InlinePicture:
    try:
        content = decode_data_url(source.strip(), settings.max_image_bytes)
        facts = inspect_upload(content, settings)
    except InputError as error:
        place = pointer("input_data", *path)
        raise Invalid(f"{place}: {error.message}", errors=[FieldError(place, error.message)]) from error
    return InlinePicture(source, content, facts, sha256(content).hexdigest())
