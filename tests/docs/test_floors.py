"""The house stands as its map says: packages have walls and stand on floors; nothing is a circle.

The floors are the indented block in the docstring of ``supervisor/__init__.py``. The tables of the
architecture page are made from the modules' docstrings, by ``scripts/rooms``.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib.machinery
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.blocks import PACKAGE, ROOT

PACKAGES = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
FILES = sorted(PACKAGE.rglob("*.py"))

MOST_LINES = {"function": 40, "class": 250, "module": 400}
"""A function counts without the docstring; a class and a module count with docstrings."""

STILL_LARGER = {
    "testing/runtimes/_host_program.py",  # one file: run by path, without an import of ours
}
"""The files in which something is larger. Nothing is added to this list."""

_FLOOR = re.compile(r" {4}(\S+(?: \S+)*)(?: {2,}|$)")


def floor_map() -> list[str]:
    """Return the packages and modules at the top, in the order of the floors, the lowest first."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text())) or ""
    floors = [match[1] for line in docstring.splitlines() if (match := _FLOOR.match(line))]
    return [name for floor in floors for name in floor.split(" ")]


def modules(package: Path) -> list[str]:
    """Return the names of the modules and packages in a package."""
    files = [path.stem for path in package.glob("*.py") if path.stem != "__init__"]
    packages = [path.parent.name for path in package.glob("*/__init__.py")]
    return sorted(files + packages)


def dotted(package: Path) -> str:
    """Return the full name of a package."""
    return ".".join(("supervisor", *package.relative_to(PACKAGE).parts))


@functools.cache
def imports(file: Path) -> list[tuple[str, str]]:
    """Return the imports of ours in a file, at any depth: the module or package, and the name."""
    return list(_imports(file))


def _imports(file: Path) -> Iterator[tuple[str, str]]:
    inside = dotted(file.parent).split(".")
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            above = inside[: len(inside) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            if is_ours(base):
                yield from ((base, alias.name) for alias in node.names)


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == "supervisor"


def faces() -> dict[str, list[str]]:
    """Return the packages that have a face, each with the face's names."""
    found = {}
    for package in PACKAGES[1:]:
        stub = package / "__init__.pyi"
        face = stub if stub.exists() else package / "__init__.py"
        for node in ast.parse(face.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found[dotted(package)] = list(ast.literal_eval(node.value))
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=dotted)
def test_a_package_is_small_enough_to_look_through(package: Path) -> None:
    """At the top stand eight modules at most, beside the packages; in a package sixteen."""
    files = [name for name in modules(package) if (package / f"{name}.py").exists()]
    assert len(files) <= (8 if package == PACKAGE else 16)


def sizes(file: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the kind, name and number of lines of a module and of all classes and functions
    inside."""
    text = file.read_text()
    yield "module", file.stem, len(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            yield "class", node.name, (node.end_lineno or 0) - node.lineno + 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node, clean=False) is not None
            told = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            yield "function", node.name, (node.end_lineno or 0) - node.lineno + 1 - told


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_is_too_large_to_be_read_at_once(file: Path) -> None:
    """A function has 40 lines at most, a class 250 and a module 400."""
    large = [found for found in sizes(file) if found[2] > MOST_LINES[found[0]]]
    assert large == [] or str(file.relative_to(PACKAGE)) in STILL_LARGER


def test_each_package_stands_once_on_the_map() -> None:
    """The map names all modules and packages at the top, each once, and none that isn't there."""
    assert sorted(floor_map()) == modules(PACKAGE)


def test_imports_go_down() -> None:
    """A module at the top imports only what stands before the module on the map."""
    order = ["_lazy", *(name for name in floor_map() if name != "_lazy")]
    for file in FILES:
        own = file.relative_to(PACKAGE).with_suffix("").parts[0]
        if own == "__init__":
            continue
        for base, name in imports(file):
            other = [*base.split("."), name][1]
            assert other == own or other in order[: order.index(own)], (
                f"{file.relative_to(PACKAGE)} imports {other}, which isn't below {own}"
            )


def test_walls() -> None:
    """Another package's names are imported from its face, where they are listed, and only from
    there.

    A package inside another one may import the modules of that.
    """
    faced = faces()
    for file in FILES:
        own = dotted(file.parent)
        for base, name in imports(file):
            inside = own == base or own.startswith(f"{base}.") or base.startswith(f"{own}._")
            parent = base.rpartition(".")[0]
            if inside or (own.startswith(f"{parent}.") and base not in faced):
                continue
            assert name in faced[base], f"{file.relative_to(PACKAGE)} imports {name} from {base}"


@pytest.mark.parametrize("package", PACKAGES, ids=dotted)
def test_no_circles(package: Path) -> None:
    """The modules of a package can be put in an order in which each imports only earlier ones."""
    own = dotted(package)
    graph: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        module = file.relative_to(package).with_suffix("").parts[0]
        if module != "__init__":
            for base, name in imports(file):
                rest = f"{base}.{name}".removeprefix(f"{own}.").split(".")
                if f"{base}.{name}".startswith(f"{own}.") and rest[0] in modules(package):
                    graph.setdefault(module, set()).update({rest[0]} - {module})
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "name", sorted(faces().keys() - {"supervisor.testing", "supervisor.testing.strategies"})
)
def test_a_face_has_no_more_than_is_used(name: str) -> None:
    """Each name in a package's face is imported by another package, or is public.

    Tests and benchmarks that look inside import from the defining module.
    """
    stubs = [path.with_suffix(".pyi") for path in FILES if path.with_suffix(".pyi").exists()]
    used = {
        imported
        for file in [*FILES, *stubs]
        if not dotted_file(file).startswith(f"{name}.")
        for base, imported in imports(file)
        if base == name
    }
    assert sorted(set(faces()[name]) - used) == []


def dotted_file(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def rooms() -> ModuleType:
    """Return ``scripts/rooms`` as a module."""
    loader = importlib.machinery.SourceFileLoader("rooms", str(ROOT / "scripts/rooms"))
    spec = importlib.util.spec_from_loader("rooms", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_page_has_the_modules_own_words() -> None:
    """The tables of the architecture page are those that ``scripts/rooms`` makes."""
    page = (ROOT / "docs/architecture.md").read_text()
    assert rooms().with_tables(page) == page, "run: scripts/rooms"
