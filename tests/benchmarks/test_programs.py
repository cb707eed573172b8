"""The benchmarks run, and say what they measured: so that they don't rot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from supervisor.cgroups import Hierarchies
from tests.support.runtimes import needs_root

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = sorted(path.stem for path in BENCHMARKS.glob("[!_]*.py"))
LEAST = ("--quick", "--rounds", "1", "--containers", "12")


def cgroups(pid: int) -> list[str]:
    """Return the cgroups of a benchmark."""
    parents = Hierarchies.discover().directories("/")
    return [
        name for path in parents for name in os.listdir(path) if name.startswith(f"ts-bench-{pid}-")
    ]


@needs_root
@pytest.mark.parametrize("name", ["adopt", "imports"])
def test_a_benchmark_gives_rows_and_leaves_nothing(name: str, workdir: Path) -> None:
    """A benchmark that is run alone prints a table, writes the same as JSON, and removes all
    files."""
    file = workdir / "rows.json"
    where = ("--directory", str(workdir), "--json", str(file))
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *LEAST, *where]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as program:
        printed, complaints = program.communicate(timeout=60)
    assert program.returncode == 0, complaints
    told = json.loads(file.read_text())
    assert told["rows"] and all(row["figures"]["supervisor"]["median"] > 0 for row in told["rows"])
    assert all(row["case"] in printed for row in told["rows"])
    assert os.listdir(workdir) == ["rows.json"]
    assert cgroups(program.pid) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_benchmark_can_be_compiled(name: str) -> None:
    """Each benchmark is valid Python and has a usage line."""
    text = (BENCHMARKS / f"{name}.py").read_text()
    compile(text, name, "exec")
    assert f"Usage: python benchmarks/{name}.py" in text
