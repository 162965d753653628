"""The project's documents as a reader sees them: headings, links, code blocks, and the words between backquotes."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kit.processes.stack import ROOT

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced code block, without the indentation of the list it may be part of."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


class Document:
    """A Markdown file; `name` is its path relative to the repository's root."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (ROOT / name).read_text()
        self.prose = _FENCE.sub("", self.text)

    @property
    def headings(self) -> list[str]:
        """All headings as written, in order."""
        return [match[2].strip() for match in _HEADING.finditer(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """The anchors that links into this document may use, derived as GitHub does."""
        seen: Counter[str] = Counter()
        found = set()
        for heading in self.headings:
            slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
        return found

    @property
    def links(self) -> list[str]:
        """The targets of all links."""
        return _LINK.findall(self.prose)

    @property
    def inline(self) -> list[str]:
        """The text between backquotes."""
        return _INLINE.findall(self.prose)

    @property
    def blocks(self) -> list[Block]:
        """All code blocks, in order."""
        return list(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        for match in _FENCE.finditer(self.text):
            text = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
            yield Block(self.name, self.text.count("\n", 0, match.start()) + 1, match[2], text)


DOCUMENTS = [
    Document(name)
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")),
    )
]
"""The README and the documents that it links to."""


def tree_paths(text: str) -> set[Path]:
    """Return the paths of a tree of files, drawn with lines or indentation. Text after a name explains it.

    A line that is indented further than any name in its folder continues an explanation.
    """
    found: set[Path] = set()
    above: list[tuple[int, Path]] = []
    for line in text.splitlines():
        indentation, name = re.match(r"([ │├└─]*)(\S*)", line).groups()  # type: ignore[union-attr]  # it fits any line
        depth = len(indentation)
        if not name or (above and depth > above[-1][0] + 4):
            continue
        above = [(level, path) for level, path in above if level < depth]
        path = (above[-1][1] if above else Path()) / name
        found.add(path)
        above.append((depth, path))
    return found
