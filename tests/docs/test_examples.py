"""The examples in the documentation work as printed.

The examples use the default cgroup parent, which others may be using too: the parent stays, empty.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor import Runtime, RuntimeNotFound
from supervisor.directories._temporary import PLACE
from tests.support.blocks import ROOT, Block, examples, fragments
from tests.support.leaks import STRANGERS, descendants

SECONDS = 60
SAID = {
    "compressor.py": r"^25 examples in ",
    # Between beginning and teardown, the steps: five at most.
    "durable.py": r"= Durability\(\)\n(state\.(write|crash|read).*\n){1,5}state\.teardown",
    "sandbox.py": r"(?s)(?=.*good +exited 0: 42\n)(?=.*endless +killed by SIGKILL \(out of time\))"
    r"(?=.*crashing +killed by SIGABRT)",
}
"""What the output of an example must contain."""


@pytest.fixture(autouse=True)
def a_runtime() -> None:
    """Skip where no runtime can run: the examples take whichever can."""
    try:
        Runtime.find()
    except RuntimeNotFound as error:
        pytest.skip(str(error))


def run(program: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as a user would, with the library that is tested."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(directory),
        PLACE: str(directory),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis"),
    }
    before = descendants(os.getpid())
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    # A supervisor that the demo has killed leaves ended shims to init; here, to us.
    STRANGERS.update(descendants(os.getpid()).keys() - before.keys())
    return done


def test_there_are_examples() -> None:
    """The README has a program, and the search for blocks finds that program."""
    assert any(block.page.name == "README.md" for block, _ in examples())


@pytest.mark.parametrize(("block", "output"), examples(), ids=str)
def test_a_program_in_the_documentation_runs_as_printed(
    block: Block, output: str | None, workdir: Path
) -> None:
    """A whole program runs without a warning, prints the output below, and leaves nothing."""
    program = workdir / "example.py"
    program.write_text(block.text)
    done = run(program, workdir)
    assert (done.returncode, done.stderr) == (0, "")
    if output is not None:
        assert done.stdout == output
    assert os.listdir(workdir) == ["example.py"]


@pytest.mark.parametrize("block", fragments(), ids=str)
def test_a_fragment_in_the_documentation_is_python(block: Block) -> None:
    """A part of a program can at least be compiled, top-level ``await`` included."""
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("program", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_an_example_runs(program: Path, workdir: Path) -> None:
    """Every program in ``examples`` ends well, in at most 30 lines, and leaves nothing behind."""
    done = run(program, workdir)
    assert (done.returncode, done.stderr) == (0, "")
    assert 0 < len(done.stdout.splitlines()) <= 30
    assert set(os.listdir(workdir)) <= {".hypothesis"}, "but for what Hypothesis remembers"
    assert re.search(SAID.get(program.name, ""), done.stdout), done.stdout
