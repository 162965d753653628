"""Offline OCR of documents by script and layout: which words are read, in which order, and what is said of the rest."""

from difflib import SequenceMatcher
from functools import lru_cache

import pytest
from PIL import features

from backend.models.offline.ocr import PageText, read_page
from backend.models.offline.scripts import ScriptReader
from tests.kit.scanned_pages import DEJAVU, PAGES

SHARES = {
    "letter": 1.0,
    "letter, turned by 270": 1.0,
    "invoice": 1.0,
    "invoice, turned by 90": 1.0,
    "invoice, turned by 180": 1.0,
    "two columns": 1.0,
    "strip": 0.95,
    "Russian letter": 0.95,
    "Ukrainian invoice, turned by 90": 0.9,
    "Greek letter, turned by 180": 0.9,
    "Arabic letter": 0.9,
}
"""The least share of the words that has to be read, in their order."""

TURNED = {"turned by 90": 90, "turned by 180": 180, "turned by 270": 270}


def _needs(name: str) -> None:
    """Skip where the font or Tesseract's data is missing; `.ci/run` installs both."""
    script = PAGES[name].script
    if script is None:
        return
    if not DEJAVU.exists():
        pytest.skip("needs Debian's fonts-dejavu-core")
    if script in ("Arabic", "Hebrew") and not features.check("raqm"):
        pytest.skip("needs FriBiDi, to join Arabic letters")


@lru_cache
def _read(name: str) -> PageText:
    """Each page is read once for all tests: that takes a second."""
    return read_page(PAGES[name].draw())


def share_in_order(words: list[str], read: list[str]) -> float:
    """The share of the words that was read, in their order; a word in the wrong place counts as not read."""
    blocks = SequenceMatcher(None, words, read, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(words)


@pytest.mark.parametrize("name", SHARES)
def test_words_are_read_in_order(name: str) -> None:
    _needs(name)
    page = PAGES[name]
    if page.script is not None and not ScriptReader().can_read(page.script):
        pytest.skip(f"needs Tesseract's data for {page.script}")
    found = _read(name)
    assert share_in_order(page.words, found.text.split()) >= SHARES[name], found.text
    assert found.turned == next((degrees for part, degrees in TURNED.items() if part in name), 0)
    assert found.unreadable == {}


def test_a_table_keeps_its_rows_when_it_is_turned() -> None:
    upright, *others = (_read(name).text for name in ("invoice", "invoice, turned by 90", "invoice, turned by 180"))
    assert "Copper pipe  7  8.15  57.05" in upright.splitlines()
    assert others == [upright, upright]


@pytest.mark.parametrize("name", [name for name in PAGES if PAGES[name].script is None])
def test_boxes_are_those_of_the_picture_as_received(name: str) -> None:
    ink = PAGES[name].draw().convert("L").point(lambda value: 255 if value < 128 else 0)
    for region in _read(name).regions:
        left, top, right, bottom = region["box"]
        assert 0 <= left < right <= ink.width
        assert 0 <= top < bottom <= ink.height
        drawn = ink.crop((left, top, right, bottom)).getbbox()
        assert drawn is not None
        assert max(drawn[2] - drawn[0], drawn[3] - drawn[1]) > 0.5 * max(right - left, bottom - top)


def test_a_script_without_data_is_reported_instead_of_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    _needs("Hebrew letter")
    monkeypatch.setattr("backend.models.offline.scripts.DATA_FOLDERS", ())
    for name, script in (("Hebrew letter", "Hebrew"), ("Russian letter", "Cyrillic")):
        found = read_page(PAGES[name].draw())
        assert found.text == ""
        assert found.unreadable == {script: len(found.regions)}
        assert {region["confidence"] for region in found.regions} == {0.0}
        assert {region.get("script") for region in found.regions} == {script}


def test_pages_in_latin_need_no_second_recogniser(monkeypatch: pytest.MonkeyPatch) -> None:
    def detect(*_: object) -> None:
        raise AssertionError("the script was looked for")

    monkeypatch.setattr(ScriptReader, "detect", detect)
    assert read_page(PAGES["invoice"].draw()).text == _read("invoice").text
