"""Who a program runs as: user, group, supplementary groups and umask, in Trio's words too."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import Bundle, ContainerPool, InvalidValue, run_container
from supervisor.container import _unrun
from supervisor.rootfs import _users
from tests.conftest import OpenSupervisor
from tests.support.runtimes import needs_root

pytestmark = [needs_root, pytest.mark.rootless]

SAY = "echo $(busybox id -u):$(busybox id -g):$(busybox id -G):$(umask)"

# what is asked for, and what is had: uid, gid, all groups, umask
ASKED: list[tuple[dict[str, Any], str]] = [
    ({"user": 1000}, "1000:2000:2000:0022"),
    ({"user": "1000"}, "1000:2000:2000:0022"),
    ({"user": "alice"}, "1000:2000:2000:0022"),
    ({"user": 1234}, "1234:1234:1234:0022"),
    ({"user": (1000, 7)}, "1000:7:7:0022"),
    ({"user": "1000:7"}, "1000:7:7:0022"),
    ({"user": "alice:staff"}, "1000:50:50:0022"),
    ({"user": "alice", "group": "staff"}, "1000:50:50:0022"),
    ({"user": 1000, "group": 7}, "1000:7:7:0022"),
    ({"group": "staff"}, "0:50:50:0022"),
    ({"user": "alice", "extra_groups": ["staff", 9]}, "1000:2000:2000 9 50:0022"),
    ({"extra_groups": [5]}, "0:0:0 5:0022"),
    ({"user": "alice", "umask": 0o77}, "1000:2000:2000:0077"),
    ({"umask": 0}, "0:0:0:0000"),
    ({"umask": -1}, "0:0:0:0022"),
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"user": "nobody knows"}, "user: 'nobody knows' is not listed"),
    ({"group": "nobody knows"}, "group: 'nobody knows' is not listed"),
    ({"extra_groups": ["nobody knows"]}, "extra_groups: 'nobody knows' is not listed"),
    ({"user": (1, 2), "group": 3}, "both name a group"),
    ({"user": "a:b:c"}, "user must be"),
    ({"group": True}, "group"),
    ({"extra_groups": "staff"}, "extra_groups"),
    ({"extra_groups": [None]}, "extra_groups"),
    ({"extra_groups": [-1]}, "extra_groups"),
    ({"umask": 0o1000}, "umask"),
    ({"umask": True}, "umask"),
    ({"umask": "022"}, "umask"),
]


@pytest.fixture
def own_root(rootfs: Path, workdir: Path) -> Path:
    """A root filesystem with user and group lists of its own."""
    root = workdir / "root"
    for name in ("bin", "proc", "dev", "sys", "tmp", "run", "etc"):
        (root / name).mkdir(parents=True)
    os.link(rootfs / "bin/busybox", root / "bin/busybox")
    for name in ("sh", "sleep"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nalice:x:1000:2000::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nstaff:x:50:alice\n")
    return root


@pytest.fixture
def make(own_root: Path) -> Callable[..., Bundle]:
    """Make a bundle on that root filesystem."""
    return lambda *args, **options: Bundle.from_rootfs(own_root, list(args), **options)


async def test_each_way(
    supervisor: OpenSupervisor, make: Callable[..., Bundle], choice: Any
) -> None:
    """A bundle, create, run_container and exec take the same words for a user, with the same
    meaning.

    An exec with a uid once kept gid 0, and knew no names.
    """
    async with supervisor() as sup, await sup.create("on", make("sleep", "600")) as on:
        await on.start()
        for asked, had in ASKED:
            done = await on.run(["sh", "-c", SAY], capture_stdout=True, **asked)
            assert done.stdout == f"{had}\n".encode(), ("exec", asked)
            for bundle, given in (
                (make("sh", "-c", SAY, **asked), {}),
                (make("sh", "-c", SAY), asked),
            ):
                done = await run_container(bundle, supervisor=sup, capture_stdout=True, **given)
                assert done.stdout == f"{had}\n".encode(), ("create", asked, given)
        for asked, said in BAD:
            with pytest.raises(InvalidValue, match=said):
                await on.exec(["true"], **asked)
            with pytest.raises(InvalidValue, match=said):
                await sup.create("b", make("sleep", "1"), **asked)
            with pytest.raises(InvalidValue, match=said):
                make("sleep", "1", **asked)
        assert (list(sup), list(on.processes)) == (["on"], ["init"])


async def test_pool(make: Callable[..., Bundle], choice: Any) -> None:
    """A pool takes the same words for all its containers; so do programs that run beside."""
    wanted: dict[str, Any] = {"user": "alice", "extra_groups": ["staff"], "umask": 0o27}
    async with ContainerPool(
        make("sleep", "600"), size=1, runtime=choice.runtime(), **wanted
    ) as pool:
        done = await pool.run(["sh", "-c", SAY])
        assert done.stdout == b"1000:2000:2000 50:0027\n"
        async with pool.take(["sleep", "600"]) as box:
            seen = await box.run(["sh", "-c", SAY], capture_stdout=True)
            assert seen.stdout == b"1000:2000:2000 50:0027\n"
    with pytest.raises(InvalidValue, match="umask"):
        ContainerPool(make("sleep", "600"), umask=True)


async def test_another_user_has_no_groups_of_the_first(
    supervisor: OpenSupervisor, make: Callable[..., Bundle]
) -> None:
    """The supplementary groups of init's user aren't those of an exec's."""
    bundle = make("sleep", "600", extra_groups=[0, 5], umask=0o77)
    async with supervisor() as sup, await sup.create("a", bundle) as box:
        await box.start()
        for user, had in ((None, b"0:0:0 5:0077\n"), ("alice", b"1000:2000:2000:0077\n")):
            seen = await box.run(["sh", "-c", SAY], user=user, capture_stdout=True)
            assert seen.stdout == had


