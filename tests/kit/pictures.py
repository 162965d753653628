"""Pictures drawn for tests."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFont

INVOICE = (
    ("INVOICE", "No. 2026-1147"),
    ("Date", "14 November 2026"),
    ("Widget, large", "3", "12.50", "37.50"),
    ("Gasket set", "10", "4.20", "42.00"),
    ("Total EUR", "79.50"),
)


def encode(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    """The picture as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def invoice(scale: int = 1) -> Image.Image:
    """A page with five rows in columns, drawn in the font that comes with Pillow."""
    image = Image.new("RGB", (1000 * scale, 420 * scale), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(28 * scale)
    for row, cells in enumerate(INVOICE):
        for column, cell in enumerate(cells):
            draw.text(((40 + column * 260) * scale, (40 + row * 70) * scale), cell, font=font, fill="black")
    return image


def photo(width: int = 640, height: int = 480) -> Image.Image:
    """A landscape of sorts: a sky over a field, with a gradient of light and sensor noise."""
    noise = np.random.default_rng(7).normal(0, 6, (height, width, 3))
    down = np.linspace(0, 1, height)[:, None, None]
    sky = np.array([120, 170, 230]) + down * np.array([60, 40, 10])
    field = np.array([60, 110, 40]) * (1.4 - down)
    pixels = np.where(down < 0.55, sky, field) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")


def camera_exif(orientation: int = 6) -> Image.Exif:
    """EXIF as a phone writes it: camera, time, a position south of the equator, and a maker note of raw bytes."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Acme\x00"
    exif[ExifTags.Base.Model] = "Phone 3"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.XResolution] = 72.0
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal] = "2026:11:14 09:30:00"
    details[ExifTags.Base.MakerNote] = b"\x00\x01secret"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef] = "S"
    gps[ExifTags.GPS.GPSLatitude] = (33.0, 51.0, 24.84)
    gps[ExifTags.GPS.GPSLongitudeRef] = "E"
    gps[ExifTags.GPS.GPSLongitude] = (151.0, 12.0, 54.0)
    gps[ExifTags.GPS.GPSAltitude] = 58.5
    return exif


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of a few hundred bytes whose header promises 900 million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def painted_often(width: int, height: int, times: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: a small file that takes long to decode."""
    content = io.BytesIO()
    Image.new("L", (width, height), 128).save(content, "JPEG", progressive=True, quality=10)
    data = content.getvalue()
    scan = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + scan * times + data[-2:]
