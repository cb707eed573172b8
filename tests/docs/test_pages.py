"""The documentation says what the code says: diagram, names, files, keys, phases."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import supervisor
import supervisor.testing
from supervisor.state import (
    ContainerLayout,
    ContainerRecord,
    ProcessLayout,
    ProcessRecord,
    Result,
    known_keys,
)
from supervisor.values._deadlines import Deadlines
from supervisor.values._lifecycle import TRANSITIONS, diagram
from supervisor.values._process_life import PROCESS_TRANSITIONS
from tests.support.blocks import PACKAGE, PAGES, ROOT, blocks

DOCS = ROOT / "docs"
OWNERS = (supervisor, supervisor.testing)
_QUOTED = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^]]*\]\(([^)#]*)(?:#([^)]*))?\)")


def section(page: str, heading: str) -> str:
    """Return what stands between a heading and the next one, of whatever level."""
    text = (DOCS / page).read_text()
    parts = re.split(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def first_column(text: str) -> list[str]:
    """Return what is quoted in the first column of the tables in a text."""
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in _QUOTED.findall(row.split("|")[1])]


def test_the_lifecycles_are_drawn_from_the_tables() -> None:
    """The diagrams in the docs are those that the transition tables give."""
    drawn = [
        block.text for block in blocks(DOCS / "architecture.md") if block.language == "mermaid"
    ]
    assert drawn == [diagram(TRANSITIONS), diagram(PROCESS_TRANSITIONS)]


@pytest.mark.parametrize("name", supervisor.__all__)
def test_each_public_name_is_documented(name: str) -> None:
    """Each name in ``__all__`` has its own docstring, and a line in the reference."""
    value = getattr(supervisor, name)
    if not isinstance(value, int) and not name.endswith("Argument"):  # PIPE, or a type of several
        assert value.__doc__, f"{name} has no docstring"
        assert value.__doc__ != object.__doc__
    assert name in first_column((DOCS / "api.md").read_text())


def test_public_names_stand_once() -> None:
    """``__all__`` names nothing twice, and nothing that isn't there."""
    assert len(set(supervisor.__all__)) == len(supervisor.__all__)


def test_the_changelog_has_public_names() -> None:
    """The names of classes in the changelog are public, and so are their attributes."""
    named = re.compile(r"(?:supervisor\.)?([A-Z][a-z]\w+)(?:\.(\w+))?(?:\(.*\))?")
    text = (ROOT / "CHANGELOG.md").read_text()
    found = [match for one in _QUOTED.findall(text) if (match := named.fullmatch(one))]
    assert len(found) > 50
    for match in found:
        name, attribute = match.groups()
        owner = next((one for one in OWNERS if hasattr(one, name)), None)
        assert owner is not None, match[0]
        assert attribute is None or hasattr(getattr(owner, name), attribute), match[0]


def methods() -> Iterator[tuple[str, object]]:
    for name in supervisor.__all__:
        value = getattr(supervisor, name)
        if inspect.isclass(value) and not issubclass(value, BaseException):
            ours = [kind for kind in value.__mro__ if kind.__module__.startswith("supervisor")]
            members = {key: member for kind in reversed(ours) for key, member in vars(kind).items()}
            for attribute, member in members.items():
                if not attribute.startswith("_") and (
                    inspect.isfunction(member) or isinstance(member, property | classmethod)
                ):
                    yield f"{name}.{attribute}", member


METHODS = dict(methods())


@pytest.mark.parametrize("name", METHODS)
def test_each_public_method_has_a_docstring(name: str) -> None:
    """Each method that users call has a docstring."""
    assert inspect.getdoc(METHODS[name]), f"{name} has no docstring"


def test_the_deadlines_are_documented() -> None:
    """The list of deadlines names all of them, with their defaults."""
    text = section("api.md", "Deadlines")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    told = {_QUOTED.findall(name)[0]: float(value) for name, value in rows}
    assert told == attrs.asdict(Deadlines())


def paths_of(layout: type[ContainerLayout | ProcessLayout]) -> set[str]:
    """Return the names of the files and directories that a layout knows by name."""
    made = layout("/x")
    values = vars(made).values()
    known = {value.path if isinstance(value, ProcessLayout) else value for value in values}
    paths = {path for path in known if path.startswith("/x/")}
    if isinstance(made, ProcessLayout):
        paths.add(made.log("<verb>"))
    return {path.rpartition("/")[2] for path in paths}


@pytest.mark.parametrize(
    ("heading", "layout"),
    [("The container directory", ContainerLayout), ("The process directory", ProcessLayout)],
)
def test_the_files_on_disk_are_documented(
    heading: str, layout: type[ContainerLayout | ProcessLayout]
) -> None:
    """The page on the state names exactly the files that the layout has."""
    assert set(first_column(section("state.md", heading))) == paths_of(layout)


@pytest.mark.parametrize(
    ("heading", "record"),
    [
        ("state.json", ContainerRecord),
        ("process.json", ProcessRecord),
        ("result.json", Result),
    ],
)
def test_the_keys_of_the_records_are_documented(
    heading: str, record: type[ContainerRecord | ProcessRecord | Result]
) -> None:
    """The page on the state names exactly the keys that have a field."""
    assert sorted(first_column(section("state.md", heading))) == sorted(known_keys(record))


SHIM_PARTS = ("shim", "files", "idmap", "layer", "log", "terminal")


def test_the_phases_of_the_report_are_documented() -> None:
    """The page on the protocol names exactly the phases that the shim can fail in."""
    source = "".join((PACKAGE / f"native/{part}.c").read_text() for part in SHIM_PARTS)
    used = re.findall(r'(?:fail\([^"();]*|open_or_fail\(|fifo\()"([a-z]+)"', source)
    assert set(first_column(section("shim-protocol.md", "The report"))) == set(used)


def test_the_options_of_the_shim_are_documented() -> None:
    """The page on the protocol names exactly the shim's options."""
    source = "".join((PACKAGE / f"native/{part}.c").read_text() for part in SHIM_PARTS)
    told = " ".join(first_column(section("shim-protocol.md", "Synopsis")))
    assert set(re.findall(r"--[a-z-]+", told)) == set(re.findall(r'option, "(--[a-z-]+)"', source))


def test_the_floors_in_the_architecture_are_those_of_the_code() -> None:
    """The map of the floors on the page is a copy of the code's."""
    printed = [block.text for block in blocks(DOCS / "architecture.md")]
    lines = (supervisor.__doc__ or "").splitlines(keepends=True)
    assert "".join(line[4:] for line in lines if line.startswith("    ")) in printed


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to another page, and to a heading, has a target."""
    for target, heading in _LINK.findall(page.read_text()):
        if target.startswith("https://"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}, which isn't there"
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, f"{page.name} links to #{heading}, which isn't there"
