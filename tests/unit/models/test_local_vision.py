"""What the offline vision model reads and measures, and how it states its limits."""

import asyncio
import base64
import json
import multiprocessing
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from PIL import Image, ImageFilter

from backend.models.offline.image_measurements import colour_name, measure
from backend.models.offline.ocr import joined_text, read_text
from backend.models.offline.vision import NO_PICTURE, NOTICE, LocalVision
from backend.pictures.load import ImageInputError
from tests.kit.pictures import INVOICE, encode, invoice, photo


def _asking(query: str, image: Image.Image, image_format: str = "PNG") -> HumanMessage:
    data = base64.b64encode(encode(image, image_format)).decode()
    picture = {"type": "image", "base64": data, "mime_type": f"image/{image_format.lower()}"}
    return HumanMessage([{"type": "text", "text": query}, picture])


def test_reads_an_invoice_word_for_word() -> None:
    answer = LocalVision().invoke([_asking("What is the total?", invoice())])
    analysis = answer.additional_kwargs["analysis"]
    rows = [" ".join(cells).split() for cells in INVOICE]
    assert [line.split() for line in analysis["text"].splitlines()] == rows
    assert [region["text"] for region in analysis["text_regions"]] == [cell for row in INVOICE for cell in row]
    assert all(region["confidence"] > 0.9 for region in analysis["text_regions"])
    assert analysis["matches"] == ["Total EUR  79.50"]
    assert answer.text.startswith(NOTICE)
    assert "Total EUR  79.50" in answer.text.split("share its words:")[1]
    assert json.loads(json.dumps(analysis, allow_nan=False)) == analysis


def test_boxes_hold_the_ink_they_were_read_from() -> None:
    page = invoice()
    for region in read_text(page):
        left, top, right, bottom = region["box"]
        ink = Image.eval(page.convert("L"), lambda value: 255 - value).crop((left, top, right, bottom)).getbbox()
        assert ink is not None
        assert ink[2] - ink[0] > 0.5 * (right - left)
        assert ink[3] - ink[1] > 0.4 * (bottom - top)


def test_a_picture_without_text() -> None:
    answer = LocalVision().invoke([_asking("Who is this?", photo(), "JPEG")])
    analysis = answer.additional_kwargs["analysis"]
    assert analysis["text"] == ""
    assert analysis["text_regions"] == []
    assert "Text: none was found." in answer.text
    assert "no line of text shares its words" in answer.text
    assert analysis["image"]["format"] == "JPEG"
    assert answer.response_metadata["model_name"] == "local:vision"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == 3
    assert answer.usage_metadata["output_tokens"] == len(answer.text.split())


def _png() -> str:
    return base64.b64encode(encode(Image.new("RGB", (64, 32), "teal"))).decode()


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": "@", "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,@"}},
        {"type": "image_url", "image_url": "data:image/png;base64,@"},
        {"type": "input_image", "image_url": "data:image/png;base64,@"},
        {"type": "image", "source_type": "base64", "data": "@", "mime_type": "image/png"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "@"}},
        {"type": "image", "url": "data:image/png;base64,@"},
    ],
)
def test_every_shape_of_an_image_block(block: dict[str, Any]) -> None:
    filled = json.loads(json.dumps(block).replace("@", _png()))
    analysis = LocalVision().invoke([HumanMessage([filled])]).additional_kwargs["analysis"]
    assert (analysis["image"]["width"], analysis["image"]["height"]) == (64, 32)
    assert analysis["palette"] == [{"hex": "#008080", "share": 1.0, "name": "teal"}]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/a.png", "fetches nothing"),
        ("data:image/png;base64,###", "valid base64"),
        ("data:image/png;base64,aGVsbG8=", "not a picture"),
    ],
)
def test_pictures_it_does_not_hold(source: str, message: str) -> None:
    with pytest.raises(ImageInputError, match=message):
        LocalVision().invoke([HumanMessage([{"type": "image_url", "image_url": {"url": source}}])])


def test_all_pictures_of_a_message_are_looked_at() -> None:
    pictures = [
        {"type": "image", "base64": base64.b64encode(encode(image)).decode(), "mime_type": "image/png"}
        for image in (invoice().crop((0, 0, 700, 80)), Image.new("RGB", (20, 10), "teal"))
    ]
    answer = LocalVision().invoke([HumanMessage([{"type": "text", "text": "Which number?"}, *pictures])])
    analysis = answer.additional_kwargs["analysis"]
    assert analysis["text"].split("\n")[0] == "Picture 1"
    assert "2026-1147" in analysis["text"]
    assert [(page["picture"], page["page"], page["width"]) for page in analysis["pages"]] == [(1, 1, 700), (2, 1, 20)]
    assert "Picture 2:\nPicture: 20 × 10 pixels, PNG." in answer.text


