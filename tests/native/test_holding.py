"""Output that is still unread when the process ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from tests.native.leash import Leash
from tests.native.rig import (
    SLEEP,
    Gate,
    Rig,
    become,
    children,
    ended,
    gone,
    read_some,
    read_to_end,
    runtime,
    shell,
    switches,
)
from tests.support.leaks import wait_for


def hold(rig: Rig, *options: str, stream: str = "stdout", size: int = 10, **popen: object) -> None:
    """Return when a process has ended and left ``size`` unread bytes, which the shim holds."""
    redirect = ">&2" if stream == "stderr" else ""
    script = f"head -c {size} /dev/zero {redirect}; exit 3"
    rig.launch(runtime(*shell(script)), f"--{stream}", rig.fifo(stream), *options, **popen)
    rig.made()
    rig.wait_end()
    assert rig.recorded()[:2] == (3, 0)
    wait_for(rig.idle, "a shim that holds the output")


def reader(rig: Rig, stream: str = "stdout") -> int:
    """Open a stream for reading."""
    return rig.open(stream, os.O_RDONLY | os.O_NONBLOCK)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_held_until_it_is_read(rig: Rig, stream: str) -> None:
    """Unread output survives the process; when all output is read the shim goes."""
    hold(rig, stream=stream)
    assert read_to_end(reader(rig, stream)) == bytes(10)
    assert rig.wait_gone() == 0


def test_held_until_both_are_read(rig: Rig) -> None:
    """The shim stays while either stream has something."""
    streams = ["--stdout", rig.fifo("stdout"), "--stderr", rig.fifo("stderr")]
    rig.launch(runtime(*shell("echo words; echo more >&2")), *streams)
    rig.made()
    rig.wait_end()
    assert read_to_end(reader(rig, "stderr")) == b"more\n"
    wait_for(rig.idle, "a shim that holds the rest")
    assert read_to_end(reader(rig)) == b"words\n"
    assert rig.wait_gone() == 0


def test_held_from_reader_to_reader(rig: Rig) -> None:
    """Readers may come, read a part, and go: the rest is kept for the next one."""
    hold(rig)
    for _ in range(10):
        fd = reader(rig)
        assert len(os.read(fd, 1)) == 1
        rig.drop(fd)
    assert rig.wait_gone() == 0


def test_the_last_reader_sees_the_end(rig: Rig) -> None:
    """A reader of held output gets EOF behind the output: the shim holds no writing end."""
    hold(rig, size=60_000)
    fd = reader(rig)
    assert len(os.read(fd, 1 << 16)) == 60_000
    assert os.read(fd, 1 << 16) == b""


def test_held_until_it_is_released(rig: Rig) -> None:
    """`3 0 0` releases the shim although the output is unread."""
    hold(rig)
    rig.control("3 0 0\n")
    assert rig.wait_gone() == 0


def test_told_of_the_end(rig: Rig) -> None:
    """`5 0 0` does the same, for a client that has the fifo open and knows of the end."""
    hold(rig)
    assert not rig.kept
    fd = reader(rig)
    rig.control("5 0 0\n")
    assert rig.wait_gone() == 0
    assert read_to_end(fd) == bytes(10)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_let_go_of_an_output(rig: Rig, stream: str) -> None:
    """`4 N 0` closes the shim's end of stream N: a writer gets EPIPE."""
    redirect = ">&2" if stream == "stderr" else ""
    script = f"trap '' PIPE; while echo y {redirect}; do :; done 2>/dev/null; exit 7"
    if stream == "stderr":
        script = "trap '' PIPE; while echo y >&2; do :; done; exit 7"
    rig.launch(runtime(*shell(script)), f"--{stream}", rig.fifo(stream))
    rig.made()
    rig.control(f"4 {2 if stream == 'stderr' else 1} 0\n")
    assert rig.end() == (7, 0)


def test_no_such_output(rig: Rig) -> None:
    """Lines with other numbers are refused, and a null device has nothing to close."""
    rig.launch(runtime(*SLEEP))
    rig.made()
    rig.control("4 0 0\n4 3 0\n4 1 1\n5 1 0\n4 1 0\n2 15 0\n")
    assert rig.end() == (143, 15)
    assert len(rig.log()) == 4


def test_others_keep_it(rig: Rig) -> None:
    """The shim reports at the end that another process can still write to the log."""
    gate = Gate(rig)
    script = f"({gate.wait}) & exit 3"
    logged = ["--stdout", rig.fifo("stdout").replace("fifo:", "log:")]
    rig.launch(runtime(*shell(script)), *logged, "--log", f"20000:1:{rig / 'out.log'}")
    rig.made()
    rig.wait_end()
    assert rig.kept
    rig.control("5 0 0\n")
    gate.wait_reached()
    assert rig.shim is not None and rig.shim.poll() is None
    gate.open()
    assert rig.wait_gone() == 0


def test_released_before_the_end(rig: Rig) -> None:
    """`3 0 0` while the process runs means that the shim won't stay for the output."""
    rig.launch(runtime(*shell("echo words; exec sleep 1000")), "--stdout", rig.fifo("stdout"))
    pid = become(rig.made(), "sleep")
    rig.control("3 0 0\n")
    rig.wait_idle()
    assert not ended(pid)
    os.kill(pid, signal.SIGTERM)
    assert rig.end() == (143, 15)


