"""What a transparent picture is laid on, so that nothing in it disappears."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

SAMPLE_SIDE = 512
"""Pixels of the longer side that the contrast is measured at."""

VISIBLE_ALPHA = 128
FAINTEST = 10
"""The percentile of the visible pixels that has to stand out: text may be a small part of a picture."""

TOO_FAINT, CLEAR = 32, 60
"""Grey levels. White stays unless what lies on it is fainter than the first and another ground makes it clearer than
the second: a photograph with transparent corners has some of every brightness, and white is what viewers show."""


def flattened(image: "Image.Image") -> "Image.Image":
    """An RGBA picture as RGB, over white or, where white would hide what is drawn, over black or grey."""
    from PIL import Image

    shade = _ground(image)
    ground = Image.new("RGBA", image.size, (shade, shade, shade, 255))
    ground.alpha_composite(image)
    return ground.convert("RGB")


def _ground(image: "Image.Image") -> int:
    import numpy as np
    from PIL import Image

    # Nearest keeps the colours that are there; an average would mix them with those of invisible pixels.
    sample = image.copy()
    sample.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE), Image.Resampling.NEAREST)
    alpha = np.asarray(sample.getchannel("A"))
    visible = np.asarray(sample.convert("RGB").convert("L"), dtype=np.int16)[alpha >= VISIBLE_ALPHA]
    if visible.size == 0 or alpha.min() >= VISIBLE_ALPHA:
        return 255
    contrast = {shade: float(np.percentile(np.abs(visible - shade), FAINTEST)) for shade in (255, 0, 128)}
    best = max(contrast, key=lambda shade: contrast[shade])
    return best if contrast[255] < TOO_FAINT and contrast[best] > CLEAR else 255
