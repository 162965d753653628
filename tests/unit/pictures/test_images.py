"""Decoding pictures: formats, limits, metadata, and what a model gets to see."""

import asyncio
import base64
import io
import json
import random
from uuid import UUID, uuid4

import numpy as np
import pytest
from PIL import Image, ImageDraw

from backend.core.settings import Settings
from backend.pictures.cache import ImageCache
from backend.pictures.decode import decode_image
from backend.pictures.load import ImageInputError, inspect_upload, load_image
from tests.kit.pictures import bomb, camera_exif, encode, photo

SETTINGS = Settings(_env_file=None)


@pytest.mark.parametrize(
    ("image_format", "media_type"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
    ],
)
def test_every_format(image_format: str, media_type: str) -> None:
    data = encode(photo(80, 60), image_format)
    upload = asyncio.run(inspect_upload(data, SETTINGS))
    assert (upload.media_type, upload.width, upload.height) == (media_type, 80, 60)
    loaded = decode_image(data, SETTINGS)
    assert loaded.facts.format == image_format
    assert loaded.facts.size_bytes == len(data)
    assert (loaded.facts.frames, loaded.facts.animated) == (1, False)
    shown, shown_type = loaded.for_model(40)
    assert shown_type == ("image/jpeg" if image_format in ("JPEG", "WEBP") else "image/png")
    assert Image.open(io.BytesIO(shown)).size == (40, 30)


@pytest.mark.parametrize("image_format", ["PPM", "ICO", "PDF", "EPS"])
def test_other_formats_are_refused(image_format: str) -> None:
    with pytest.raises(ImageInputError, match="not a picture that can be read; accepted are PNG, JPEG"):
        decode_image(encode(photo(64, 64), image_format), SETTINGS)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_of_several_frames(image_format: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "lime")]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:], duration=50)
    loaded = decode_image(data, SETTINGS)
    assert loaded.facts.frames == 3
    assert loaded.facts.animated is (image_format != "TIFF")
    red, green, blue = loaded.upright().getpixel((5, 5))  # type: ignore[misc]  # RGB
    assert red > 240
    assert max(green, blue) < 15


def test_a_phones_jpeg_with_a_second_picture() -> None:
    data = encode(photo(40, 30), "MPO", save_all=True, append_images=[photo(20, 15)])
    facts = decode_image(data, SETTINGS).facts
    assert (facts.format, facts.media_type, facts.frames, facts.animated) == ("JPEG", "image/jpeg", 2, False)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK", "F"])
def test_every_mode_reaches_the_model_in_rgb(mode: str) -> None:
    image = Image.linear_gradient("L").resize((64, 64))
    if mode == "I;16":
        wide = np.asarray(image, dtype=np.uint16) * 257
        image = Image.frombytes("I;16", (64, 64), wide.tobytes())
    else:
        image = image.convert(mode)
    data = encode(image, "TIFF" if mode in ("CMYK", "F") else "PNG")
    shown = Image.open(io.BytesIO(decode_image(data, SETTINGS).for_model(64)[0]))
    assert shown.mode == "RGB"
    top, bottom = shown.getpixel((32, 1)), shown.getpixel((32, 62))
    assert max(top) < 30  # type: ignore[arg-type]
    assert min(bottom) > 225  # type: ignore[arg-type]


def test_transparency_is_shown_on_white() -> None:
    loaded = decode_image(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), SETTINGS)
    assert loaded.upright().getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    """However the camera was held, the red corner ends up where EXIF says the top left is."""
    image = Image.new("RGB", (80, 40), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 19, 9), fill="red")
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions, inverse to EXIF's
    stored = image if orientation == 1 else image.transpose(Image.Transpose(undo[orientation]))
    data = encode(stored, "JPEG", quality=95, exif=camera_exif(orientation))
    loaded = decode_image(data, SETTINGS)
    assert (loaded.facts.width, loaded.facts.height) == (80, 40)
    assert loaded.facts.exif["Orientation"] == orientation
    shown = Image.open(io.BytesIO(loaded.for_model(80)[0]))
    assert shown.size == (80, 40)
    red, green, _ = shown.getpixel((8, 4))  # type: ignore[misc]
    assert red > 200
    assert green < 60


def test_exif_is_readable_and_json_able() -> None:
    exif = decode_image(encode(photo(64, 48), "JPEG", exif=camera_exif()), SETTINGS).facts.exif
    assert exif["Make"] == "Acme"
    assert exif["DateTimeOriginal"] == "2026:11:14 09:30:00"
    assert exif["XResolution"] == 72
    assert exif["GPS"] == {"latitude": -33.856900, "longitude": 151.215, "altitude": 58.5}
    assert "MakerNote" not in exif
    assert json.loads(json.dumps(exif, allow_nan=False)) == exif


