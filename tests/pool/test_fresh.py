"""A container from a pool is as one that was just created, and untouched by others."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor import Bundle, Container, ContainerPool, State, open_supervisor, run_container
from tests.conftest import MakeBundle, OpenSupervisor
from tests.pool.stocks import OpenPool, settled
from tests.support.runtimes import Choice, needs_root

NAMESPACES = ("pid", "mnt", "ipc", "uts", "net", "cgroup")

LOOK = r"""
cat /proc/self/status | while read -r name rest; do
  case $name in
    Uid:|Gid:|Groups:|Cap*|NoNewPrivs:|Seccomp:|SigPnd:|SigBlk:|SigIgn:|SigCgt:|Umask:)
      echo "$name $rest";;
  esac
done
cat /proc/self/limits /proc/self/oom_score_adj
cd /proc/self/fd; for fd in *; do [ -e $fd ] && echo fd $fd; done
cat /proc/1/cmdline; echo
env | while read -r line; do echo "env $line"; done
cat /proc/self/cgroup; ls -a /dev /run /tmp /; hostname
"""


@pytest.fixture(params=["root", "user", "init", "limits"])
def spec(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The arguments of a bundle."""
    kinds: dict[str, dict[str, Any]] = {
        "root": {},
        "user": {"user": (1000, 1001), "env": {"HOME": "/x", "A": "b"}, "cwd": "/tmp"},
        "init": {"init": True},
        "limits": {"memory_bytes": 64 << 20, "pids": 50, "cpus": 1.5},
    }
    if request.param == "limits" and os.geteuid() != 0:
        pytest.skip("limits need root")
    return kinds[request.param]


def seen(told: bytes) -> list[str]:
    """Return what was printed, but for the gate's file and an init's descriptors."""
    lines = re.sub(r"--(status|report)\0\d\0", "", told.decode()).splitlines()
    return [line for line in lines if line != "gate" and "/pool-" not in line]


@needs_root
async def test_it_is_as_a_plain_one(
    supervisor: OpenSupervisor, bundle: MakeBundle, spec: dict[str, Any]
) -> None:
    """A pooled program equals a plain one: capabilities, privileges, ids, limits, signals,
    descriptors, command line."""
    made = bundle("sh", "-c", LOOK, **spec)
    with trio.fail_after(60):
        async with supervisor() as sup, ContainerPool(made, supervisor=sup, size=1) as pool:
            plain = await run_container(
                made, supervisor=sup, id="pool-plain", capture_stdout=True, capture_stderr=True
            )
            pooled = await pool.run()
    assert plain.stdout is not None and pooled.stdout is not None
    assert seen(pooled.stdout) == seen(plain.stdout)
    assert pooled.stderr == plain.stderr == b""
    assert b"fd 2" in pooled.stdout and b"NoNewPrivs: 1" in pooled.stdout


