"""The house stands as its floor maps say: imports go down, and there are no circles.

A map is the indented block in the docstring of a package's ``__init__``: a floor a line, the names
of its modules before the first two blanks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import supervisor

PACKAGE = Path(supervisor.__file__).parent
PACKAGES = [
    PACKAGE,
    *sorted(path.parent for path in PACKAGE.glob("*/__init__.py")),
]
_FLOOR = re.compile(r" {4}(\S+(?: \S+)*)(?: {2,}|$)")


def floor_map(package: Path) -> list[str]:
    """Return the modules of a package in the order of its maps: each may import those before it."""
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    floors = [match[1] for line in docstring.splitlines() if (match := _FLOOR.match(line))]
    names = [name.rstrip("/") for floor in floors for name in floor.split(" ")]
    return [name for name in names if not name.endswith(".c")]


def modules(package: Path) -> list[str]:
    """Return the names of the modules and packages in a package."""
    files = [path.stem for path in package.glob("*.py") if path.stem != "__init__"]
    packages = [path.parent.name for path in package.glob("*/__init__.py")]
    return sorted(files + packages)


def imports(file: Path) -> Iterator[str]:
    """Yield the full dotted names of our own modules that a file imports, wherever it does."""
    inside = ("supervisor", *file.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            above = inside[: len(inside) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            if is_ours(base):
                yield from (f"{base}.{alias.name}" for alias in node.names)


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == "supervisor"


def files_of(package: Path, module: str) -> list[Path]:
    """Return the files of a module, which may be a package."""
    single = package / f"{module}.py"
    return [single] if single.exists() else sorted((package / module).rglob("*.py"))


def sideways(package: Path, module: str) -> Iterator[tuple[Path, str]]:
    """Yield what a module imports of its own package: the file that does, and the other module."""
    own = ".".join(("supervisor", *package.relative_to(PACKAGE).parts))
    for file in files_of(package, module):
        for name in imports(file):
            rest = name.removeprefix(f"{own}.")
            other = rest.split(".")[0]
            if rest != name and other != module:
                yield file, other


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_each_module_stands_once_on_the_map_of_its_package(package: Path) -> None:
    """A map names all modules of its package, each once, and none that isn't there."""
    assert sorted(floor_map(package)) == modules(package)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_modules_import_only_downwards(package: Path) -> None:
    """A module imports only what stands before it on the map, so there are no circles either."""
    order = floor_map(package) or modules(package)
    for number, module in enumerate(order):
        below = order[:number]
        for file, other in sideways(package, module):
            assert other in below, (
                f"{file.relative_to(PACKAGE)} imports {other}, which isn't below it"
            )


def test_nobody_imports_the_front_door() -> None:
    """Nothing inside imports from the package itself: that is for users, and would be a circle."""
    for file in PACKAGE.rglob("*.py"):
        names = {name.partition(".")[2].split(".")[0] for name in imports(file)}
        unknown = names - set(modules(PACKAGE))
        assert not unknown, f"{file.relative_to(PACKAGE)} imports {unknown} from the front door"
