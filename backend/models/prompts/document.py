"""Fences documents inside a prompt, so that a model can't mistake them for instructions."""

import re
from collections.abc import Callable

_ELEMENT = re.compile(r'<text(?: name="([^"<>]*)")?>\n(.*?)\n</text>', re.DOTALL)


def fence(text: str, name: str | None = None) -> str:
    """Wrap `text` in a `<text>` element, with a name if there are several. `unfence` reverses this."""
    label = ' name="' + re.sub(r'["<>]', "", name) + '"' if name else ""
    return f"<text{label}>\n" + text.replace("</text", r"<\/text") + "\n</text>"


def unfence(prompt: str) -> tuple[str, list[tuple[str | None, str]]]:
    """Return the instructions in a prompt, and its documents as `(name, text)`.

    A prompt without a fence is a document itself: whoever calls a text model directly sends just the text.
    """
    documents = [(match[1] or None, match[2].replace(r"<\/text", "</text")) for match in _ELEMENT.finditer(prompt)]
    if not documents:
        return "", [(None, prompt.strip())]
    return _ELEMENT.sub("", prompt).strip(), documents


def documents(prompt: str) -> list[str]:
    """The documents of a prompt, still escaped; the whole prompt if it has none."""
    return [match[2] for match in _ELEMENT.finditer(prompt)] or [prompt]


def with_documents(prompt: str, change: Callable[[str], str]) -> str:
    """The prompt with `change` applied to each of its `documents`, but not to instructions and fences."""
    if _ELEMENT.search(prompt) is None:
        return change(prompt)

    def changed(match: re.Match[str]) -> str:
        start, end = match.span(2)
        whole, offset = match[0], match.start()
        return whole[: start - offset] + change(match[2]) + whole[end - offset :]

    return _ELEMENT.sub(changed, prompt)
