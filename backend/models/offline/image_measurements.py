"""Measures light, contrast, sharpness and colours of a picture with Pillow and NumPy. Blocking; uses no model."""

import math
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

MEASURED_SIDE = 1024
"""The longer side, in pixels, at which light and sharpness are measured. Sharpness depends on the scale, so there is
only one."""

PALETTE_SIDE = 256
PALETTE_COLOURS = 8
MIN_SHARE = 0.01
"""The smallest share of the picture that makes a colour dominant: 1 %."""


class PaletteColour(TypedDict):
    """A dominant colour: its share of the picture from 0 to 1, and the CSS colour name nearest to it."""

    hex: str
    share: float
    name: str


class Measurements(TypedDict):
    """`brightness` and `contrast` are from 0 to 1, `sharpness` is from 0 up; `palette` is ordered by share."""

    brightness: float
    contrast: float
    sharpness: float
    palette: list[PaletteColour]


def measure(image: "Image.Image") -> Measurements:
    """Measure an RGB picture.

    Brightness is the mean of the luma (ITU-R BT.601), and contrast its standard deviation (RMS contrast; the maximum is
    0.5, for black and white in equal parts), both over 255. Sharpness is the variance of the luma's
    Laplacian (Pech-Pacheco et al., 2000) in squared grey levels, with the longer side at most `MEASURED_SIDE`
    pixels; below about 100 a photograph looks blurred.
    """
    import numpy as np

    luma_image = image.convert("L")
    luma_image.thumbnail((MEASURED_SIDE, MEASURED_SIDE))
    luma = np.asarray(luma_image, dtype=np.float64)
    return {
        "brightness": round(float(luma.mean()) / 255, 4),
        "contrast": round(float(luma.std()) / 255, 4),
        "sharpness": round(_laplacian_variance(luma), 2),
        "palette": _palette(image),
    }


def _laplacian_variance(luma: "NDArray[np.float64]") -> float:
    if min(luma.shape) < 3:
        return 0.0
    centre = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * centre
    return float(laplacian.var())


def _palette(image: "Image.Image") -> list[PaletteColour]:
    from PIL import Image

    small = image.convert("RGB")
    small.thumbnail((PALETTE_SIDE, PALETTE_SIDE))
    quantized = small.quantize(PALETTE_COLOURS, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
    values = quantized.getpalette() or []
    counts: Any = quantized.getcolors() or []
    total = small.width * small.height
    merged: dict[str, PaletteColour] = {}
    for count, index in sorted(counts, reverse=True):
        red, green, blue = values[3 * index : 3 * index + 3]
        name, share = colour_name((red, green, blue)), count / total
        if name in merged:  # shades with the same name are one colour, represented by the most frequent shade
            merged[name]["share"] += share
        else:
            merged[name] = {"hex": f"#{red:02x}{green:02x}{blue:02x}", "share": share, "name": name}
    ranked = sorted(merged.values(), key=lambda colour: -colour["share"])
    return [{**colour, "share": round(colour["share"], 4)} for colour in ranked if colour["share"] >= MIN_SHARE]


def colour_name(colour: tuple[int, int, int]) -> str:
    """The CSS 3 colour name nearest to an sRGB colour, by the "redmean" distance.

    Redmean (T. Riemersma, CompuPhase, "Colour metric") weights the channels as the eye does, without a conversion to
    another colour space.
    """
    import webcolors

    red, green, blue = colour

    def distance(name: str) -> float:
        other = webcolors.name_to_rgb(name)
        mean = (red + other.red) / 2
        return math.sqrt(
            (2 + mean / 256) * (red - other.red) ** 2
            + 4 * (green - other.green) ** 2
            + (2 + (255 - mean) / 256) * (blue - other.blue) ** 2
        )

    return str(min(webcolors.names("css3"), key=distance))