async def test_the_containers_own_lists(
    supervisor: OpenSupervisor, make: Callable[..., Bundle], own_root: Path, workdir: Path
) -> None:
    """An exec uses the lists that the container sees now: no link in the container leads to the
    host's lists."""
    bundle = make("sleep", "600", writable="overlay")
    async with supervisor() as sup, await sup.create("a", bundle) as box:
        await box.start()
        await box.run(["sh", "-c", "echo bob:x:77:78::/: >>/etc/passwd"])
        seen = await box.run(["sh", "-c", SAY], user="bob", capture_stdout=True)
        assert seen.stdout == b"77:78:78:0022\n"
        (workdir / "secret").write_text("mallory:x:0:0::/:\n")
        link = f"busybox ln -sf {workdir}/secret /etc/passwd"
        await box.run(["sh", "-c", link])
        with pytest.raises(InvalidValue, match="can't be looked up"):
            await box.exec(["true"], user="mallory")
        await box.run(["sh", "-c", "busybox rm /etc/passwd; busybox mkfifo /etc/passwd"])
        with trio.fail_after(20), pytest.raises(InvalidValue, match="regular file"):
            await box.exec(["true"], user="mallory")


async def test_nobody_waits_for_the_lists(
    supervisor: OpenSupervisor, make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists that never answer are reported as that; numbers need no lists."""
    released = threading.Event()

    def hold_up(*_: object) -> bytes:
        released.wait()
        raise OSError

    async with supervisor() as sup, await sup.create("a", make("sleep", "600")) as box:
        await box.start()
        monkeypatch.setattr(_unrun, "_LOOK_SECONDS", 0.05)
        monkeypatch.setattr(_users, "read_found", hold_up)
        try:
            with trio.fail_after(20), pytest.raises(InvalidValue, match="as numbers"):
                await box.exec(["true"], user="alice")
            assert (await box.run(["sh", "-c", ":"], user=(1000, 1))).status.code == 0
        finally:
            released.set()


async def test_in_a_user_namespace(supervisor: OpenSupervisor, make: Callable[..., Bundle]) -> None:
    """Ids are the container's own in a user namespace."""
    async with supervisor() as sup:
        bundle = make("sleep", "600", userns="auto")
        async with await sup.create("a", bundle, user="alice", umask=0o7) as box:
            await box.start()
            seen = await box.run(["sh", "-c", SAY], capture_stdout=True)
            assert seen.stdout == b"1000:2000:2000:0007\n"
            seen = await box.run(["sh", "-c", SAY], user="root", capture_stdout=True)
            assert seen.stdout == b"0:0:0:0007\n"
        few = make("sleep", "600", userns=[(0, 100_000, 10)])
        with pytest.raises(InvalidValue, match="doesn't exist in the container"):
            await sup.create("b", few, user=1000)
        assert list(sup) == []


async def test_a_pid_file(
    supervisor: OpenSupervisor, make: Callable[..., Bundle], own_root: Path
) -> None:
    """An ordinary user's server can write a pid file: /run was once root's alone."""
    (own_root / "run").chmod(0o1777)  # runc gives a tmpfs the mode of the directory below
    script = ["sh", "-c", "echo $$ >/run/server.pid"]
    async with supervisor() as sup:
        for bundle in (make(*script, user=33), Bundle.from_host(script, user=33)):
            assert (await run_container(bundle, supervisor=sup)).returncode == 0
