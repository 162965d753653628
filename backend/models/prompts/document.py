"""How a document travels inside a prompt: fenced, so that it can't be mistaken for instructions."""

import re
from collections.abc import Callable

_ELEMENT = re.compile(r'<text(?: name="([^"<>]*)")?>\n(.*?)\n</text>', re.DOTALL)


def fence(text: str, name: str | None = None) -> str:
    """`text` as a `<text>` element, with a name when there are several. What `unfence` undoes."""
    label = ' name="' + re.sub(r'["<>]', "", name) + '"' if name else ""
    return f"<text{label}>\n" + text.replace("</text", r"<\/text") + "\n</text>"


def unfence(prompt: str) -> tuple[str, list[tuple[str | None, str]]]:
    """The instructions of a prompt, and its `(name, text)` documents.

    A prompt without any fence is a document itself: somebody who writes to a text model directly sends the
    text.
    """
    documents = [(match[1] or None, match[2].replace(r"<\/text", "</text")) for match in _ELEMENT.finditer(prompt)]
    if not documents:
        return "", [(None, prompt.strip())]
    return _ELEMENT.sub("", prompt).strip(), documents


def documents(prompt: str) -> list[str]:
    """The documents of a prompt as they stand in it, or all of it when it has none."""
    return [match[2] for match in _ELEMENT.finditer(prompt)] or [prompt]


def with_documents(prompt: str, change: Callable[[str], str]) -> str:
    """The prompt with each of its `documents` changed; its instructions and fences stay."""
    if _ELEMENT.search(prompt) is None:
        return change(prompt)

    def changed(match: re.Match[str]) -> str:
        start, end = match.span(2)
        whole, offset = match[0], match.start()
        return whole[: start - offset] + change(match[2]) + whole[end - offset :]

    return _ELEMENT.sub(changed, prompt)