def test_a_model_sees_no_metadata() -> None:
    for image_format in ("JPEG", "PNG", "TIFF"):
        data = encode(photo(64, 48), image_format, exif=camera_exif())
        shown = Image.open(io.BytesIO(decode_image(data, SETTINGS).for_model(64)[0]))
        assert not shown.getexif()
        assert not {"exif", "comment", "icc_profile", "xmp"} & shown.info.keys()


def test_a_large_lossless_picture_is_sent_as_jpeg() -> None:
    noise = Image.effect_noise((2048, 2048), 80).convert("RGB")
    data, media_type = decode_image(encode(noise, compress_level=1), SETTINGS).for_model(2048)
    assert media_type == "image/jpeg"
    assert len(data) < 4 * 2**20


def test_too_many_pixels_are_refused_by_the_header() -> None:
    small = Settings(_env_file=None, max_image_pixels=1000)
    with pytest.raises(ImageInputError, match=r"has 64 × 48 pixels, more than the limit of 1000; send a smaller"):
        decode_image(encode(photo(64, 48)), small)
    for width, height in ((30_000, 30_000), (10_000, 6_000), (12_000, 10_000)):
        with pytest.raises(ImageInputError, match="pixels"):
            decode_image(bomb(width, height), SETTINGS)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damage_never_escapes_as_another_error(image_format: str) -> None:
    data = bytearray(encode(photo(64, 48), image_format))
    chance = random.Random(3)
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        cut = bytes(broken[: chance.randint(1, len(broken))])
        try:
            decode_image(cut, SETTINGS).for_model(64)
        except ImageInputError:
            continue


def test_truncated_files_are_refused() -> None:
    for image_format in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        data = encode(photo(640, 480), image_format)
        with pytest.raises(ImageInputError):
            decode_image(data[: len(data) * 2 // 3], SETTINGS)
    with pytest.raises(ImageInputError, match="empty"):
        decode_image(b"", SETTINGS)


async def test_data_urls() -> None:
    data = encode(photo(32, 32), "WEBP")
    encoded = base64.b64encode(data).decode()
    for source in (
        f"data:image/webp;base64,{encoded}",
        f" DATA:image/png;charset=utf-8;base64,{encoded}\n",
        "data:image/webp;base64," + encoded.replace("+", "%2B").replace("/", "%2F"),
        f"data:image/webp;base64,{encoded[:50]}\n{encoded[50:]}",
    ):
        assert (await load_image(source, SETTINGS)).facts.format == "WEBP"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("data:image/png;base64,###", "does not hold valid base64"),
        ("data:image/png;base64,abc", "does not hold valid base64"),
        ("data:image/png;base64,", "the picture is empty"),
        ("data:image/png,abc", "must read data:image/<type>;base64,<data>"),
        ("data:text/plain;base64,aGVsbG8=", "must read data:image/<type>;base64,<data>"),
        ("data:image/png;base64", "must read data:image/<type>;base64,<data>"),
        ("data:image/png;base64,aGVsbG8=", "not a picture"),
        ("data:image/png;base64," + "A" * 40_000_000, "larger than the limit"),
    ],
)
async def test_bad_data_urls(source: str, message: str) -> None:
    with pytest.raises(ImageInputError, match=message):
        await load_image(source, SETTINGS)


async def test_uploads() -> None:
    name = uuid4()
    data = encode(photo(32, 24))

    async def read_upload(wanted: UUID) -> bytes | None:
        return data if wanted == name else None

    assert (await load_image(f"upload://{name}", SETTINGS, read_upload=read_upload)).facts.width == 32
    with pytest.raises(ImageInputError, match="no such upload, or it has expired"):
        await load_image(f"upload://{uuid4()}", SETTINGS, read_upload=read_upload)
    with pytest.raises(ImageInputError, match="an upload is named upload://<uuid>"):
        await load_image("upload://../../etc/passwd", SETTINGS, read_upload=read_upload)
    with pytest.raises(ImageInputError, match="can't be read here"):
        await load_image(f"upload://{name}", SETTINGS)


async def test_the_cache_keeps_what_fits_and_never_a_failure() -> None:
    reads = 0
    stored: dict[UUID, bytes] = {}

    async def read_upload(name: UUID) -> bytes | None:
        nonlocal reads
        reads += 1
        return stored.get(name)

    data = encode(photo(64, 48))
    cache = ImageCache(max_bytes=2 * len(data) + 10)
    names = [uuid4() for _ in range(3)]
    with pytest.raises(ImageInputError):
        await cache.load(f"upload://{names[0]}", SETTINGS, read_upload=read_upload)
    stored.update(dict.fromkeys(names, data))
    for name in (*names, names[2], names[1], names[0]):
        await cache.load(f"upload://{name}", SETTINGS, read_upload=read_upload)
    assert reads == 1 + 3 + 1  # the first of three no longer fitted
    strict = Settings(_env_file=None, max_image_pixels=10)
    with pytest.raises(ImageInputError, match="pixels"):
        await cache.load(f"upload://{names[0]}", strict, read_upload=read_upload)
