"""The public names: loaded when they are used, and all of them there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import supervisor


def test_an_import_loads_nothing_yet() -> None:
    """A program that only imports the package, such as a plugin of pytest, doesn't wait for
    Trio."""
    code = "import sys, supervisor; print('trio' in sys.modules, supervisor.State.RUNNING.value)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "running"]


def test_names_are_listed() -> None:
    """``dir()`` and the stars of imports know all names, loaded or not."""
    assert set(supervisor.__all__) <= set(dir(supervisor))
    everything: dict[str, object] = {}
    exec("from supervisor import *", everything)
    assert set(supervisor.__all__) <= everything.keys()


def test_no_file_is_read_in_the_encoding_of_the_locale() -> None:
    """The package reads no file in the locale's encoding: once ``python -X warn_default_encoding -W
    error`` couldn't even import it."""
    code = (
        "import importlib, pkgutil, supervisor, supervisor.testing\n"
        "[getattr(package, name) for package in (supervisor, supervisor.testing)"
        " for name in package.__all__]\n"
        "for module in pkgutil.walk_packages(supervisor.__path__, 'supervisor.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(supervisor.State.RUNNING.value)"
    )
    flags = ["-X", "warn_default_encoding", "-W", "error"]
    told = subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["running"]


def test_nor_is_one_in_the_code() -> None:
    """Code that doesn't run at an import names its encodings too."""
    package = Path(supervisor.__file__).parent
    found = [
        f"{file.relative_to(package)}:{call.lineno}"
        for file in package.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and _is_text(call)
    ]
    assert found == []


def _is_text(call: ast.Call) -> bool:
    """Whether a call opens a file as text without naming the encoding."""
    named = {keyword.arg for keyword in call.keywords}
    if isinstance(call.func, ast.Attribute):
        return call.func.attr in ("read_text", "write_text") and "encoding" not in named
    if not isinstance(call.func, ast.Name) or call.func.id != "open":
        return False
    modes = [one.value for one in call.args[1:2] if isinstance(one, ast.Constant)]
    return "encoding" not in named and not any("b" in str(mode) for mode in modes)
