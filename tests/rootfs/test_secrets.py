"""The host's programs, without the host's files that aren't for every user."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from supervisor.rootfs import _secrets
from supervisor.rootfs._host_view import build_view, view_host
from supervisor.rootfs._secrets import secrets_below


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with keys beside certificates, and root's own files below /usr."""
    root = tmp_path / "host"
    for name in (
        "etc/pki/ca-trust/source",
        "etc/pki/consumer",
        "etc/pki/tls/certs",
        "etc/pki/tls/private",
        "etc/ssl/certs/mine",
        "etc/ssl/private",
        "usr/lib/program/deep",
        "usr/local/etc/deep/er/still",
        "usr/local/share",
    ):
        (root / name).mkdir(parents=True)
    for name, mode in {
        "etc/group": 0o600,
        "etc/pki/consumer/key.pem": 0o644,
        "etc/pki/tls/private/key": 0o644,
        "etc/ssl/certs/ca.pem": 0o644,
        "etc/ssl/certs/mine/key.pem": 0o640,
        "etc/ssl/openssl.cnf": 0o644,
        "etc/ssl/private/key": 0o644,
        "usr/lib/key": 0o600,
        "usr/local/etc/deep/er/still/key": 0o400,
        "usr/local/etc/open": 0o644,
        "usr/local/share/key": 0o640,
    }.items():
        (root / name).touch()
        (root / name).chmod(mode)
    (root / "usr/local/etc/deep/private").mkdir(mode=0o710)
    (root / "usr/local/link").symlink_to("/etc/shadow")
    return root


def test_of_keys_and_certificates_only_these_are_shown(host: Path, tmp_path: Path) -> None:
    """Directories of certificates and settings are bound, and no others beside them."""
    view = view_host(network=False, host_root=str(host))
    assert {one["destination"] for one in view.mounts} == {
        "/etc/pki/ca-trust",
        "/etc/pki/tls/certs",
        "/etc/ssl/certs",
        "/etc/ssl/openssl.cnf",
        "/usr",
    }
    build_view(view, str(tmp_path / "rootfs"))
    assert sorted(os.listdir(tmp_path / "rootfs/etc/ssl")) == ["certs", "openssl.cnf"]
    assert sorted(os.listdir(tmp_path / "rootfs/etc/pki")) == ["ca-trust", "tls"]


def test_what_not_everybody_can_read_is_masked(host: Path) -> None:
    """Files and directories that others can't read are covered, where they are looked for."""
    assert sorted(view_host(network=False, host_root=str(host)).masked) == [
        "/etc/ssl/certs/mine/key.pem",
        "/usr/lib/key",
        "/usr/local/etc/deep/er/still/key",
        "/usr/local/etc/deep/private",
        "/usr/local/share/key",
    ]


@pytest.mark.parametrize("remembered", [False, True])
def test_what_has_come_is_found(host: Path, remembered: bool) -> None:
    """A remembered look holds only as long as no file has come."""
    top = str(host / "usr/local")
    before = set(secrets_below(top, remembered=remembered))
    late = host / "usr/local/etc/deep/late"
    late.touch(mode=0o600)
    assert set(secrets_below(top, remembered=remembered)) == before | {str(late)}
    late.unlink()
    assert set(secrets_below(top, remembered=remembered)) == before


@pytest.mark.parametrize("name", ["usr/local/etc/open", "usr/local/etc", "etc/ssl/certs/ca.pem"])
def test_what_was_closed_is_found(host: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode that was changed since the last bundle counts: in /usr after a second at most."""
    assert f"/{name}" not in view_host(network=False, host_root=str(host)).masked
    (host / name).chmod(0o700)
    if name.startswith("usr/"):
        later = time.monotonic() + 1
        monkeypatch.setattr(time, "monotonic", lambda: later)
    assert f"/{name}" in view_host(network=False, host_root=str(host)).masked


def test_certificates_behind_a_link(host: Path) -> None:
    """Where /etc/ssl/certs is a link, the target is looked at, each time."""
    (host / "etc/ssl/certs").rename(host / "etc/pki/tls/certs/real")
    (host / "etc/ssl/certs").symlink_to("../pki/tls/certs/real")
    before = view_host(network=False, host_root=str(host)).masked
    assert "/etc/ssl/certs/mine/key.pem" in before
    (host / "etc/pki/tls/certs/real/late.pem").touch(mode=0o600)
    after = view_host(network=False, host_root=str(host)).masked
    assert set(after) - set(before) == {
        "/etc/ssl/certs/late.pem",
        "/etc/pki/tls/certs/real/late.pem",
    }


def test_the_look_is_bounded(
    host: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only a bounded number of directories is looked at, the topmost ones; the others are
    covered."""
    monkeypatch.setattr(_secrets, "MAX_DIRECTORIES", 3)
    assert list(secrets_below(str(host / "usr/local"))) == [
        str(host / "usr/local/share/key"),
        str(host / "usr/local/etc/deep"),
    ]
    assert "more than 3 directories: 1 of them" in caplog.text
