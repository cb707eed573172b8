"""The host's programs, without what of the host isn't for everybody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.oci import _secrets
from supervisor.oci._host import build_view, view_host
from supervisor.oci._secrets import secrets_below


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
    """Directories of certificates and settings are bound, and nothing else beside them."""
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


def test_what_has_come_is_found(host: Path) -> None:
    """What was seen once is remembered only as long as nothing has come there."""
    top = str(host / "usr/local")
    before = set(secrets_below(top))
    late = host / "usr/local/etc/deep/late"
    late.touch(mode=0o600)
    assert set(secrets_below(top)) == before | {str(late)}
    late.unlink()
    assert set(secrets_below(top)) == before


def test_the_look_is_bounded(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than so many directories are looked at, the topmost ones."""
    monkeypatch.setattr(_secrets, "MAX_DIRECTORIES", 3)
    assert list(secrets_below(str(host / "usr/local"))) == [str(host / "usr/local/share/key")]
