"""`local:vision`: says what can be determined about a picture without a vision model, and no more."""

import base64
import binascii
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage

from backend.core.settings import Settings
from backend.models.offline.chat import LocalChatModel
from backend.models.offline.image_measurements import Measurements, measure
from backend.models.offline.ocr import PageText, read_page
from backend.models.offline.scripts import how_to_read
from backend.models.offline.text_analysis import detect_language, matching_sentences
from backend.models.prompts.picture import caption_of, without_captions
from backend.pictures.decode import decode_image
from backend.pictures.errors import ImageInputError
from backend.pictures.parts import MAX_PARTS
from backend.pictures.picture import LoadedImage, PictureFacts

NAME = "local:vision"

NOTICE = (
    f"Offline analysis by {NAME}: without a vision model only measured facts and text read by OCR are given; "
    "objects, people and meaning are not recognised."
)
NO_PICTURE = (
    f"{NAME} answers about pictures only, and this message holds none. It works offline: it measures a "
    "picture and reads its text. For anything else a model key has to be set (OPENAI_API_KEY)."
)


class LocalVision(LocalChatModel):
    """Measures the pictures of the last human message that holds any, and reads their text, offline.

    All image blocks that LangChain's `content_blocks` knows are taken, if they hold the data: nothing is
    fetched. Of all pictures, and the pages of documents among them, the first `MAX_PARTS` are looked at.

    `additional_kwargs["analysis"]` holds `offline, notice, image, brightness, contrast, sharpness, palette, text,
    text_regions, matches`, and in `shortcomings` what was not looked at or can't be read. `text` is that of all pages;
    the facts, measurements and regions are the first page's. If there is more than one, `pages` holds `picture, page,
    width, height, text, text_regions` of each, with pictures and pages counted from 1. Boxes are `[left, top, right,
    bottom]` in pixels of the picture as it was received, whichever way up its text is. Raises `ImageInputError` for a
    picture that can't be decoded: a retry doesn't help.
    """

    model: str = NAME
    max_image_bytes: int = Settings.model_fields["max_image_bytes"].default
    max_image_pixels: int = Settings.model_fields["max_image_pixels"].default

    def _analyse(self, messages: Sequence[BaseMessage]) -> tuple[str, dict[str, Any]]:
        sources = _last_pictures(messages)
        if not sources:
            return NO_PICTURE, {"offline": True, "notice": NO_PICTURE}
        pages: list[_Page] = []
        count = 0
        for number, (caption, source) in enumerate(sources[:MAX_PARTS], 1):
            picture = decode_image(_picture_bytes(source), self)
            count += picture.pages
            title = caption or (f"picture {number}" if len(sources) > 1 else "")
            looked_at = range(1, 1 + min(picture.pages, MAX_PARTS - len(pages)))
            pages += [_look(picture, page, title, number) for page in looked_at]
        count += len(sources[MAX_PARTS:])
        first = pages[0]
        query = next((message.text for message in reversed(messages) if isinstance(message, HumanMessage)), "")
        query = without_captions(query)
        text = first.read.text if len(pages) == 1 else _text_of_all(pages)
        lines = text.splitlines()
        matches = matching_sentences(query, lines, detect_language(query)) if lines else []
        shortcomings = _shortcomings(pages, count)
        notice = " ".join([NOTICE, *shortcomings])
        analysis: dict[str, Any] = {
            "offline": True,
            "notice": notice,
            "image": first.facts.as_dict(),
            **first.measured,
            "text": text,
            "text_regions": first.read.regions,
            "matches": matches,
        }
        if shortcomings:
            analysis["shortcomings"] = shortcomings
        if len(pages) > 1:
            analysis["pages"] = [page.as_dict() for page in pages]
        report = [notice]
        for page in pages:
            report += [*([f"{page.title}:"] if len(pages) > 1 else []), *_picture_lines(page)]
            report += _text_lines(page.read)
        if query.strip():
            report += _query_lines(query, matches)
        return "\n".join(report), analysis


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of a picture, with what was measured and read; `picture` and `number` count from 1."""

    title: str
    picture: int
    number: int
    pages: int
    facts: PictureFacts
    size: tuple[int, int]
    measured: Measurements
    read: PageText

    def as_dict(self) -> dict[str, Any]:
        """The page as JSON values."""
        width, height = self.size
        return {
            "picture": self.picture,
            "page": self.number,
            "width": width,
            "height": height,
            "text": self.read.text,
            "text_regions": self.read.regions,
        }


def _look(picture: LoadedImage, page: int, title: str, number: int) -> _Page:
    pixels = picture.upright(page=page)
    if picture.pages > 1:
        title = ", ".join(filter(None, (title, f"page {page} of {picture.pages}")))
    title = title[:1].upper() + title[1:]
    return _Page(title, number, page, picture.pages, picture.facts, pixels.size, measure(pixels), read_page(pixels))


def _text_of_all(pages: list[_Page]) -> str:
    """The text of all pages, each under its title."""
    return "\n\n".join(f"{page.title}\n{page.read.text}".rstrip() for page in pages)


def _shortcomings(pages: list[_Page], count: int) -> list[str]:
    """What was not looked at or could not be read, in sentences."""
    said = []
    if count > len(pages):
        said.append(f"Only the first {len(pages)} of {count} pictures and pages were looked at.")
    unreadable = Counter[str]()
    for page in pages:
        unreadable.update(page.read.unreadable)
    for script, pieces in sorted(unreadable.items()):
        noun = "piece" if pieces == 1 else "pieces"
        said.append(
            f"{pieces} {noun} of text in {script} script can't be read here: use a hosted model, or install the data "
            f"that Tesseract has for it (Debian: {how_to_read(script)})."
        )
    return said


def _last_pictures(messages: Sequence[BaseMessage]) -> list[tuple[str | None, str]]:
    """The pictures of the last human message that holds any, as base64 or as their URL, each with its caption."""
    for message in reversed(messages):
        if not isinstance(message, HumanMessage):
            continue
        blocks = [dict(block) for block in message.content_blocks]
        found = [
            (caption_of(before), source)
            for before, block in pairwise([{}, *blocks])
            if (source := _picture_source(block))
        ]
        if found:
            return found
    return []


def _picture_source(block: dict[str, Any]) -> str | None:
    if block.get("type") == "image":
        source = block.get("base64") or block.get("url") or f"file:{block.get('file_id')}"
        return str(source)
    value = block.get("value")
    # OpenAI's forms that LangChain doesn't translate: a plain URL, and that of the Responses API.
    if isinstance(value, dict) and value.get("type") in ("image_url", "input_image"):
        return str(value.get("image_url"))
    return None


def _picture_bytes(source: str) -> bytes:
    if source.lower().startswith(("http:", "https:", "file:")):
        raise ImageInputError(f"{NAME} fetches nothing; put the picture itself, in base64, into the message")
    try:
        return base64.b64decode("".join(source.removeprefix("data:").rpartition(",")[2].split()), validate=True)
    except (binascii.Error, ValueError):
        raise ImageInputError("the picture does not hold valid base64; encode it again") from None


def _picture_lines(page: _Page) -> list[str]:
    facts, measured, (width, height) = page.facts, page.measured, page.size
    frames = f", {facts.frames} frames (the first was measured)" if facts.frames > page.pages else ""
    if page.pages > 1:
        frames = f", page {page.number} of {page.pages}"
    lines = [
        f"Picture: {width} × {height} pixels, {facts.format}{frames}.",
        f"Light: brightness {measured['brightness']:.2f} of 1, contrast {measured['contrast']:.2f}, "
        f"sharpness {measured['sharpness']:.0f} (variance of the Laplacian).",
    ]
    colours = ", ".join(f"{colour['name']} {colour['hex']} {colour['share']:.0%}" for colour in measured["palette"][:5])
    if colours:
        lines.append(f"Colours: {colours}.")
    taken = [f"{tag} {facts.exif[tag]}" for tag in ("Make", "Model", "DateTimeOriginal") if tag in facts.exif]
    if taken:
        lines.append(f"Camera: {', '.join(taken)}.")
    return lines


def _text_lines(read: PageText) -> list[str]:
    turned = f"The text is turned by {read.turned} degrees." if read.turned else ""
    lines = read.text.splitlines()
    if not lines:
        return ["Text: none was read." if read.unreadable else "Text: none was found."]
    scores = [region["confidence"] for region in read.regions if region["text"]]
    noun = "line" if len(lines) == 1 else "lines"
    found = f"Text: {len(lines)} {noun}, mean confidence {sum(scores) / len(scores):.2f}:"
    return [*([turned] if turned else []), found, *lines]


def _query_lines(query: str, matches: list[str]) -> list[str]:
    question = " ".join(query.split())[:300]
    if not matches:
        return [f"On “{question}”: no line of text shares its words; the facts above are all there is offline."]
    return [f"On “{question}”, the lines that share its words:", *matches]
