"""Run all benchmarks, one after the other, each in its own process; then print one table.

Usage: scripts/bench [--quick] [NAME]... [--json FILE] [--plot FILE.png] [--markdown]
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _figures import Row, markdown_table, text_table
from _machine import describe, say

HERE = Path(__file__).parent
ALL = (
    *("lifecycle", "burst", "exec", "pool", "overlay", "notice", "memory", "idle", "adopt"),
    *("stream", "terminal", "scale", "imports"),
)
"""In the order of the table."""


def main() -> int:
    """Run the requested benchmarks; return how many failed."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    begin = time.monotonic()
    answer: dict[str, Any] = {"machine": describe(), "seconds": {}, "absent": {}, "rows": []}
    failed = []
    for name in options.names or ALL:
        one = run(name, quick=options.quick)
        if one is None:
            failed.append(name)
            continue
        for key in ("seconds", "absent"):
            answer[key] |= one[key]
        answer["rows"] += one["rows"]
    answer["failed"] = failed
    show(answer, markdown=options.markdown, seconds=time.monotonic() - begin)
    if options.json:
        Path(options.json).write_text(json.dumps(answer, indent=1) + "\n")
    if options.plot:
        from _plot import plot  # noqa: PLC0415  # matplotlib is an extra

        plot(answer, options.plot)
    return len(failed)


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(ALL)}")
    parser.add_argument("--quick", action="store_true", help="finish in less than two minutes")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    parser.add_argument("--plot", metavar="FILE", help="draw the figures to this file (PNG)")
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in ALL]:
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    return options


def run(name: str, *, quick: bool) -> dict[str, Any] | None:
    """Run one benchmark; return the JSON that the benchmark has written, or None on failure."""
    program = HERE / f"{name}.py"
    if not program.exists():
        say(f"{name}: there is no {program.name}")
        return None
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, str(program), "--json", file.name]
        say(f"== {name}")
        done = subprocess.Popen([*command, *(["--quick"] if quick else [])], stdout=sys.stderr)
        try:
            done.wait()
        except KeyboardInterrupt:
            done.terminate()  # the signal may have been sent to us alone
            done.wait()
            raise
        if done.returncode != 0:
            say(f"{name}: failed with status {done.returncode}")
            return None
        return dict(json.load(file))


def show(answer: dict[str, Any], *, markdown: bool, seconds: float) -> None:
    """Print the table, the machine, and what is missing."""
    rows = [Row.from_json(row) for row in answer["rows"]]
    print((markdown_table if markdown else text_table)(rows))
    print()
    for line in remarks(answer, rows, seconds):
        print(f"- {line}" if markdown else line)


def remarks(answer: dict[str, Any], rows: list[Row], seconds: float) -> Iterator[str]:
    """Return the remarks below the table."""
    yield "machine: " + "; ".join(
        value if name in ("processors", "kernel", "python") else f"{name} {value}"
        for name, value in answer["machine"].items()
    )
    for name, why in answer["absent"].items():
        yield f"absent: {name} ({why})"
    for name in answer["failed"]:
        yield f"failed: {name}"
    verdicts = [row.verdict for row in rows]
    yield (
        f"{verdicts.count('met')} targets met, {verdicts.count('missed')} missed; "
        f"the run took {seconds:.0f} seconds"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
