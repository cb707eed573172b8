"""Finding the static init, and our other binaries."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from supervisor.bundle import Bundle
from supervisor.native import _programs
from supervisor.spec import _init
from supervisor.values._errors import ShimNotFound


def test_a_dynamic_init_is_refused(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An init that needs libraries is refused: the container needn't have them."""
    python = os.path.realpath(sys.executable)
    if _init.is_static(python):
        pytest.skip(f"{python} is a static program, so it can't stand in for a dynamic one")
    monkeypatch.setattr(_init, "find_binary", lambda name: python)
    with pytest.raises(ShimNotFound, match="is not a static program") as caught:
        Bundle.from_rootfs(rootfs, ["sh"], init=True)
    assert caught.value.path == python


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n" * 20, b"\x7fELF" + bytes(60)])
def test_what_is_no_program_is_not_static(tmp_path: Path, data: bytes) -> None:
    """A file that is no ELF program at all isn't taken for a static one."""
    (tmp_path / "file").write_bytes(data)
    assert not _init.is_static(str(tmp_path / "file"))


def test_binaries_are_found_in_every_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A binary is found in the package directory in which the file is executable."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    package = sys.modules["supervisor.native"]
    monkeypatch.setattr(package, "__path__", [str(first), str(second)])
    with pytest.raises(ShimNotFound, match=f"{first}/prog and at {second}/prog") as caught:
        _programs.find_binary("prog")
    assert caught.value.path == f"{first}/prog"
    (first / "prog").touch(mode=0o644)
    with pytest.raises(ShimNotFound, match=f"{first}/prog is not executable: use chmod"):
        _programs.find_binary("prog")
    (second / "prog").touch(mode=0o755)
    assert _programs.find_binary("prog") == f"{second}/prog"
