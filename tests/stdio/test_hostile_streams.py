"""A container can change only its own streams, nothing of the caller's and nothing of the
host's."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import supervisor.stdio._null as null_module
from supervisor import PIPE, Bundle, Fifo, InfrastructureError, InvalidValue, Mount, run_container
from tests.conftest import MakeBundle, OpenSupervisor
from tests.stdio.doors import HOSTILE, KINDS, PYTHON, STREAMS, Door
from tests.support.runtimes import needs_root

_ADDR_NO_RANDOMIZE = 0x40000
_SET_MEMPOLICY = 238 if platform.machine() == "x86_64" else 237
_MPOL_PREFERRED = 1


@pytest.fixture
def doors(request: pytest.FixtureRequest, workdir: Path) -> Iterator[list[Door]]:
    """One door for each stream, of the kind that the test is run with."""
    made = [Door(request.param, stream, workdir) for stream in STREAMS]
    yield made
    for door in made:
        door.close()


@needs_root
@pytest.mark.parametrize("doors", KINDS, indirect=True)
@pytest.mark.parametrize("user", [0, 1000])
async def test_a_hostile_program(
    supervisor: OpenSupervisor, doors: list[Door], user: int, workdir: Path
) -> None:
    """A container's root can't reopen, truncate or write the given files, nor change mode, owner or
    flags, in init and exec; runtimes once gave the files a new owner."""
    streams = dict(zip(STREAMS, (door.given for door in doors), strict=True))
    hostile = [PYTHON, "-ISc", HOSTILE]
    null = os.stat("/dev/null")
    workdir.chmod(0o755)
    with Bundle.from_host(hostile, user=user) as init, Bundle.from_host(["sleep", "60"]) as idle:
        async with supervisor() as sup:
            done = await run_container(init, supervisor=sup, check=False, **streams)
            assert done.returncode == 7
            async with await sup.create("a", idle) as box:
                await box.start()
                ran = await box.run(hostile, user=user, check=False, **streams)
                assert ran.returncode == 7
                assert (await box.run(hostile, user=user, check=False)).returncode == 7
    assert [door.look() for door in doors] == [door.before for door in doors]
    after = os.stat("/dev/null")
    assert (after.st_mode, after.st_uid, after.st_gid) == (null.st_mode, null.st_uid, null.st_gid)
    if "PYTEST_XDIST_WORKER" not in os.environ:  # parallel tests write to /dev/null
        assert (after.st_mtime_ns, after.st_ctime_ns) == (null.st_mtime_ns, null.st_ctime_ns)


async def test_output_cannot_be_read_back(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path
) -> None:
    """A program that reopens its output for reading can't see what others had written before."""
    out = workdir / "out"
    out.write_bytes(b"secret\n")
    script = "(exec 3<>/proc/self/fd/1) 2>/dev/null && echo opened; echo words >/proc/self/fd/1"
    async with supervisor() as sup:
        await run_container(bundle("sh", "-c", script), supervisor=sup, stdout=out)
    assert out.read_bytes() == b"secret\nwords\n"


async def test_a_new_file_is_the_callers(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path
) -> None:
    """A file that is made is private and the caller's own, also for a user inside."""
    old = os.umask(0)
    try:
        async with supervisor() as sup:
            made = bundle(
                "sh", "-c", "cat /bin/sh; chmod 4755 /proc/self/fd/1; chown 1 /dev/stdout"
            )
            await run_container(made, supervisor=sup, stdout=workdir / "new", check=False)
    finally:
        os.umask(old)
    status = (workdir / "new").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    assert status.st_size > 1000


@pytest.mark.parametrize("stream", STREAMS)
async def test_what_can_be_no_stream(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, stream: str
) -> None:
    """A directory, what is open for the other direction only, what can't be opened: refused before
    anything is touched. A directory was the way to the whole of the host."""
    null, other = os.O_WRONLY, os.O_RDONLY
    fds = [
        os.open("/", os.O_RDONLY | os.O_DIRECTORY),
        os.open("/dev/null", null if stream == "stdin" else other),
        os.open("/dev/null", os.O_PATH),
    ]
    wrong: list[Any] = [*fds, f"/proc/self/fd/{fds[0]}", f"/dev/fd/{fds[1]}", "/dev/fd/987"]
    wrong += [workdir / "no/such", workdir, Fifo(workdir / "no"), f"/proc/{os.getpid()}/fd/988"]
    async with supervisor(root) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as box:
            await box.start()
            there = sorted(os.listdir(root / "a"))
            for value in wrong:
                with pytest.raises(InvalidValue):
                    await sup.create("b", bundle("true"), **{stream: value})
                with pytest.raises(InvalidValue):
                    await box.exec(["true"], **{stream: value})
            assert not (root / "b").exists()
            assert sorted(os.listdir(root / "a")) == there
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link", "pid"])
async def test_names_mean_the_callers_own(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, name: str
) -> None:
    """/dev/stdout and such names mean the caller's; the shim once opened its own, and lost all
    output."""
    os.symlink("/proc/thread-self/fd/1", workdir / "link")
    path = {"link": str(workdir / "link"), "pid": f"/proc/{os.getpid()}/fd/1"}.get(name, name)
    read_fd, write_fd = os.pipe()
    saved = os.dup(1)
    try:
        async with supervisor() as sup:
            os.dup2(write_fd, 1)
            await run_container(bundle("echo", "words"), supervisor=sup, stdout=path)
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(write_fd)
    assert os.read(read_fd, 100) == b"words\n"
    os.close(read_fd)


