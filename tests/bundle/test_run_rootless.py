"""Bundles of ordinary users, run by the real runtimes."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.bundle import Bundle, _bundle
from supervisor.spec import Mount
from supervisor.spec._init import init_path
from tests.support.bundle_running import SECONDS, Runner, open_directory
from tests.support.users import NOBODYS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")


def become(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> None:
    """Make bundles as this user would; the user may not be allowed into our sources' directory."""
    init = runner.directory / "supervisor-init"
    shutil.copy(init_path(), init)
    monkeypatch.setattr(_bundle, "init_path", lambda: str(init))
    monkeypatch.setattr(os, "geteuid", lambda: runner.uid)
    monkeypatch.setattr(os, "getegid", lambda: runner.gid)


@pytest.fixture
def nobodys(runtime: str) -> Iterator[Runner]:
    """Runs as a user without a name, who has no subordinate ids."""
    with open_directory() as directory:
        os.chown(directory, NOBODYS, NOBODYS)
        yield Runner(runtime, directory, NOBODYS, NOBODYS)


@pytest.fixture
def somebodys(runtime: str, somebody: pwd.struct_passwd) -> Iterator[Runner]:
    """Runs as a user with subordinate ids."""
    with open_directory() as directory:
        os.chown(directory, somebody.pw_uid, somebody.pw_gid)
        yield Runner(runtime, directory, somebody.pw_uid, somebody.pw_gid)


@pytest.mark.parametrize("network", ["none", "host"])
@pytest.mark.parametrize("init", [False, True])
def test_root_inside_is_the_user_outside(
    nobodys: Runner,
    busybox: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: str,
    init: bool,
) -> None:
    """A bundle runs without any privilege: root inside is the user, and has no other id."""
    become(monkeypatch, nobodys)
    script = "id -u; cat /proc/self/uid_map; touch /tmp/x; cat /proc/1/comm; touch /x"
    bundle = Bundle.from_rootfs(busybox, ["sh", "-c", script], network=network, init=init)
    monkeypatch.undo()
    done = nobodys.run(bundle)
    assert done.stdout.split() == ["0", "0", str(NOBODYS), "1", "init" if init else "sh"]
    assert "/x: Read-only file system" in done.stderr


def test_the_hosts_programs_run_for_anybody(
    nobodys: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's programs run without any privilege, too, and can write only what is the user's."""
    given = nobodys.directory / "given"
    given.mkdir()
    os.chown(given, NOBODYS, NOBODYS)
    become(monkeypatch, nobodys)
    bundle = Bundle.from_host(
        ["sh", "-c", "id -un; touch /tmp/given/x; touch /usr/x"],
        mounts=[Mount(given, "/tmp/given", read_only=False)],
    )
    monkeypatch.undo()
    done = nobodys.run(bundle)
    assert done.stdout == "root\n"
    assert "Read-only file system" in done.stderr
    assert (given / "x").stat().st_uid == NOBODYS


def test_subordinate_ids_are_users_inside(
    somebodys: Runner, busybox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With subordinate ids a program can be another user inside, and own files as such."""
    become(monkeypatch, somebodys)
    bundle = Bundle.from_rootfs(
        busybox, ["sh", "-c", "id -u; id -g; touch /tmp/x; stat -c %u:%g /tmp/x"], user="web"
    )
    monkeypatch.undo()
    assert somebodys.output(bundle).split() == ["33", "44", "33:44"]


def test_signals_reach_a_program_of_anybodys(
    nobodys: Runner, busybox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without privileges the init hands signals on all the same."""
    become(monkeypatch, nobodys)
    bundle = Bundle.from_rootfs(busybox, ["sh", "-c", "echo ready; exec sleep 1000"], init=True)
    monkeypatch.undo()
    with nobodys.running(bundle) as (name, process):
        nobodys.kill(name, "TERM")
        assert process.wait(timeout=SECONDS) == 128 + 15
