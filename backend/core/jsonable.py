"""Converts whatever an agent returns to JSON that PostgreSQL accepts."""

import json
import re
from typing import Any

from pydantic_core import to_jsonable_python

# U+0000 is valid in JSON but not in jsonb. An escaped backslash followed by `u0000` is something else.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def to_jsonable(value: Any) -> Any:
    """A copy of `value` that consists of JSON types only.

    Models, dataclasses, dates, sets and decimals get their usual JSON form. NaN and infinities become null, bytes
    become base64, and anything else its `str()`.
    """
    return to_jsonable_python(value, inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True)


def dumps(value: Any) -> str:
    """Compact JSON text that `jsonb` accepts: without NUL characters, and with `?` for unpaired surrogates."""
    encoded = json.dumps(to_jsonable(value), separators=(",", ":"), ensure_ascii=False)
    # `ensure_ascii=False` still escapes U+0000.
    return _whole(_NUL.sub(r"\1", encoded))


def storable(text: str) -> str:
    """`text` in a form that a text column accepts, changed in the same way."""
    return _whole(text.replace("\x00", ""))


def _whole(text: str) -> str:
    # An unpaired surrogate, which JSON may contain as an escape, can't be encoded in UTF-8.
    return text.encode("utf-8", "replace").decode()
