"""The code blocks of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "supervisor"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\S*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@attrs.frozen
class Block:
    """A fenced block.

    Attributes:
        page: the file of the block.
        line: the line of the first fence.
        language: the first word behind the fence.
        words: the others.
        text: what is inside.
    """

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match[1], tuple(match[2].split()), match[3])


def examples() -> list[tuple[Block, str | None]]:
    """Return the Python blocks that are whole programs, each with the output that stands below.

    A block that begins with three backticks and ``python fragment`` is none.
    """
    found: list[tuple[Block, str | None]] = []
    for page in PAGES:
        every = list(blocks(page))
        for number, block in enumerate(every):
            if block.language != "python" or "fragment" in block.words:
                continue
            following = every[number + 1] if number + 1 < len(every) else None
            output = following if following is not None and following.language == "output" else None
            found.append((block, output.text if output else None))
    return found


def fragments() -> list[Block]:
    """Return the Python blocks that are parts of programs."""
    return [
        block
        for page in PAGES
        for block in blocks(page)
        if block.language == "python" and "fragment" in block.words
    ]
