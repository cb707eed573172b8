"""Each public attribute of a public class has a line on a page; there are no other attributes.

A method for the library alone, public by accident, would be in help() and in completion, and would
become a promise.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator

import attrs
import pytest

import supervisor
import supervisor.testing
from tests.support.blocks import ROOT

CLASSES = sorted(
    {
        value
        for package in (supervisor, supervisor.testing)
        for name in package.__all__
        if inspect.isclass(value := getattr(package, name))
    },
    key=lambda cls: cls.__name__,
)
PAGES = [page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))]
PARTS = [part for page in PAGES for part in re.split(r"\n\n|\n(?=\| )", page)]
_QUOTED = re.compile(r"`([^`]+)`")
_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


def is_ours(cls: type) -> bool:
    """Whether a class is this library's: what others give their classes is theirs to document."""
    return cls.__module__.partition(".")[0] == "supervisor"


def assigned(cls: type) -> Iterator[str]:
    """Yield the attributes that the methods of a class give to their instance."""
    for member in vars(cls).values():
        method = inspect.unwrap(getattr(member, "fget", getattr(member, "__func__", member)))
        if inspect.isfunction(method) and not method.__code__.co_filename.startswith("<"):
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method)))):
                stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                if stored and ast.unparse(node.value) == "self":
                    yield node.attr


def attributes(cls: type) -> set[str]:
    """Return the public names of a class and of its instances that are this library's doing."""
    found: set[str] = set()
    for base in filter(is_ours, cls.__mro__):
        found |= vars(base).keys() | inspect.get_annotations(base).keys()
        found |= set(vars(base).get("__slots__", ())) | set(assigned(base))
        if attrs.has(base):
            found |= {field.name for field in attrs.fields(base)}
    theirs = {name for base in cls.__mro__ if not is_ours(base) for name in dir(base)}
    return {name for name in found - theirs if not name.startswith("_")}


def named(cls: type) -> set[str]:
    """Return what the pages name in paragraphs, and rows, that name the class or a base of it."""
    found: set[str] = set()
    kinds = {base.__name__ for base in cls.__mro__ if is_ours(base)}
    for part in PARTS:
        words = {word for quoted in _QUOTED.findall(part) for word in _WORD.findall(quoted)}
        if kinds & words:
            found |= words | set(_WORD.findall(part))
    return found


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_attribute_has_a_line(cls: type) -> None:
    """What a public class or its instances have, and isn't private, is on a page."""
    assert attributes(cls) - named(cls) == set()
