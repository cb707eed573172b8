"""The prose is plain: few pronouns that need a look back, and lines that fit a screen.

Prose is what people read: docstrings, comments, messages of four words or more, and the pages.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.blocks import PACKAGE, PAGES, ROOT

MOST_IT = 25
MOST_WHO = 1
MOST_COLUMNS = 100
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_IT = re.compile(r"\b(?:it|its|itself|it's|it'll)\b", re.IGNORECASE)
_WHO = re.compile(r"\b(?:whoever|whomever|somebody|nobody|anybody)(?:'s)?\b", re.IGNORECASE)
_CODE = re.compile(r"``[^`]*``|`[^`]*`")
_C = re.compile(r'/\*(.*?)\*/|//([^\n]*)|"((?:[^"\\\n]|\\.)*)"', re.DOTALL)
BESIDE = ("README", "CONTRIBUTING", "CHANGELOG")
_FEWEST_WORDS = 200  # a part that has fewer is counted with nothing: one word would decide


@functools.cache
def parts() -> dict[str, list[Path]]:
    """Return the parts that are counted one by one: packages, pages, folders of tests.

    This file quotes the words that are counted, and isn't counted.
    """
    found: dict[str, list[Path]] = {}
    for top in (PACKAGE, ROOT / "tests", ROOT / "benchmarks"):
        for file in sorted([*top.rglob("*.py"), *top.rglob("*.[ch]")]):
            if file == Path(__file__):
                continue
            inside = file.relative_to(ROOT).parts
            found.setdefault("/".join(inside[: min(2, len(inside) - 1)]), []).append(file)
    for page in pages():
        found[str(page.relative_to(ROOT))] = [page]
    return found


def pages() -> list[Path]:
    """Return the pages, with those beside the docs."""
    return sorted({*PAGES, *(ROOT / f"{name}.md" for name in BESIDE)})


def prose(file: Path) -> Iterator[str]:
    """Yield the pieces of prose in a file."""
    kinds = {".py": _python, ".md": _markdown}
    yield from kinds.get(file.suffix, _c)(file.read_text())


def _python(text: str) -> Iterator[str]:
    nodes = list(ast.walk(ast.parse(text)))
    docstrings = {
        id(node.value)
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inner = {id(one) for node in nodes if isinstance(node, ast.JoinedStr) for one in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            pieces = [one.value for one in node.values if isinstance(one, ast.Constant)]
            message = "".join(map(str, pieces))
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner
        ):
            message = node.value
        else:
            continue
        if id(node) in docstrings or len(_WORD.findall(message)) >= 4:
            yield message
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def _c(text: str) -> Iterator[str]:
    for match in _C.finditer(text):
        message = match[3]
        if message is None:
            yield match[1] or match[2]
        elif len(_WORD.findall(message)) >= 4:
            yield message


def _markdown(text: str) -> Iterator[str]:
    yield from (line for _, line in _outside_code(text))


def _outside_code(text: str) -> Iterator[tuple[int, str]]:
    code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code:
            yield number, line


def per_thousand(files: list[Path], *patterns: re.Pattern[str]) -> list[float]:
    """Return how many of 1,000 words of prose in some files match each pattern."""
    pieces = [_CODE.sub("", piece) for file in files for piece in prose(file)]
    words = max(sum(len(_WORD.findall(piece)) for piece in pieces), _FEWEST_WORDS)
    return [1000 * sum(len(one.findall(piece)) for piece in pieces) / words for one in patterns]


@pytest.mark.parametrize("part", sorted(parts()))
def test_nouns_and_not_pronouns(part: str) -> None:
    """A sentence names what it speaks of. Trio's docstrings have 13 *it* and *its* per 1,000 words.

    `docs/architecture.md` has a glossary of the words that are used instead.
    """
    it, who = per_thousand(parts()[part], _IT, _WHO)
    assert it < MOST_IT
    assert who < MOST_WHO


def test_what_is_counted(tmp_path: Path) -> None:
    """Docstrings, comments and messages count; names, code and short texts don't."""
    file = tmp_path / "a.py"
    file.write_text(
        '"""It is. `it`"""\nit = "its"  # it\nraise E(f"{x} has lost its {y} again, it")\n'
    )
    assert list(prose(file)) == ["It is. `it`", " has lost its  again, it", "# it"]
    assert per_thousand([file], _IT) == [1000 * 4 / _FEWEST_WORDS]
    page = tmp_path / "a.md"
    page.write_text("Nobody\n```\nit\n```\n")
    assert list(prose(page)) == ["Nobody"]
    source = tmp_path / "a.c"
    source.write_text('int it; // it\nputs("has lost its key again");\n')
    assert list(prose(source)) == [" it", "has lost its key again"]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_lines_fit_a_screen(page: Path) -> None:
    """A line of prose has a hundred columns at most; rows of tables and code can't be wrapped."""
    long = [
        number
        for number, line in _outside_code(page.read_text())
        if len(line) > MOST_COLUMNS and not line.startswith("|") and " " in line.strip()
    ]
    assert long == []
