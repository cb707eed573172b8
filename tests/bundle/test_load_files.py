"""Loading a bundle: files that are no JSON or missing."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from supervisor.bundle import Bundle, _load
from supervisor.values import BundleInvalid, InvalidValue, TooManyFiles
from tests.support.bundle_configs import full, minimal, replaced
from tests.support.bundle_making import load_error, write


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is not JSON: line 1, column 1"),
        (b'{\n  "a": }', "is not JSON: line 2, column 8"),
        (b'{"a": 1}\n\xff', "is not UTF-8: line 2, byte 9"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b"[" * 100_000, "is nested too deep"),
        (
            b'{"x": ' + b"[" * 200 + b"]" * 200 + b"}",
            "is nested deeper than 100 levels",
        ),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[]", "must hold a JSON object, not an array"),
        (b'"text"', "must hold a JSON object, not text"),
        (b"null", "must hold a JSON object, not null"),
    ],
)
def test_what_is_no_json_is_said_with_its_line(bundle: Path, text: bytes, said: str) -> None:
    """A file that isn't a JSON object is refused with the line and column of the fault."""
    (bundle / "config.json").write_bytes(text)
    with pytest.raises(BundleInvalid) as caught:
        Bundle.load(bundle)
    assert said in str(caught.value)
    assert caught.value.path == str(bundle / "config.json")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """A bundle that is missing is named, not the file that would be inside."""
    with pytest.raises(BundleInvalid, match="there is no such directory") as caught:
        Bundle.load(tmp_path / "nowhere")
    assert caught.value.path == str(tmp_path / "nowhere")


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    """A directory without config.json is no bundle, and the error says how to make one."""
    with pytest.raises(BundleInvalid, match="runc spec") as caught:
        Bundle.load(tmp_path)
    assert caught.value.path == str(tmp_path / "config.json")


def test_a_file_in_place_of_the_directory(bundle: Path) -> None:
    """A caller that gives config.json as the bundle gets an error that asks for the directory."""
    write(bundle, minimal())
    with pytest.raises(BundleInvalid, match="give the directory"):
        Bundle.load(bundle / "config.json")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_config_that_is_no_file(bundle: Path, make: Any) -> None:
    """A directory or fifo in place of config.json is refused at once, not waited for."""
    make(bundle / "config.json")
    with pytest.raises(BundleInvalid, match=r"regular file|directory"):
        Bundle.load(bundle)


def test_an_unreadable_config(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config.json that may not be read is refused with the system's reason."""
    write(bundle, minimal())

    def refuse(path: str) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(_load, "read_bytes", refuse)
    with pytest.raises(BundleInvalid, match="can't be read: Permission denied"):
        Bundle.load(bundle)


def test_too_many_open_files_is_not_the_bundles_fault(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out of descriptors is reported as such."""

    def refuse(path: str) -> bytes:
        raise TooManyFiles("too many open files")

    monkeypatch.setattr(_load, "read_bytes", refuse)
    with pytest.raises(TooManyFiles):
        Bundle.load(bundle)


def test_a_missing_root_filesystem(bundle: Path) -> None:
    """A missing root filesystem is named with the whole path."""
    error = load_error(bundle, replaced(minimal(), ("root", "path"), "other"))
    assert error is not None
    assert error.where == "root.path"
    assert f"there is no directory {bundle / 'other'}" in str(error)


def test_a_root_filesystem_that_is_a_file(bundle: Path) -> None:
    """A file in place of the root filesystem is refused."""
    (bundle / "file").touch()
    error = load_error(bundle, replaced(minimal(), ("root", "path"), "file"))
    assert error is not None
    assert "is not a directory" in str(error)
    below = load_error(bundle, replaced(minimal(), ("root", "path"), "file/below"))
    assert below is not None
    assert "can't be reached" in str(below)


def test_an_absolute_root_filesystem(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The root filesystem may stand anywhere."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    config = replaced(minimal(), ("root", "path"), str(elsewhere))
    assert load_error(bundle, config) is None


def test_a_joined_user_namespace_is_not_asked_yet(bundle: Path) -> None:
    """A bundle that joins a user namespace loads before that namespace is there."""
    config = minimal()
    config["linux"]["namespaces"] = [{"type": "user", "path": "/run/not-there-yet"}]
    assert load_error(bundle, config) is None


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", b"bytes", 5, None])
def test_a_path_that_is_none(path: Any) -> None:
    """A value that can't be a path is refused as an argument."""
    with pytest.raises(InvalidValue, match=r"^path "):
        Bundle.load(path)


def test_loading_changes_nothing(bundle: Path) -> None:
    """Neither loading nor closing touches a bundle of the user's."""
    write(bundle, full())
    before = stat_of(bundle)
    with Bundle.load(bundle):
        pass
    assert stat_of(bundle) == before


def stat_of(bundle: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (stat.S_IMODE(path.lstat().st_mode), path.lstat().st_mtime_ns)
        for path in (bundle, *bundle.rglob("*"))
    }
