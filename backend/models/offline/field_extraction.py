"""Finds the fields of a JSON Schema in a text without a language model, by their labels and by their form.

Precision takes precedence over recall: an ambiguous value is not reported. Blocking and deterministic.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from backend.core.json_schema import JsonSchema
from backend.models.offline.text_analysis import split_words

MAX_LABEL_CHARS = 60
MAX_VALUE_CHARS = 500

# "Label: value", "Label = value", and columns: two spaces, a tab or a table's bar between them.
_LABELLED = re.compile(r"\W*?(?P<label>\w[^:=\t|]*?)\s*(?:[:：=](?!//)|\t|\s\|\s|[ ]{2,})\s*(?P<value>\S.*)")
_NUMBER = re.compile(r"(?<![\w.,])[-−]?\d+(?:[.,'’\u00a0\u202f ]\d{3}(?!\d))*(?:[.,]\d+)?(?![\w]|[.,]\d)")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URI = re.compile(r"https?://[^\s<>\"')\]]+[^\s<>\"')\].,;:!?]")
_ISO_DATE = re.compile(r"(?<![\d-])(\d{4})-(\d{2})-(\d{2})(?![\d-])")
_NUMERIC_DATE = re.compile(r"(?<![\d./])(\d{1,2})([./])(\d{1,2})\2(\d{4})(?![\d/])")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"({'|'.join(_MONTHS)})[a-z]*\.?"
_DAY_MONTH = re.compile(rf"(?i)\b(\d{{1,2}})(?:st|nd|rd|th)?\.?\s+(?:of\s+)?{_MONTH},?\s+(\d{{4}})\b")
_MONTH_DAY = re.compile(rf"(?i)\b{_MONTH}\s+(\d{{1,2}})(?:st|nd|rd|th)?,?\s+(\d{{4}})\b")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SAME = {"no": "number", "nr": "number", "num": "number", "qty": "quantity", "amt": "amount", "mail": "email"}
_BOOLEANS = {"yes": True, "true": True, "y": True, "no": False, "false": False, "n": False}


@dataclass(frozen=True, slots=True)
class Found:
    """A field's value, and the line of the text that holds it."""

    value: Any
    line: str


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    words: tuple[str, ...]
    label: tuple[str, ...]
    value: str


def find_fields(text: str, schema: Mapping[str, Any]) -> dict[str, Found | None]:
    """The value found for each property of `schema`; None where there is none.

    A value fits its property's own schema. Properties that are objects are not searched for, and neither are lists of
    anything but dates, addresses and numbers with a pattern.
    """
    lines = [_line(raw) for raw in text.splitlines() if raw.strip()]
    parts = {name: _resolved(part, schema) for name, part in schema.get("properties", {}).items()}
    names = {name: {_words(name), _words(str(part.get("title") or name))} for name, part in parts.items()}
    found = {}
    for name, part in parts.items():
        # A value beside another field's label belongs to that field, whatever it looks like.
        others = {words for other, its in names.items() if other != name for words in its} - names[name]
        own = lines if part.get("type") == "array" else [line for line in lines if line.label not in others]
        found[name] = _find(own, names[name], part, schema)
    return found


def _find(
    lines: list[_Line], names: set[tuple[str, ...]], part: Mapping[str, Any], root: Mapping[str, Any]
) -> Found | None:
    checks = JsonSchema({**part, "$defs": root.get("$defs", {}), "definitions": root.get("definitions", {})})
    for candidates in _rounds(lines, names, part):
        fitting = [found for found in candidates if found.value is not None and checks.is_valid(found.value)]
        if fitting:
            # Two different values are ambiguous.
            return fitting[0] if all(found.value == fitting[0].value for found in fitting) else None
    return None


def _rounds(lines: list[_Line], names: set[tuple[str, ...]], part: Mapping[str, Any]) -> Iterable[list[Found]]:
    """The candidates in rounds of decreasing certainty: a round counts only if earlier ones found nothing."""
    read, pattern = _reader(part), _pattern(part, names)
    if part.get("type") == "array":
        if pattern is not None:
            values = [(value, line.text) for line in lines for value in pattern(line.text)]
            unique = list(dict.fromkeys(value for value, _ in values))
            yield [Found(unique, values[0][1])] if unique else []
        return
    yield [Found(read(line.value), line.text) for line in lines if line.label in names]
    yield [
        Found(read(line.value), line.text)
        for line in lines
        if line.label and any(set(words) <= set(line.label) for words in names)
    ]
    if _typed(part):
        # "Total EUR 79.50": only short lines like those of a form, not prose that begins with the word.
        yield [
            Found(read(" ".join(line.text.split()[len(words) :])), line.text)
            for line in lines
            for words in names
            if line.words[: len(words)] == words and len(line.words) <= len(words) + 4
        ]
    if pattern is not None:
        yield [Found(value, line.text) for line in lines for value in pattern(line.text)]