def test_what_is_beyond_the_bound_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.models.offline.vision.MAX_PARTS", 2)
    picture = {"type": "image", "base64": _png(), "mime_type": "image/png"}
    analysis = LocalVision().invoke([HumanMessage([picture] * 3)]).additional_kwargs["analysis"]
    assert analysis["shortcomings"] == ["Only the first 2 of 3 pictures and pages were looked at."]
    assert analysis["notice"].endswith(analysis["shortcomings"][0])


def test_limits_are_its_own() -> None:
    with pytest.raises(ImageInputError, match="limit of 100"):
        LocalVision(max_image_pixels=100).invoke([_asking("?", photo(64, 48))])


def test_the_last_picture_of_a_conversation() -> None:
    messages = [
        SystemMessage("be brief"),
        _asking("first", Image.new("RGB", (20, 20), "red")),
        AIMessage("…"),
        _asking("second", Image.new("RGB", (30, 30), "blue")),
        AIMessage("…"),
        HumanMessage("And now?"),
    ]
    answer = LocalVision().invoke(messages)
    assert answer.additional_kwargs["analysis"]["image"]["width"] == 30
    assert "On “And now?”" in answer.text


def test_without_a_picture_it_says_so() -> None:
    assert LocalVision().invoke("What is the capital of France?").text == NO_PICTURE


async def test_a_stream_adds_up_to_the_answer() -> None:
    model, question = LocalVision(), [_asking("What is the date?", invoice())]
    answer = await model.ainvoke(question)
    chunks = [chunk async for chunk in model.astream(question)]
    assert len(chunks) > 5
    total: AIMessageChunk = sum(chunks[1:], chunks[0])
    assert total.text == answer.text
    assert total.additional_kwargs == answer.additional_kwargs
    assert total.usage_metadata == answer.usage_metadata


async def test_waiting_pictures_do_not_hold_up_the_event_loop() -> None:
    """In the triggerer all agents share one loop, and its few threads look up host names too."""
    waiting = [asyncio.create_task(LocalVision().ainvoke([_asking("?", invoice())])) for _ in range(12)]
    await asyncio.sleep(0.05)
    for _ in range(10):
        await asyncio.wait_for(asyncio.to_thread(int), timeout=2)
    assert not all(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def test_measurements() -> None:
    grey = measure(Image.new("RGB", (200, 100), (128, 128, 128)))
    assert (grey["brightness"], grey["contrast"], grey["sharpness"]) == (0.502, 0.0, 0.0)
    halves = Image.new("RGB", (200, 100), "white")
    halves.paste("black", (0, 0, 100, 100))
    measured = measure(halves)
    assert (measured["brightness"], measured["contrast"]) == (0.5, 0.5)
    assert {colour["name"]: colour["share"] for colour in measured["palette"]} == {"white": 0.5, "black": 0.5}
    sharp = photo()
    blurred = sharp.filter(ImageFilter.GaussianBlur(3))
    assert measure(sharp)["sharpness"] > 10 * measure(blurred)["sharpness"]
    palette = measure(sharp)["palette"]
    assert palette[0]["share"] >= palette[-1]["share"] >= 0.01
    assert sum(colour["share"] for colour in palette) > 0.9
    assert measure(Image.new("RGB", (1, 1)))["sharpness"] == 0


@pytest.mark.parametrize(
    ("colour", "name"), [((255, 0, 0), "red"), ((1, 2, 3), "black"), ((70, 128, 180), "steelblue")]
)
def test_colour_names(colour: tuple[int, int, int], name: str) -> None:
    assert colour_name(colour) == name


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (3, 9000), (4000, 100), (31, 31)])
def test_extreme_shapes_are_only_empty(size: tuple[int, int]) -> None:
    assert read_text(Image.new("RGB", size, "white")) == []


def test_a_long_strip_is_read_and_placed() -> None:
    strip = Image.new("RGB", (3000, 60), "white")
    strip.paste(invoice().crop((20, 20, 720, 80)), (2000, 0))
    regions = read_text(strip)
    assert [region["text"].replace(" ", "") for region in regions] == ["INVOICE", "No.2026-1147"]
    assert 1990 < regions[0]["box"][0] < 2060


def test_rows_follow_a_slight_slant() -> None:
    page = invoice().rotate(1, expand=True, fillcolor="white")
    lines = ["".join(line.split()) for line in joined_text(read_text(page)).splitlines()]
    assert lines == ["".join("".join(cells).split()) for cells in INVOICE]


def _read_in_child(results: "multiprocessing.Queue[int]") -> None:
    results.put(len(read_text(invoice())))


def test_a_forked_task_reads_too() -> None:
    """Airflow forks its tasks, possibly from a process that read a picture before."""
    assert read_text(invoice())
    forking = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[int] = forking.Queue()
    child = forking.Process(target=_read_in_child, args=(results,))
    child.start()
    assert results.get(timeout=60) == sum(len(cells) for cells in INVOICE)
    child.join(10)
    assert child.exitcode == 0