async def test_other_names_of_proc_self(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """`/proc/self/cmdline` is the caller's, not the shim's."""
    async with supervisor() as sup:
        done = await run_container(
            bundle("cat"), supervisor=sup, stdin="/proc/self/cmdline", capture_stdout=True
        )
    assert done.stdout == Path("/proc/self/cmdline").read_bytes()


async def test_a_pipeline(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """One container's output works as another's input; inherited O_NONBLOCK once made this fail."""
    script = "sleep 0.2; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done"
    async with supervisor() as sup:
        async with await sup.create("a", bundle("sh", "-c", script), stdout=PIPE) as first:
            spec = bundle("cat")
            async with await sup.create("b", spec, stdin=first.stdout, stdout=PIPE) as second:
                await second.start()
                await first.start()
                assert second.stdout is not None
                heard = b"".join([chunk async for chunk in second.stdout])
                assert (await second.wait()).code == 0
    assert heard == b"".join(b"%d\n" % n for n in range(1, 20001))


@needs_root
@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
async def test_a_program_with_a_umask_of_its_own(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, umask: int
) -> None:
    """The caller's umask doesn't reach runc's execs, mount points or the files of shim and
    runtime."""
    (workdir / "file").write_text("data")
    (workdir / "file").chmod(0o644)
    workdir.chmod(0o755)
    old = os.umask(umask)
    try:
        with Bundle.from_host(
            ["sleep", "60"], user=1000, mounts=[Mount(workdir, "/srv/data/in")]
        ) as made:
            async with supervisor(root) as sup, await sup.create("a", made, stdout=PIPE) as box:
                await box.start()
                script = "umask; cat /srv/data/in/file"
                told = await box.run(["sh", "-c", script], capture_stdout=True)
                assert told.stdout == b"0022\ndata"
                status = Path(f"/proc/{box.pid}/status").read_text()
                assert "Umask:\t0022" in status
                await box.exec(["sleep", "60"], stdout=workdir / "out")
                assert [told for told in modes(root / "a") if told[1] not in (0o600, 0o711)] == []
    finally:
        os.umask(old)


def modes(container: Path) -> list[tuple[str, int]]:
    """Return the modes of all that is in a container's directory, but what copiers serve."""
    found = []
    for directory, names, files in os.walk(container):
        names[:] = [name for name in names if name != "rootfs"]
        for name in (*names, *files):
            status = os.lstat(os.path.join(directory, name))
            mode = stat.S_IMODE(status.st_mode)
            if not (stat.S_ISFIFO(status.st_mode) and mode in (0o200, 0o400)):
                found.append((name, mode))
    return found


@needs_root
async def test_a_null_device_that_cannot_be_cloned(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's containers get fifos then: an empty input, and output that goes nowhere."""
    monkeypatch.setattr(null_module, "_clone", lambda found: None)
    script = "for fd in 0 1 2; do test -p /proc/self/fd/$fd || exit 9; done; cat; seq 200000"
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        assert (await box.run(["sh", "-c", script])).returncode == 0


async def test_what_is_no_null_device(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, workdir: Path
) -> None:
    """A regular file in place of /dev/null is refused, with the command that repairs it."""
    (workdir / "null").touch()
    monkeypatch.setattr(null_module, "_PATH", str(workdir / "null"))
    async with supervisor() as sup:
        with pytest.raises(InfrastructureError, match="mknod"):
            await sup.create("a", bundle("true"))


@needs_root
async def test_the_null_device_of_an_exec(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """The exec's null device is on a read-only mount: writing works, changing the device
    doesn't."""
    script = "import os; os.write(1, b'x'); os.write(2, b'%d' % (os.fstatvfs(0).f_flag & 1))"
    with Bundle.from_host(["sleep", "60"]) as made:
        async with supervisor() as sup, await sup.create("a", made) as box:
            await box.start()
            done = await box.run([PYTHON, "-ISc", script], capture_stderr=True)
            assert done.stderr == b"1"


@contextlib.contextmanager
def odd_habits() -> Iterator[None]:
    """Be niced, pinned and slack, with a place in the disk's queue, memory and a layout of our own.

    What the kernel has no such thing of is left out.
    """
    libc, pid = ctypes.CDLL(None), str(os.getpid())
    cpus, nice = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    slack = Path("/proc/self/timerslack_ns")
    before = slack.read_text()
    node = ctypes.byref(ctypes.c_ulong(1))
    os.setpriority(os.PRIO_PROCESS, 0, 7)
    os.sched_setaffinity(0, {min(cpus)})
    slack.write_text("777777")
    subprocess.run(["ionice", "-c", "2", "-n", "6", "-p", pid], check=True)
    libc.personality(_ADDR_NO_RANDOMIZE)
    libc.syscall(_SET_MEMPOLICY, _MPOL_PREFERRED, node, ctypes.c_ulong(8))
    try:
        yield
    finally:
        libc.syscall(_SET_MEMPOLICY, 0, None, ctypes.c_ulong(0))
        libc.personality(0)
        subprocess.run(["ionice", "-c", "0", "-p", pid], check=True)
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        os.sched_setaffinity(0, cpus)
        slack.write_text(before)


def habits(pid: int | None) -> dict[str, object]:
    """Return what a process has of that."""
    assert pid is not None
    proc = Path(f"/proc/{pid}")
    told = subprocess.run(
        ["ionice", "-p", str(pid)], check=True, capture_output=True, text=True
    ).stdout
    maps = proc / "numa_maps"
    return {
        "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "cpus": os.sched_getaffinity(pid),
        "slack": (proc / "timerslack_ns").read_text(),
        "dumped": (proc / "coredump_filter").read_text(),
        "personality": (proc / "personality").read_text(),
        "disk": told.partition(":")[0],
        "memory": {line.split()[1] for line in maps.read_text().splitlines()}
        if maps.exists()
        else {"default"},
    }


@needs_root
async def test_scheduling_is_not_inherited(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A container of a niced and pinned supervisor has the default scheduling."""
    cpus = os.sched_getaffinity(0)
    with odd_habits():
        async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
            await box.start()
            process = await box.exec(["sleep", "60"])
            for pid in (box.pid, process.pid):
                assert habits(pid) == {
                    "nice": 0,
                    "cpus": cpus,
                    "slack": "50000\n",
                    "dumped": "00000033\n",
                    "personality": "00000000\n",
                    "disk": "none",
                    "memory": {"default"},
                }


def unfit_sockets(stream: str) -> list[socket.socket]:
    """Return sockets that can be no such stream."""
    unix, inet = socket.AF_UNIX, socket.AF_INET
    listening = [socket.socket(unix), socket.socket(inet)]
    listening[0].bind("\0ts-" + os.urandom(8).hex())
    listening[1].bind(("127.0.0.1", 0))
    for one in listening:
        one.listen()
    unconnected = [socket.socket(unix), socket.socket(inet)]
    unconnected.append(socket.socket(unix, socket.SOCK_SEQPACKET))
    if stream != "stdin":
        unconnected.append(socket.socket(inet, socket.SOCK_DGRAM))
    return listening + unconnected


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("blocking", [True, False])
async def test_sockets_that_can_be_no_stream(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, stream: str, blocking: bool
) -> None:
    """A listening socket is refused; once such a socket was stdin, and the program waited for
    ever."""
    async with supervisor(root) as sup:
        there = sorted(os.listdir(root))
        for one in unfit_sockets(stream):
            with one:
                one.setblocking(blocking)
                with pytest.raises(InvalidValue, match=rf"{stream}.*(listens|isn't connected)"):
                    await run_container(bundle("cat"), supervisor=sup, **{stream: one})
                assert one.getblocking() == blocking
        assert sorted(os.listdir(root)) == there


async def test_sockets_that_were_closed_since(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """All remaining bytes of a socket whose peer has closed are read, to the end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    unix, other = socket.socketpair()
    datagrams, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, unix, datagrams, sender:
        for one in (theirs, other):
            one.sendall(b"words\n")
            one.close()
        ours.shutdown(socket.SHUT_WR)
        sender.send(b"words\n")
        async with supervisor() as sup:
            for one in (ours, unix):
                done = await run_container(
                    bundle("cat"), supervisor=sup, stdin=one, capture_stdout=True
                )
                assert done.stdout == b"words\n"
            first = bundle("sh", "-c", "read line; echo $line")
            done = await run_container(first, supervisor=sup, stdin=datagrams, capture_stdout=True)
            assert done.stdout == b"words\n"
