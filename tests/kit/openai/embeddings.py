"""Vectors that the fake server makes of texts: the more words two texts share, the nearer are theirs."""

import base64
import math
import re
import zlib
from array import array
from typing import Any

from tests.kit.openai.request import ModelRequest, tokens

DIMENSIONS = 1_536
"""Those of text-embedding-3-small."""


def embeddings(request: ModelRequest) -> dict[str, Any]:
    """The answer to a request for embeddings."""
    body = request.params
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = [vector(text, body.get("dimensions") or DIMENSIONS) for text in texts]
    shown: list[Any] = vectors
    if body.get("encoding_format") == "base64":
        shown = [base64.b64encode(array("f", one).tobytes()).decode() for one in vectors]
    used = sum(map(tokens, texts))
    return {
        "object": "list",
        "model": request.model,
        "data": [{"object": "embedding", "index": number, "embedding": one} for number, one in enumerate(shown)],
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def vector(text: str, dimensions: int) -> list[float]:
    """Each word has a direction of its own; a text goes a step in those of all of its words."""
    found = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()):
        seed = zlib.crc32(word.encode())
        for number in range(dimensions):
            seed = (1_103_515_245 * seed + 12_345) % 2**31
            found[number] += seed / 2**30 - 1
    length = math.sqrt(sum(value * value for value in found)) or 1.0
    return [value / length for value in found]
