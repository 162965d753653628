"""Pictures that were made to harm whoever decodes them: to take long, to fill the memory, or to crash the decoder."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.kit.pictures import bomb, camera_exif, encode, painted_often, photo

MB = 2**20


class Hostile(NamedTuple):
    """A picture, and the words of its refusal. One that `may_pass` is read where that doesn't take too long."""

    make: Callable[[], bytes]
    refused: str | None = None
    may_pass: bool = False


def png(
    *chunks: tuple[bytes, bytes],
    width: int = 16,
    height: int = 16,
    depth: int = 8,
    colour: int = 0,
    interlaced: int = 0,
) -> bytes:
    """A PNG whose further chunks stand before the pixels."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + width * channels * depth // 8)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    pixels = zlib.compress(row * (2 * height), 9)
    pieces = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in pieces)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def jpeg(*segments: tuple[int, bytes], data: bytes | None = None) -> bytes:
    """A JPEG with further segments at its beginning."""
    data = data or encode(photo(64, 48), "JPEG")
    extra = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return data[:2] + extra + data[2:]


def exif(entries: int, count: int, *, kind: int = 5, size: int = 8) -> bytes:
    """EXIF of which every tag refers to the same `count` numbers."""
    head = b"II*\0" + struct.pack("<IH", 8, entries)
    data = 8 + 2 + 12 * entries + 4
    tags = b"".join(struct.pack("<HHII", 0xC000 + tag, kind, count, data) for tag in range(entries))
    return head + tags + b"\0\0\0\0" + b"\1\0\0\0" * (count * size // 4)


def exif_loop() -> bytes:
    """Directories that refer to each other for good."""
    entries = struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x8825, 4, 1, 8)
    return b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 8)


def tiff(pages: int, *, loop: bool = False, width: int = 1, height: int = 1) -> bytes:
    """A TIFF of directories that hold hardly anything."""
    at, out = 8, [b"II*\0" + struct.pack("<I", 8)]
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, height), (279, 1)]
    length = 2 + 12 * len(tags) + 4
    for number in range(pages):
        following = 8 if loop and number == pages - 1 else (0 if number == pages - 1 else at + length)
        body = struct.pack("<H", len(tags))
        body += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + struct.pack("<I", following)
        out.append(body)
        at += length
    return b"".join(out)


def gif(extensions: int) -> bytes:
    """A GIF of one pixel behind comments without text."""
    plain = encode(Image.new("L", (1, 1)), "GIF")
    at = plain.rfind(b",")
    return plain[:at] + b"\x21\xfe\x01a\x00" * extensions + plain[at:]


def animated(image_format: str, frames: int, side: int = 64, **options: Any) -> bytes:
    pictures = [Image.new("RGB", (side, side), (number * 7 % 256, 90, number // 7 % 256)) for number in range(frames)]
    content = io.BytesIO()
    pictures[0].save(content, image_format, save_all=True, append_images=pictures[1:], **options)
    return content.getvalue()


def run_lengths(side: int) -> bytes:
    """A BMP in runs of one pixel each, which Pillow decodes in Python."""
    body = b"\x01\x07" * (side * side)
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024) + header + bytes(1024) + body


def lying(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header has another size than its scan."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def webp_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    body = encode(photo(64, 48), "WEBP")[12:]
    flags = b"\x2c\0\0\0" + struct.pack("<I", 63)[:3] + struct.pack("<I", 47)[:3]
    parts = [(b"VP8X", flags)]
    out = b"".join(name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in parts)
    out += body
    out += b"".join(name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in chunks)
    return b"RIFF" + struct.pack("<I", len(out) + 4) + b"WEBP" + out


def cmyk() -> bytes:
    return encode(photo(200, 150).convert("CMYK"), "JPEG")


def sixteen_bits() -> bytes:
    return encode(Image.fromarray((np.arange(90_000, dtype=np.uint16) % 65535).reshape(300, 300)), "PNG")


def text_bomb(name: bytes) -> bytes:
    packed = zlib.compress(bytes(60 * MB), 9)
    return b"Comment\0\0" + packed if name == b"zTXt" else b"Comment\0\1\0\0\0" + packed


def raw_profile() -> bytes:
    body = exif(2000, 2000)
    return b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % len(body) + body.hex().encode(), 9)


def mpo(pictures: int) -> bytes:
    shots = [photo(64 + number, 48) for number in range(pictures)]
    return encode(shots[0], "MPO", save_all=True, append_images=shots[1:])


TOO_BIG = "more (pixels )?than the limit"
DAMAGED = "damaged or cut off|not a picture|within the limits"
LONG = "takes longer|within the limits|damaged"

PICTURES: dict[str, Hostile] = {
    "JPEG of 300 scans": Hostile(lambda: painted_often(1200, 900, 300)),
    "JPEG of 9,000 scans": Hostile(lambda: painted_often(2000, 1500, 9_000), LONG, may_pass=True),
    "JPEG with 100,000 comments": Hostile(lambda: jpeg(*[(0xFE, b"")] * 100_000), LONG, may_pass=True),
    "JPEG with 100,000 bytes of junk": Hostile(lambda: b"\xff\xd8\xff" + b"\0" * 100_000 + encode(photo(), "JPEG")[2:]),
    "JPEG with tags of 4,000,000 numbers": Hostile(
        lambda: jpeg((0xE1, b"Exif\0\0" + exif(2000, 2000))), LONG, may_pass=True
    ),
    "JPEG with EXIF in parts": Hostile(
        lambda: jpeg((0xE1, b"Exif\0\0" + exif(4000, 2000)[:60_000]), (0xE1, b"Exif\0\0" + exif(4000, 2000)[60_000:])),
        LONG,
        may_pass=True,
    ),
    "JPEG with directories in a loop": Hostile(lambda: jpeg((0xE1, b"Exif\0\0" + exif_loop()))),
    "JPEG with damaged EXIF": Hostile(lambda: jpeg((0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"))),
    "JPEG with 255 parts of a profile": Hostile(
        lambda: jpeg(*[(0xE2, b"ICC_PROFILE\0" + bytes([n, 255]) + b"x" * 60_000) for n in range(1, 256)])
    ),
    "JPEG whose size is a lie": Hostile(lambda: lying(encode(photo(64, 48), "JPEG"), 7000, 7000)),
    "JPEG of 4 gigapixels": Hostile(lambda: lying(encode(photo(64, 48), "JPEG"), 65535, 65535), TOO_BIG),
    "JPEG of no height": Hostile(lambda: lying(encode(photo(64, 48), "JPEG"), 64, 0), DAMAGED),
    "JPEG that is cut off": Hostile(lambda: encode(photo(), "JPEG")[:5000], DAMAGED),
    "JPEG of its first three bytes": Hostile(lambda: b"\xff\xd8\xff", DAMAGED),
    "JPEG in CMYK": Hostile(cmyk),
    "JPEG with a program behind it": Hostile(lambda: encode(photo(), "JPEG") + b"PK\x03\x04" + b"\0" * 100_000),
    "JPEG with a PNG's name": Hostile(lambda: encode(photo(), "JPEG", exif=camera_exif(8))),
    "progressive JPEG of a photograph": Hostile(lambda: encode(photo(), "JPEG", progressive=True)),
    "MPO of 40 pictures": Hostile(lambda: mpo(40)),
    "PNG of 900 megapixels": Hostile(bomb, TOO_BIG),
    "PNG of 49 megapixels": Hostile(lambda: png(width=7000, height=7000), LONG, may_pass=True),
    "PNG of 16 bits, interlaced, 9 megapixels": Hostile(
        lambda: png(width=3000, height=3000, depth=16, colour=6, interlaced=1), LONG, may_pass=True
    ),
    "PNG with 100,000 chunks": Hostile(lambda: png(*[(b"abCd", b"")] * 100_000), LONG, may_pass=True),
    "PNG with a text of 60 MB": Hostile(lambda: png((b"zTXt", text_bomb(b"zTXt"))), DAMAGED),
    "PNG with an international text of 60 MB": Hostile(lambda: png((b"iTXt", text_bomb(b"iTXt"))), DAMAGED),
    "PNG with 5,000 texts": Hostile(lambda: png(*[(b"tEXt", b"a%d\0b" % n) for n in range(5000)])),
    "PNG with a profile of 60 MB": Hostile(
        lambda: png((b"iCCP", b"p\0\0" + zlib.compress(bytes(60 * MB), 9))), DAMAGED
    ),
    "PNG with tags of 4,000,000 numbers": Hostile(lambda: png((b"eXIf", exif(2000, 2000))), LONG, may_pass=True),
    "PNG with EXIF as a text": Hostile(lambda: png((b"zTXt", raw_profile())), LONG, may_pass=True),
    "PNG with directories in a loop": Hostile(lambda: png((b"eXIf", exif_loop()))),
    "PNG of 16 bits": Hostile(sixteen_bits),
    "PNG that is cut off": Hostile(lambda: encode(photo())[:20_000], DAMAGED),
    "PNG with a wrong sum": Hostile(lambda: encode(photo())[:-30] + b"x" * 30, DAMAGED),
    "PNG without pixels": Hostile(lambda: png(width=0, height=0), DAMAGED),
    "animated PNG": Hostile(lambda: animated("PNG", 60)),
    "animated GIF": Hostile(lambda: animated("GIF", 200)),
    "GIF with 100,000 comments": Hostile(lambda: gif(100_000), LONG, may_pass=True),
    "GIF that is cut off": Hostile(lambda: encode(photo(), "GIF")[:3000], DAMAGED),
    "animated WebP": Hostile(lambda: animated("WEBP", 60)),
    "WebP with tags of 4,000,000 numbers": Hostile(
        lambda: webp_chunks((b"EXIF", exif(2000, 2000))), LONG, may_pass=True
    ),
    "WebP with 5,000 chunks": Hostile(lambda: webp_chunks(*[(b"abCd", b"x")] * 5000)),
    "WebP that is cut off": Hostile(lambda: encode(photo(), "WEBP")[:2000], DAMAGED),
    "BMP in runs of one pixel": Hostile(lambda: run_lengths(1000), LONG, may_pass=True),
    "BMP of 4 gigapixels": Hostile(
        lambda: (
            b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 65535, 65535, 1, 24, *[0] * 6)
        ),
        TOO_BIG,
    ),
    "TIFF of 20,000 pages": Hostile(lambda: tiff(20_000), LONG, may_pass=True),
    "TIFF of pages in a loop": Hostile(lambda: tiff(50, loop=True), LONG, may_pass=True),
    "TIFF of 900 megapixels": Hostile(lambda: tiff(1, width=30_000, height=30_000), TOO_BIG),
    "TIFF of 40 pages": Hostile(lambda: animated("TIFF", 40)),
    "TIFF that is compressed": Hostile(lambda: encode(photo(), "TIFF", compression="tiff_lzw")),
    "TIFF of floating-point numbers": Hostile(lambda: encode(Image.new("F", (300, 200), 0.5), "TIFF")),
    "SVG": Hostile(
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', DAMAGED
    ),
    "PDF": Hostile(lambda: b"%PDF-1.7\n" + b"0" * 1000, DAMAGED),
    "PostScript": Hostile(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", DAMAGED),
    "icon": Hostile(lambda: encode(photo(32, 32), "ICO"), DAMAGED),
    "text": Hostile(lambda: b"no picture at all", DAMAGED),
}