def _line(raw: str) -> _Line:
    text = raw.strip().strip("|").strip()
    match = _LABELLED.fullmatch(text)
    if match is None or len(match["label"]) > MAX_LABEL_CHARS:
        return _Line(text, _words(text), (), "")
    return _Line(text, _words(text), _words(match["label"]), match["value"].strip(" |*"))


def _words(text: str) -> tuple[str, ...]:
    words = split_words(_CAMEL.sub(" ", text).replace("_", " ").replace("e-mail", "email").replace("E-mail", "email"))
    return tuple(_SAME.get(word, word) for word in map(str.casefold, words))


def _resolved(given: Any, root: Mapping[str, Any]) -> dict[str, Any]:
    """A property's schema with references resolved, and without the alternative null."""
    if not isinstance(given, Mapping):
        return {}
    part = dict(given)
    for _ in range(10):
        options = part.get("anyOf") or part.get("oneOf")
        if "$ref" in part:
            target: Any = root
            for step in str(part["$ref"]).removeprefix("#").strip("/").split("/"):
                target = target.get(step, {}) if isinstance(target, Mapping) else {}
            part = {**target, **{key: value for key, value in part.items() if key != "$ref"}}
        elif options and len(some := [option for option in options if option.get("type") != "null"]) == 1:
            rest = {key: value for key, value in part.items() if key not in ("anyOf", "oneOf", "default")}
            part = {**some[0], **rest}
        else:
            break
    kind = part.get("type")
    if isinstance(kind, list):
        kinds = [one for one in kind if one != "null"]
        part = {**part, "type": kinds[0] if len(kinds) == 1 else kinds}
    return part


def _typed(part: Mapping[str, Any]) -> bool:
    return part.get("type") in ("number", "integer") or part.get("format") in ("date", "email", "uri")


def _reader(part: Mapping[str, Any]) -> Callable[[str], Any]:
    """The function that reads a property's value from the text beside its label; None if there is none."""
    kind, form = part.get("type"), part.get("format")
    if "enum" in part:
        return lambda text: next((one for one in part["enum"] if str(one).casefold() == text.casefold()), None)
    if kind in ("number", "integer"):
        return lambda text: _only([_number(found, whole=kind == "integer") for found in _NUMBER.findall(text)])
    if kind == "boolean":
        return lambda text: _BOOLEANS.get(text.casefold().rstrip("."))
    if form == "date":
        return lambda text: _only(_dates(text))
    if form == "email":
        return lambda text: _only(_EMAIL.findall(text))
    if form == "uri":
        return lambda text: _only(_URI.findall(text))
    if kind == "string":
        return lambda text: text if len(text) <= MAX_VALUE_CHARS else None
    return lambda _: None


def _pattern(part: Mapping[str, Any], names: set[tuple[str, ...]]) -> Callable[[str], list[str]] | None:
    """The function that finds all values of a kind anywhere in a text, for kinds with an unmistakable form."""
    if part.get("type") == "array":
        item = part.get("items")
        return _pattern(item, names) if isinstance(item, Mapping) and item.get("type") == "string" else None
    form = part.get("format")
    if form == "date":
        return _dates
    if form == "email" or (part.get("type") == "string" and any("email" in words for words in names)):
        return lambda text: list(_EMAIL.findall(text))
    if form == "uri":
        return lambda text: list(_URI.findall(text))
    return None


def _only(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else None


def _number(text: str, *, whole: bool) -> float | int | None:
    digits = re.sub(r"['’\u00a0\u202f ]", "", text).replace("−", "-")
    points = [mark for mark in digits if mark in ".,"]
    if len(set(points)) == 2:  # the last one is the decimal mark, and the other one groups thousands
        digits = digits.replace(points[0], "").replace(",", ".")
    elif len(points) > 1 or (points == [","] and re.search(r",\d{3}$", digits)):
        digits = digits.replace(points[0], "")
    else:
        digits = digits.replace(",", ".")
    try:
        number = float(digits)
    except ValueError:
        return None
    if whole:
        return int(number) if number.is_integer() else None
    return number


def _dates(text: str) -> list[str]:
    """The dates in a text, as ISO 8601. Ambiguous ones such as 03/04/2025 are left out."""
    found = [(match.start(), (match[1], match[2], match[3])) for match in _ISO_DATE.finditer(text)]
    for match in _NUMERIC_DATE.finditer(text):
        first, mark, second, year = match.groups()
        if mark == "." or int(first) > 12 or first == second:
            found.append((match.start(), (year, second, first)))
        elif int(second) > 12:
            found.append((match.start(), (year, first, second)))
    for match in _DAY_MONTH.finditer(text):
        found.append((match.start(), (match[3], str(_MONTHS.index(match[2].lower()) + 1), match[1])))
    for match in _MONTH_DAY.finditer(text):
        found.append((match.start(), (match[3], str(_MONTHS.index(match[1].lower()) + 1), match[2])))
    days = []
    for _, (year, month, day) in sorted(found):
        try:
            days.append(date(int(year), int(month), int(day)).isoformat())
        except ValueError:
            continue
    return days
