"""The tests that the documentation names exist, and lie where the house says."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests
from tests.support.blocks import PACKAGE, PAGES, ROOT

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("test_*.py"))
FOLDERS = sorted(path.parent for path in TESTS.glob("*/__init__.py"))
MOST_LINES = 500
_NAMED = re.compile(r"`(?:tests/)?((?:[a-z_0-9]+/)*test_[a-z_0-9]+\.py)?(?:::(test_\w+))?`")
_QUOTED = re.compile(r"`([^`]+)`")
_A_PLACE = re.compile(r"_?[a-z_0-9]+(?:/_?[a-z_0-9]+)*(?:\.[ch]|\.json)?")


def named(page: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the files and tests that a page names; ``::test`` alone is of the file named before."""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        file = None
        for match in _NAMED.finditer(line):
            if match[1] or match[2]:
                file = match[1] or file
                assert file is not None, f"{page.name}:{number}: {match[0]} of which file?"
                yield file, match[2]


@functools.cache
def functions(file: Path) -> frozenset[str]:
    """Return the names of what a file defines."""
    body = ast.parse(file.read_text()).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in body if isinstance(node, kinds))


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading of docs/reliability.md, without the table's
    head."""
    text = (ROOT / "docs/reliability.md").read_text()
    part = re.split(rf"^#+ {heading}$", text, flags=re.MULTILINE)[1]
    part = re.split(r"^#+ ", part, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_test_that_a_page_names_exists(page: Path) -> None:
    """Each test that a page names exists: without its test, a promise is only a sentence."""
    for file, test in named(page):
        assert (TESTS / file).exists(), f"{page.name} names {file}"
        assert test is None or test in functions(TESTS / file), f"{page.name}: {file}::{test}"


@pytest.mark.parametrize("heading", ["Row by row", "Guards"])
def test_each_row_names_its_test(heading: str) -> None:
    """The last column of a promise or a guard names the test that proves the row."""
    rows = table(heading)
    assert len(rows) > 30
    for row in rows:
        assert any(match[1] for match in _NAMED.finditer(row[-1])), row


@pytest.mark.parametrize("heading", ["Guards", "Kept, and seen by no test"])
def test_each_row_stands_for_code_that_is_there(heading: str) -> None:
    """The first column names modules and packages; in the last table a function follows the
    module."""
    for row in table(heading):
        place: Path | None = None
        for name in _QUOTED.findall(row[0]):
            found = find(name)
            if found is None and heading != "Guards":
                assert place is not None and re.search(rf"\b{name}\b", place.read_text()), row
            else:
                assert found is not None, f"{name} is nowhere: {row[0]} | {row[1]}"
                place = found


def find(name: str) -> Path | None:
    """Return the file or the folder of the library that a row's name stands for."""
    assert _A_PLACE.fullmatch(name), f"{name} is no module"
    candidates = (f"{name}.py", name, f"native/{name}")
    return next((PACKAGE / one for one in candidates if (PACKAGE / one).exists()), None)


def test_the_folders_are_those_of_the_house() -> None:
    """A folder of tests is a package's, or has a line in ``tests/__init__.py`` with its content."""
    assert tests.__doc__ is not None
    others = dict(re.findall(r"^(\w+) {2,}(\S.*)$", tests.__doc__, re.MULTILINE))
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert not packages & set(others)
    assert {folder.name for folder in FOLDERS} == packages | set(others)


def test_no_test_file_imports_another() -> None:
    """Code that tests of several files use is in a module of helpers."""
    for file in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                words = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                words = [word for alias in node.names for word in alias.name.split(".")]
            else:
                continue
            if words[0] == "tests" or getattr(node, "level", 0):
                modules = [word for word in words if word.startswith("test_")]
                assert not modules, f"{file.relative_to(ROOT)} imports {modules}"


def test_helpers_of_a_folder_are_used_there() -> None:
    """Code that tests of several folders use is in ``tests/support``."""
    for file in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                folder = (node.module or "").split(".")[1]
                allowed = {"support", "conftest", file.relative_to(TESTS).parts[0]}
                assert folder in allowed, f"{file.relative_to(ROOT)} imports {node.module}"


def test_files_are_named_after_what_they_hold() -> None:
    """Files are not named after how their tests were found, and each can be read in one sitting."""
    for file in FILES:
        assert "guard" not in file.name, f"{file.relative_to(ROOT)}: name the module or the promise"
        lines = file.read_text().count("\n")
        assert lines <= MOST_LINES, f"{file.relative_to(ROOT)} has {lines} lines"