@pytest.mark.parametrize("line", ["2 15 0", "2 9 0", "0 0 0", "nonsense"])
def test_other_lines_release_nothing(rig: Rig, line: str) -> None:
    """Lines for the process, which has ended, don't make the shim drop the output."""
    hold(rig)
    rig.control(f"{line}\n")
    rig.wait_idle()
    assert read_to_end(reader(rig)) == bytes(10)
    assert rig.wait_gone() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_signal_lets_it_go(rig: Rig, number: int) -> None:
    """SIGTERM to a shim that only holds output ends the shim: a service manager waits for that."""
    hold(rig)
    os.kill(rig.pid, number)
    assert rig.wait_gone() == 0


def test_a_forwarded_signal_lets_it_go(rig: Rig) -> None:
    """A shim that forwarded the fatal signal to the process doesn't stay for the output."""
    rig.launch(runtime(*shell("echo words; exec sleep 1000")), "--stdout", rig.fifo("stdout"))
    become(rig.made(), "sleep")
    os.kill(rig.pid, signal.SIGTERM)
    assert rig.end() == (143, 15)


def test_nobody_can_read_a_fifo_without_a_name(rig: Rig) -> None:
    """Removing the fifo releases the shim, which no other program could release any more."""
    hold(rig)
    (rig / "stdout").unlink()
    assert rig.wait_gone() == 0


def test_removed_while_the_process_runs(rig: Rig) -> None:
    """A fifo that has lost its name before the end isn't held either."""
    rig.launch(runtime(*shell("echo words; exec sleep 1000")), "--stdout", rig.fifo("stdout"))
    pid = become(rig.made(), "sleep")
    (rig / "stdout").unlink()
    os.kill(pid, signal.SIGTERM)
    assert rig.end() == (143, 15)


def test_an_open_reader_keeps_its_bytes(rig: Rig) -> None:
    """A reader that had the fifo open reads on after the shim has been released."""
    hold(rig)
    fd = reader(rig)
    rig.control("3 0 0\n")
    assert rig.wait_gone() == 0
    assert read_to_end(fd) == bytes(10)


def test_read_before_the_end(rig: Rig) -> None:
    """A process whose output was read leaves a shim that has nothing to stay for."""
    rig.launch(runtime(*shell("echo words; exec sleep 1000")), "--stdout", rig.fifo("stdout"))
    pid = become(rig.made(), "sleep")
    assert read_some(reader(rig)) == b"words\n"
    os.kill(pid, signal.SIGTERM)
    assert rig.end() == (143, 15)


def test_the_leash_ends_it(rig: Rig, leash: Leash) -> None:
    """A shim that holds output goes together with the supervisor."""
    hold(rig, "--leash", str(leash), pass_fds=leash.fds)
    leash.let_go()
    assert rig.wait_gone() == 0


@pytest.mark.parametrize("call", ["inotify_init1", "inotify_add_watch"])
@pytest.mark.parametrize("programs", ["release"], indirect=True)
def test_without_inotify(rig: Rig, call: str) -> None:
    """Where inotify is used up (128 instances, for one) the shim looks now and then, and goes."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    shim = [rig.programs.shim, "--directory", str(rig.path), "--stdout", rig.fifo("stdout")]
    # -D: our child is the shim, not strace.
    inject = [strace, "-D", "-o", "/dev/null", "-e", f"inject={call}:error=EMFILE"]
    rig.launch_words([*inject, *shim, "--", *runtime(*shell("echo words; exit 3"))])
    rig.made()
    rig.wait_end()
    wait_for(rig.waiting, "a shim that holds the output")
    assert not rig.idle()
    assert read_to_end(reader(rig)) == b"words\n"
    assert rig.wait_gone() == 0


def test_orphans_are_reaped_meanwhile(rig: Rig) -> None:
    """A grandchild that ends while output is held doesn't stay behind as a zombie."""
    script = "sleep 1000 & echo $! >orphan; echo words; exit 3"
    rig.launch(runtime(*shell(script)), "--stdout", rig.fifo("stdout"))
    rig.made()
    rig.wait_end()
    orphan = int((rig / "orphan").read_text())
    wait_for(lambda: children(rig.pid) == [orphan], "an orphan")
    os.kill(orphan, signal.SIGKILL)
    wait_for(lambda: gone(orphan), "its reaping")
    assert rig.shim is not None
    assert rig.shim.poll() is None
    # The orphan's copy of the stream ended too, or would hold the shim up.
    assert read_to_end(reader(rig)) == b"words\n"
    assert rig.wait_gone() == 0


@pytest.mark.parametrize("state", ["watching", "holding"])
def test_an_idle_shim_never_wakes(rig: Rig, state: str) -> None:
    """A shim that waits for the end or for a reader has no timeout, and sleeps on."""
    if state == "holding":
        hold(rig)
    else:
        rig.launch(runtime(*SLEEP))
        rig.made()
    wait_for(rig.idle, "an idle shim")
    before = switches(rig.pid)
    for _ in range(30):
        subprocess.run(["/bin/true"], check=True)
    assert rig.idle()
    assert switches(rig.pid) == before
