"""The memory of an idle container: of the shim, and of the supervising program.

Usage: python benchmarks/memory.py [--quick] [--containers N] [--runtime NAME] [--json FILE]

The shim's PSS is measured with 30 shims. The PSS divides a shared page among the processes that
share the page, so with many shims the PSS is the cost of one more. The benchmark measures the
installed shim, and a shim compiled with the other C library, if available. Python's growth is the
private memory with all containers (of a stand-in for a runtime), minus the private memory with a
tenth of the containers. Targets: 50 kB with musl, 80 kB with glibc; 30 kB for Python.
Source: proc_pid_smaps(5).
"""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

from _figures import OURS, Row, Summary, Target
from _stage import Stage, compile_static, depopulate, perform, populate

import supervisor
from supervisor import Runtime
from supervisor.native import find_binary
from supervisor.state import RootLayout, read_shim

SHIMS = 30
MUSL_KB, GLIBC_KB, PYTHON_KB = 50, 80, 30
_SOURCES = Path(supervisor.__file__).parent / "shim"
_OTHERS = ("keeper.c", "tether.c", "init.c", "gate.c")  # programs of their own


def memory(pid: int | str) -> dict[str, int]:
    """Return the figures of one process, in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    rows = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) for row in rows}


def compiled(stage: Stage, but: str) -> dict[str, str]:
    """Return shims compiled with each C library except the one that ``but`` names."""
    flags = (_SOURCES / "compile_flags.txt").read_text().split()
    small = [*flags, "-Os", "-fno-asynchronous-unwind-tables", "-Wl,-z,noseparate-code"]
    sources = [path for path in sorted(_SOURCES.glob("*.c")) if path.name not in _OTHERS]
    made = {}
    for library, compiler in (("musl", "musl-gcc"), ("glibc", "cc")):
        if library in but:
            continue
        if shutil.which(compiler) is None:
            stage.absent[library] = f"no {compiler}: apt-get install musl-tools gcc"
            continue
        path = stage.directory / f"supervisor-shim-{library}"
        compile_static(path, *sources, flags=small, compiler=compiler)
        made[library] = str(path)
    return made


async def shim_memory(stage: Stage, runtime: Runtime, shim: str, name: str) -> Summary:
    """Return the PSS of idle shims."""
    async with stage.open(runtime, f"root-{name}", shim=shim) as sup:
        await populate(sup, stage.bundle("idle"), range(SHIMS))
        layouts = RootLayout(sup.root).containers()
        known = [read_shim(layout.init.shim) for layout in layouts]
        figures = [memory(identity[0])["Pss"] for identity in known if identity is not None]
        await depopulate(sup)
    return Summary.of(figures)


async def python_growth(stage: Stage, count: int) -> Summary:
    """Return how many kB the supervising program grows with each container."""
    few = count // 10
    async with stage.open(stage.standin, "root-growth") as sup:
        await populate(sup, stage.bundle("idle"), range(few))
        before = private()
        await populate(sup, stage.bundle("idle"), range(few, count))
        growth = (private() - before) / (count - few)
        await depopulate(sup)
    return Summary.of([growth])


def private() -> int:
    """Return this program's own memory, in kB."""
    gc.collect()
    figures = memory("self")
    return figures["Private_Dirty"] + figures["Private_Clean"]


async def measure(stage: Stage) -> list[Row]:
    """Measure the shims, then Python."""
    name = next(iter(stage.runtimes), None)
    runtime = stage.standin if name is None else Runtime.find(name)
    installed = find_binary("supervisor-shim")
    linked = Path(installed).with_name("linked.txt").read_text().strip()
    shims = {f"installed, {linked}": installed, **compiled(stage, linked)}
    rows = []
    for case, shim in shims.items():
        limit = MUSL_KB if "musl" in case else GLIBC_KB
        rows.append(
            Row(
                benchmark=stage.name,
                case=f"{SHIMS} idle shims ({case}; {os.path.getsize(shim) >> 10} kB on disk)",
                unit="kB",
                figures={OURS: await shim_memory(stage, runtime, shim, case.split(",")[0])},
                target=Target(f"≤ {limit} kB", limit),
            )
        )
    count = stage.containers(1000, 300)
    rows.append(
        Row(
            benchmark=stage.name,
            case=f"Python, for each of {count:,} containers",
            unit="kB",
            figures={OURS: await python_growth(stage, count)},
            target=Target(f"≤ {PYTHON_KB} kB", PYTHON_KB),
        )
    )
    return rows


if __name__ == "__main__":
    perform(measure)
