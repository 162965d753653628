"""The process that decodes a costly picture: `python -m backend.pictures.decoder <bytes> <pixels> < picture`.

Prints what was found as a line of JSON, or the `fault`, and then the pages as plain files, one after the other. It can
be killed at any time.
"""

import json
import resource
import sys
from dataclasses import dataclass
from typing import Any

from backend.pictures.decode import MEMORY, SECONDS, decode_image
from backend.pictures.errors import ImageInputError


@dataclass(frozen=True)
class _Limits:
    max_image_bytes: int
    max_image_pixels: int


def main() -> None:
    """Decode the picture on the standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS) + 1, int(SECONDS) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages: list[bytes] = []
    try:
        found = decode_image(sys.stdin.buffer.read(), _Limits(int(sys.argv[1]), int(sys.argv[2])))
        pages = [found.plain_page(page) for page in range(1, len(found.page_frames) + 1)]
    except ImageInputError as error:
        answer: dict[str, Any] = {"fault": error.message}
    else:
        sizes = [len(page) for page in pages]
        answer = {
            "facts": found.facts.as_dict(),
            "page_frames": found.page_frames,
            "pages": found.pages,
            "sizes": sizes,
        }
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + b"".join(pages))


if __name__ == "__main__":
    main()
