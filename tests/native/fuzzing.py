"""Fuzzers in C, built with the sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.programs import SANITIZE
from tests.native.shim_player import compile_c, sources

HERE = Path(__file__).parent


def fuzz(tmp_path: Path, name: str, parts: list[str], *words: str) -> str:
    """Compile a fuzzer with the sanitizers and run it; return the fuzzer's output."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("gcc or clang is needed (apt-get install gcc libc6-dev)")
    program = tmp_path / name
    files = [HERE / f"{name}.c", *(sources() / f"{part}.c" for part in parts)]
    try:
        compile_c(compiler, program, *files, *SANITIZE)
    except AssertionError as error:
        if "cannot find" not in str(error):
            raise
        pytest.skip(f"{compiler} has no sanitizers")
    # LeakSanitizer stops the program with ptrace, which isn't allowed everywhere.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [program, *words], capture_output=True, env=environment, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()
