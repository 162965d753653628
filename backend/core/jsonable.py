"""JSON as Postgres accepts it, from whatever an agent returns."""

import json
import re
from typing import Any

from pydantic_core import to_jsonable_python

# U+0000 is valid JSON but can't be stored in jsonb; an escaped backslash before `u0000` is not that character.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def to_jsonable(value: Any) -> Any:
    """A copy of `value` made of JSON types only.

    Models, dataclasses, dates, sets and decimals become their usual JSON form, NaN and infinities null, bytes base64,
    anything else its `str()`.
    """
    return to_jsonable_python(value, inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True)


def dumps(value: Any) -> str:
    """Compact JSON text that `jsonb` accepts; NUL characters are dropped, halves of surrogate pairs become `?`."""
    encoded = json.dumps(to_jsonable(value), separators=(",", ":"), ensure_ascii=False)
    # ensure_ascii=False still writes U+0000 as an escape.
    return _whole(_NUL.sub(r"\1", encoded))


def storable(text: str) -> str:
    """`text` as a text column accepts it, changed in the same way."""
    return _whole(text.replace("\x00", ""))


def _whole(text: str) -> str:
    # Half of a pair, which JSON may hold as an escape, has no form in UTF-8.
    return text.encode("utf-8", "replace").decode()
