"""Twelve documents, drawn as pictures, by script and layout, with the words that are in them in reading order.

Latin is drawn in the font that Pillow carries, the other scripts in DejaVu Sans, which `.ci/run` installs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

DEJAVU = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")

LETTER = (
    "Dear Mrs Lindqvist,",
    "Thank you for your letter of the fourth of November.",
    "We have checked the order and confirm the delivery",
    "of twelve boxes of paper to the warehouse in Malmo.",
    "Kind regards, the sales team",
)
INVOICE = (
    ("Article", "Quantity", "Price", "Amount"),
    ("Widget, large", "3", "12.50", "37.50"),
    ("Gasket set", "10", "4.20", "42.00"),
    ("Copper pipe", "7", "8.15", "57.05"),
    ("Delivery", "1", "9.00", "9.00"),
    ("Total EUR", "", "", "145.55"),
)
HEADING = "The harbour of Malmo, then and now"
LEFT = (
    "For three hundred years the",
    "harbour fed the whole town.",
    "Grain left it by the shipload,",
    "and timber, coal and salt",
    "came back from the north.",
    "Then the bridge was opened.",
)
RIGHT = (
    "Ferries lost their passengers",
    "within a single summer, and",
    "the old sheds stood empty.",
    "Today students live where",
    "the cranes once stood, and",
    "the quays are full of cafes.",
)
RUSSIAN = (
    "Уважаемая Анна Сергеевна!",
    "Благодарим вас за письмо от четвёртого ноября.",
    "Мы проверили заказ и подтверждаем поставку",
    "двенадцати коробок бумаги на склад в Казани.",
    "С уважением, отдел продаж",
)
UKRAINIAN_INVOICE = (
    ("Товар", "Кількість", "Ціна", "Сума"),
    ("Папір офісний", "12", "85.00", "1020.00"),
    ("Олівці кольорові", "30", "7.50", "225.00"),
    ("Їжа для птахів", "4", "62.00", "248.00"),
    ("Разом до сплати", "", "", "1493.00"),
)
GREEK = (
    "Αγαπητή κυρία Παπαδοπούλου,",
    "σας ευχαριστούμε για την επιστολή σας.",
    "Ελέγξαμε την παραγγελία και επιβεβαιώνουμε",
    "την παράδοση δώδεκα κιβωτίων στην αποθήκη.",
    "Με εκτίμηση, τμήμα πωλήσεων",
)
ARABIC = (
    "السيدة العزيزة فاطمة",
    "نشكركم على رسالتكم المؤرخة في نوفمبر",
    "لقد راجعنا الطلب ونؤكد التسليم إلى المخزن",
    "يتم الدفع خلال ثلاثين يوما بعد استلام الفاتورة",
    "مع أطيب التحيات من قسم المبيعات",
)
HEBREW = (
    "שלום רב וברכה",
    "אנו מודים לך על המכתב מיום ראשון",
    "בדקנו את ההזמנה ואנו מאשרים את המשלוח",
)
STRIP = " ".join(
    (
        "Along the quay we passed the old customs house and the bakery, crossed the canal by the iron bridge,",
        "walked on between the sheds where the salt was kept, and came at last to the lighthouse, from which one",
        "sees the islands.",
        *LEFT,
        *RIGHT,
    )
)


@dataclass(frozen=True, slots=True)
class ScannedPage:
    """A document: how it is drawn, its words in reading order, and the script that has to be known to read it."""

    draw: Callable[[], Image.Image]
    words: list[str]
    script: str | None = None


def prose(lines: tuple[str, ...], *, dejavu: bool = False, from_right: bool = False) -> Image.Image:
    """A letter, 1,000 pixels wide."""
    image = Image.new("RGB", (1000, 80 + 52 * len(lines)), "white")
    _write(image, lines, 50, 40, dejavu=dejavu, from_right=from_right)
    return image


def table(cells: tuple[tuple[str, ...], ...], *, dejavu: bool = False) -> Image.Image:
    """Rows of four columns."""
    image = Image.new("RGB", (1100, 80 + 60 * len(cells)), "white")
    for row, texts in enumerate(cells):
        for text, left in zip(texts, (40, 420, 660, 860), strict=True):
            _write(image, (text,), left, 40 + 60 * row, dejavu=dejavu)
    return image


def columns() -> Image.Image:
    """A heading across two columns of prose."""
    image = Image.new("RGB", (1000, 480), "white")
    _write(image, (HEADING,), 200, 40)
    _write(image, LEFT, 40, 130)
    _write(image, RIGHT, 540, 130)
    return image


def strip() -> Image.Image:
    """A single line, far longer than a page is wide, at the foot of a panorama."""
    font = ImageFont.load_default(18)
    image = Image.new("RGB", (int(font.getlength(STRIP)) + 300, 100), "white")
    ImageDraw.Draw(image).text((100, 40), STRIP, font=font, fill="black")
    return image


def _write(
    image: Image.Image,
    lines: tuple[str, ...],
    left: int,
    top: int,
    *,
    dejavu: bool = False,
    from_right: bool = False,
) -> None:
    font = ImageFont.truetype(str(DEJAVU), 27) if dejavu else ImageFont.load_default(28)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        place, anchor = (
            ((image.width - left, top + 52 * number), "ra") if from_right else ((left, top + 52 * number), "la")
        )
        draw.text(place, line, font=font, fill="black", anchor=anchor)


def _words(*lines: str) -> list[str]:
    return " ".join(lines).split()


def _cells(cells: tuple[tuple[str, ...], ...]) -> list[str]:
    return _words(*(" ".join(row) for row in cells))


PAGES = {
    "letter": ScannedPage(lambda: prose(LETTER), _words(*LETTER)),
    "letter, turned by 270": ScannedPage(lambda: prose(LETTER).rotate(90, expand=True), _words(*LETTER)),
    "invoice": ScannedPage(lambda: table(INVOICE), _cells(INVOICE)),
    "invoice, turned by 90": ScannedPage(lambda: table(INVOICE).rotate(270, expand=True), _cells(INVOICE)),
    "invoice, turned by 180": ScannedPage(lambda: table(INVOICE).rotate(180), _cells(INVOICE)),
    "two columns": ScannedPage(columns, _words(HEADING, *LEFT, *RIGHT)),
    "strip": ScannedPage(strip, _words(STRIP)),
    "Russian letter": ScannedPage(lambda: prose(RUSSIAN, dejavu=True), _words(*RUSSIAN), "Cyrillic"),
    "Ukrainian invoice, turned by 90": ScannedPage(
        lambda: table(UKRAINIAN_INVOICE, dejavu=True).rotate(270, expand=True), _cells(UKRAINIAN_INVOICE), "Cyrillic"
    ),
    "Greek letter, turned by 180": ScannedPage(lambda: prose(GREEK, dejavu=True).rotate(180), _words(*GREEK), "Greek"),
    "Arabic letter": ScannedPage(lambda: prose(ARABIC, dejavu=True, from_right=True), _words(*ARABIC), "Arabic"),
    "Hebrew letter": ScannedPage(lambda: prose(HEBREW, dejavu=True, from_right=True), _words(*HEBREW), "Hebrew"),
}