def status(pid: int | None) -> dict[str, str]:
    """Return a process's status as the kernel reports it on the host."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


async def sleeping(box: Container) -> int:
    """Return the pid of a process whose program sleeps.

    In the kernel's `execve` the new name comes first, then the handlers, then the environment: a
    look in between sees half of each program. So the looks are in that order, too.
    """
    assert box.pid is not None
    while not (
        status(box.pid)["Name"].strip() == "sleep"
        and Path(f"/proc/{box.pid}/environ").read_bytes()
        and status(box.pid)["State"].split()[0] == "S"
    ):
        await trio.sleep(0.001)
    return box.pid


async def test_its_process_is_as_a_plain_ones(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A pooled process equals a plain one from outside, too: masks and dispositions of all signals,
    descriptors, session, limits."""
    names = ("SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    names += ("NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups", "Umask", "NSpgid", "NSsid")
    made = bundle("sleep", "600")
    with trio.fail_after(60):
        async with supervisor() as sup, ContainerPool(made, supervisor=sup, size=1) as pool:
            async with await sup.create("plain", made) as plain, pool.take() as pooled:
                await plain.start()
                one, other = await sleeping(plain), await sleeping(pooled)
                # Of an id in nested namespaces the one inside counts: the last.
                found = [[status(pid)[name].split()[-1:] for name in names] for pid in (one, other)]
                assert found[0] == found[1]
                for name in ("limits", "oom_score_adj", "cmdline", "environ", "personality"):
                    both = [Path(f"/proc/{pid}/{name}").read_bytes() for pid in (one, other)]
                    assert both[0] == both[1], name
                assert sorted(os.listdir(f"/proc/{other}/fd")) == ["0", "1", "2"]
                assert os.readlink(f"/proc/{other}/exe") == os.readlink(f"/proc/{one}/exe")
                assert b"supervisor-gate" not in Path(f"/proc/{other}/maps").read_bytes()


async def test_each_has_its_own_of_everything(pool: OpenPool) -> None:
    """Each container has namespaces and cgroups of its own, whether they came one after another or
    side by side."""
    inodes: dict[str, set[str]] = {name: set() for name in NAMESPACES}
    cgroups = set()
    ids = set()
    async with pool("sleep", "600", size=2) as opened:
        for _ in range(3):
            async with opened.take() as one, opened.take() as two:
                # While both live, and all that are ready: an inode's number may come again later.
                pids = [one.pid, two.pid]
                for name in NAMESPACES:
                    links = [os.readlink(f"/proc/{pid}/ns/{name}") for pid in pids]
                    own = os.readlink(f"/proc/self/ns/{name}")
                    assert len({*links, own}) == 3, name
                    inodes[name].update(links)
                for box in (one, two):
                    ids.add(box.id)
                    cgroups.add(Path(f"/proc/{box.pid}/cgroup").read_text())
                    assert box.state is State.RUNNING
    assert len(ids) == len(cgroups) == 6
    assert all(len(found) >= 2 for found in inodes.values())


async def test_it_was_never_started_before(pool: OpenPool) -> None:
    """A container that waits has run no program of ours or of the taker's: it is at the start
    gate."""
    async with pool(size=1) as opened:
        await settled(opened)
        async with opened.take(["sleep", "600"]) as box:
            await settled(opened)
            waiting = [id for id in opened._supervisor or () if id != box.id]  # type: ignore[union-attr]
            assert len(waiting) == 1
            other = opened._supervisor[waiting[0]]  # type: ignore[index]
            assert other.state is State.CREATED
            assert "gate" not in os.readlink(f"/proc/{other.pid}/exe")


# ---- whatever one example does, the next one can't observe it -------------------------------

WRITABLE = ("/tmp", "/run", "/dev/shm", "/dev", "/dev/mqueue", "/bin", "/", "/proc/sys/kernel")
names = st.sampled_from(["a", "b", "x y", "-", "hostname", "msgmax"])
places = st.builds(lambda where, name: f"{where}/{name}", st.sampled_from(WRITABLE), names)


def written(place: str) -> str:
    return f"echo mark >{shlex.quote(place)}"


def forked(place: str) -> str:
    return f"(trap '' TERM HUP; exec sleep 600; : {shlex.quote(place)}) &"


def mounted(place: str) -> str:
    return f"mkdir -p {shlex.quote(place)}; mount -t tmpfs none {shlex.quote(place)}"


def linked(place: str) -> str:
    return f"ln -s /proc/1/root {shlex.quote(place)}; mkfifo {shlex.quote(place)}.fifo"


def settled_in(place: str) -> str:
    return f"hostname marked; ulimit -n 10; umask 0; cd {shlex.quote(os.path.dirname(place))}"


def filled(place: str) -> str:
    return f"dd if=/dev/zero of={shlex.quote(place)} bs=1k count=64"


DEEDS = (written, forked, mounted, linked, settled_in, filled)
deeds = st.lists(st.builds(lambda deed, place: deed(place), st.sampled_from(DEEDS), places))

OBSERVE = r"""
find / -xdev 2>&1 | grep -v '^/proc' | sort
for place in /tmp /run /dev /dev/shm /dev/mqueue; do find $place 2>&1; done
cat /proc/mounts; hostname; ps -o args; cat /proc/self/limits; umask; pwd
"""


@attrs.define
class Observed:
    """The observations of the first example, with which all others are compared."""

    first: bytes | None = None


@needs_root
@pytest.mark.timeout(240)
def test_nothing_of_one_is_seen_by_the_next(
    bundle: MakeBundle,
    choice: Choice,
    cgroup_parent: str,
    rootfs: Path,
    pytestconfig: pytest.Config,
) -> None:
    """Whatever an example writes, mounts, forks or leaves running, the next example sees a fresh
    container."""
    for name in ("find", "grep", "sort", "mount", "mkdir", "mkfifo", "ln", "hostname", "ps"):
        if not (rootfs / "bin" / name).exists():
            (rootfs / "bin" / name).symlink_to("busybox")
    made = bundle("sh")
    observed = Observed()

    count = 60 if pytestconfig.getoption("--long") else 6

    @settings(max_examples=count, deadline=None, database=None)
    @given(st.lists(st.tuples(deeds, st.booleans()), min_size=1, max_size=4))
    def examples(scripts: list[tuple[list[str], bool]]) -> None:
        trio.run(play, made, choice, cgroup_parent, scripts, observed)

    examples()


async def play(
    made: Bundle,
    choice: Choice,
    cgroup_parent: str,
    scripts: list[tuple[list[str], bool]],
    observed: Observed,
) -> None:
    """Play all examples, and look after each; some are left while they still run."""
    with trio.fail_after(60):
        async with (
            open_supervisor(runtime=choice.runtime(), cgroup_parent=cgroup_parent) as sup,
            ContainerPool(made, supervisor=sup, size=2) as pool,
        ):
            for lines, runs_on in scripts:
                script = "\n".join([*lines, "exec sleep 600" if runs_on else "exit 0"])
                async with pool.take(["sh", "-c", script]) as box:
                    if not runs_on:
                        await box.wait()
                sight = await pool.run(["sh", "-c", OBSERVE])
                assert sight.stdout is not None and b"mark" not in sight.stdout
                observed.first = observed.first or sight.stdout
                assert sight.stdout == observed.first
