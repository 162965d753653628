"""Tells from a picture's bytes alone, without decoding anything, whether decoding it is surely cheap.

Pillow reads most formats' containers in Python: chunks, segments, directories and metadata. A file of a few kilobytes
can keep it busy for minutes before a pixel is decoded. So only files of a plain structure, which is checked here with a
bounded number of steps, are decoded in this process. What this module doesn't know counts as costly.
"""

import struct

PAINTED_PIXELS = 250_000_000
"""How many pixels the scans of a JPEG may paint: half a second's worth. Each scan paints the whole picture."""
PIXELS = 25_000_000
"""How many pixels any other picture may have; those of a PNG with 16 bits, or interlaced, count twice."""
PIECES = 4_000
"""Chunks or segments that a file may have. A PNG of 20 MB in pieces of 8 KB has 2,600."""
EXTRA_BYTES = 2 * 2**20
"""Bytes of a file's metadata."""
EXIF_NUMBERS = 20_000
"""Numbers in the EXIF metadata: each becomes an object, and many tags may refer to the same bytes."""

_PLAIN_JPEG = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive; arithmetic coding takes several times as long."""
_UNSIZED = frozenset(range(0xD0, 0xD9)) | {0x01}
_BYTE_TYPES = frozenset({1, 2, 6, 7})
_TYPE_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}


def is_plain(data: bytes) -> bool:
    """Whether decoding takes less than about a second whatever else is in `data`."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _plain_png(data)
        if data.startswith(b"\xff\xd8"):
            return _plain_jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _plain_webp(data)
        if data.startswith(b"BM"):
            return _plain_bmp(data)
    except (struct.error, IndexError):
        return False  # cut off within a header
    return not data.startswith((b"GIF8", b"II", b"MM"))  # what is no picture is refused at once


def _plain_png(data: bytes) -> bool:
    at, pieces, extra, texts = 8, 0, 0, 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        pieces += 1
        if pieces > PIECES or name in (b"acTL", b"fcTL", b"fdAT"):
            return False
        if name == b"IHDR":
            width, height, depth, _, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, at + 8)
            if width * height * max(1, depth // 8) * (1 + interlaced) > PIXELS:
                return False
        elif name == b"eXIf":
            if not _plain_exif(data[at + 8 : at + 8 + size]):
                return False
        elif name == b"IEND":
            break
        elif name != b"IDAT":
            extra += size
            # Text and profiles are compressed; they may be two thousand times as large.
            texts += name in (b"zTXt", b"iTXt", b"tEXt")
            # Compressed texts may be a thousand times as large, and some hold EXIF metadata as hexadecimal digits.
            if extra > EXTRA_BYTES or texts > 50 or data.startswith(b"Raw profile type", at + 8):
                return False
        at += size + 12
    return True


def _plain_jpeg(data: bytes) -> bool:
    at, pieces, pixels, exif = 2, 0, 0, b""
    while True:
        pieces += 1
        if pieces > PIECES or data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in _UNSIZED:
            at += 2
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + size]
        if marker == 0xDA:
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker not in _PLAIN_JPEG:
                return False
            height, width = struct.unpack_from(">HH", body, 1)
            pixels = max(pixels, width * height)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif += body[6:]  # Pillow joins several of them
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            return False  # further pictures after the first one
        at += 2 + size
    # This counts too many scans rather than too few.
    return data.count(b"\xff\xda") * pixels <= PAINTED_PIXELS and (not exif or _plain_exif(exif))


def _plain_webp(data: bytes) -> bool:
    at, pieces, extra = 12, 0, 0
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        pieces += 1
        if pieces > 100 or name in (b"ANIM", b"ANMF"):
            return False
        if name == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, at + 14)
            if (width & 0x3FFF) * (height & 0x3FFF) > PIXELS:
                return False
        elif name == b"VP8L":
            (packed,) = struct.unpack_from("<I", data, at + 9)
            if ((packed & 0x3FFF) + 1) * ((packed >> 14 & 0x3FFF) + 1) > PIXELS:
                return False
        elif name == b"EXIF":
            body = data[at + 8 : at + 8 + size]
            if not _plain_exif(body.removeprefix(b"Exif\0\0")):
                return False
        elif name != b"VP8X":
            extra += size
            if extra > 10 * EXTRA_BYTES:
                return False
        at += 8 + size + size % 2
    return True


def _plain_bmp(data: bytes) -> bool:
    (header,) = struct.unpack_from("<I", data, 14)
    if header < 40:
        return bool(header == 12)
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    # Pillow decodes run lengths (1 and 2) in Python.
    return compression in (0, 3) and abs(width * height) <= PIXELS


def _plain_exif(exif: bytes) -> bool:
    """Whether the directories that are read (the first one, EXIF's and the position's) hold few numbers."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return len(exif) < 65_536 and not exif.startswith((b"II", b"MM"))
    pending, numbers, read = [struct.unpack_from(f"{order}I", exif, 4)[0]], 0, 0
    while pending:
        at = pending.pop()
        read += 1
        if read > 8:
            return False
        if at + 2 > len(exif):
            continue
        (entries,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, min(at + 2 + 12 * entries, len(exif) - 11), 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, entry)
            numbers += 1 if kind in _BYTE_TYPES else min(count, len(exif) // _TYPE_SIZES.get(kind, 1))
            if tag in (0x8769, 0x8825, 0xA005):
                pending.append(struct.unpack_from(f"{order}I", exif, entry + 8)[0])
        if numbers > EXIF_NUMBERS:
            return False
    return True
