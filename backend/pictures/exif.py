"""Reads a picture's EXIF metadata into a small dictionary that fits into JSON and PostgreSQL's jsonb."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

MAX_TEXT = 200
"""How many characters of one tag are kept; comments and maker notes can be of any length."""

MAX_ITEMS = 16
"""How many numbers of a tag with a list are kept."""

POINTERS = frozenset({"ExifOffset", "GPSInfo", "Interop", "ExifInteroperabilityOffset", "MakerNote", "XMLPacket"}) | {
    "StripOffsets",
    "StripByteCounts",
    "TileOffsets",
    "TileByteCounts",
}
"""Tags that only point to other data, or contain data in another format."""


def read_exif(image: "Image.Image") -> dict[str, Any]:
    """Return the tags by their readable names, without binary ones and with the position in decimal degrees.

    A valid GPS position is `{"latitude": degrees, "longitude": degrees, "altitude": metres}` under "GPS". Damaged
    metadata never makes a picture unusable: what can't be read is left out.
    """
    from PIL import ExifTags

    try:
        exif = image.getexif()
        tags = {ExifTags.TAGS.get(number): value for number, value in exif.items()}
        tags |= {ExifTags.TAGS.get(number): value for number, value in exif.get_ifd(ExifTags.IFD.Exif).items()}
        gps = {ExifTags.GPSTAGS.get(number): value for number, value in exif.get_ifd(ExifTags.IFD.GPSInfo).items()}
    except Exception:  # a decoder of untrusted metadata raises whatever the damage leads to
        return {}
    plain = {
        name: value
        for name, raw in tags.items()
        if name is not None and name not in POINTERS and (value := _plain(raw)) is not None
    }
    position = _position(gps)
    return {**plain, "GPS": position} if position else plain


def _plain(value: Any) -> Any:
    """A JSON value, or None for what has no place in one."""
    if isinstance(value, bool | int):
        # Bigger integers lose digits in JavaScript.
        return value if abs(value) < 2**53 else None
    if isinstance(value, str):
        # NUL is not allowed in jsonb, lone surrogates not in UTF-8.
        cleaned = value.replace("\x00", "").encode("utf-8", "ignore").decode().strip()
        return cleaned[:MAX_TEXT] or None
    if isinstance(value, bytes | bytearray):
        return None
    if isinstance(value, tuple | list):
        items = [_plain(item) for item in value[:MAX_ITEMS]]
        return items if items and None not in items else None
    number = _number(value)
    if number is None:
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else round(number, 6)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _position(gps: Mapping[str | None, Any]) -> dict[str, float]:
    latitude = _degrees(gps.get("GPSLatitude"), gps.get("GPSLatitudeRef"), limit=90)
    longitude = _degrees(gps.get("GPSLongitude"), gps.get("GPSLongitudeRef"), limit=180)
    if latitude is None or longitude is None:
        return {}
    position = {"latitude": latitude, "longitude": longitude}
    altitude = _number(gps.get("GPSAltitude"))
    if altitude is not None:
        below_sea = gps.get("GPSAltitudeRef") in (1, b"\x01")
        position["altitude"] = round(-altitude if below_sea else altitude, 2)
    return position


def _degrees(parts: Any, reference: Any, *, limit: int) -> float | None:
    """Degrees, minutes and seconds as signed decimal degrees; None when they make no sense."""
    if not isinstance(parts, tuple | list) or len(parts) != 3:
        return None
    numbers = [_number(part) for part in parts]
    if None in numbers:
        return None
    degrees, minutes, seconds = (number or 0.0 for number in numbers)
    value = degrees + minutes / 60 + seconds / 3600
    if not 0 <= value <= limit:
        return None
    south_or_west = str(reference).strip("\x00 ").upper() in ("S", "W")
    return round(-value if south_or_west else value, 6)
