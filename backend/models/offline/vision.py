"""`local:vision`: says what can be determined about a picture without a vision model, and no more."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage

from backend.core.settings import Settings
from backend.models.offline.chat import LocalChatModel
from backend.models.offline.image_measurements import Measurements, measure
from backend.models.offline.ocr import TextRegion, joined_text, read_text
from backend.models.offline.text_analysis import detect_language, matching_sentences
from backend.pictures.errors import ImageInputError
from backend.pictures.load import PictureFacts, decode_image

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
    """Measures the picture in the last human message that has one, and reads its text. Offline.

    It accepts all image blocks that LangChain's `content_blocks` knows, if they contain the data: nothing is fetched.
    `additional_kwargs["analysis"]` has `offline, notice, image, brightness, contrast, sharpness, palette, text,
    text_regions, matches`; boxes are `[left, top, right, bottom]` in pixels of the picture as it was received. Raises
    `ImageInputError` if the picture can't be decoded; a retry doesn't help.
    """

    model: str = NAME
    max_image_bytes: int = Settings.model_fields["max_image_bytes"].default
    max_image_pixels: int = Settings.model_fields["max_image_pixels"].default

    def _analyse(self, messages: Sequence[BaseMessage]) -> tuple[str, dict[str, Any]]:
        pictures = _last_pictures(messages)
        if not pictures:
            return NO_PICTURE, {"offline": True, "notice": NO_PICTURE}
        image = decode_image(_picture_bytes(pictures[0]), self)
        pixels = image.upright()
        measured = measure(pixels)
        regions = read_text(pixels)
        query = next((message.text for message in reversed(messages) if isinstance(message, HumanMessage)), "")
        text = joined_text(regions)
        lines = text.splitlines()
        matches = matching_sentences(query, lines, detect_language(query)) if lines else []
        analysis = {
            "offline": True,
            "notice": NOTICE,
            "image": image.facts.as_dict(),
            **measured,
            "text": text,
            "text_regions": regions,
            "matches": matches,
        }
        report = [NOTICE, *_picture_lines(image.facts, measured)]
        if len(pictures) > 1:
            report.append(f"Only the first of {len(pictures)} pictures was looked at.")
        report += _text_lines(lines, regions)
        if query.strip():
            report += _query_lines(query, matches)
        return "\n".join(report), analysis


def _last_pictures(messages: Sequence[BaseMessage]) -> list[str]:
    """The pictures in the last human message that has any, as base64 or by their URL."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            found = [source for block in message.content_blocks if (source := _picture_source(dict(block)))]
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


def _picture_lines(facts: PictureFacts, measured: Measurements) -> list[str]:
    frames = f", {facts.frames} frames (the first was measured)" if facts.frames > 1 else ""
    lines = [
        f"Picture: {facts.width} × {facts.height} pixels, {facts.format}{frames}.",
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


def _text_lines(lines: list[str], regions: list[TextRegion]) -> list[str]:
    if not lines:
        return ["Text: none was found."]
    confidence = sum(region["confidence"] for region in regions) / len(regions)
    noun = "line" if len(lines) == 1 else "lines"
    return [f"Text: {len(lines)} {noun}, mean confidence {confidence:.2f}:", *lines]


def _query_lines(query: str, matches: list[str]) -> list[str]:
    question = " ".join(query.split())[:300]
    if not matches:
        return [f"On “{question}”: no line of text shares its words; the facts above are all there is offline."]
    return [f"On “{question}”, the lines that share its words:", *matches]
