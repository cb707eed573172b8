"""The list of what the keeper has to do for a container."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.keeper import KeeperRig, impatient
from tests.native.leash import Break, Leash, breaks
from tests.native.rig import SLEEP, root_only
from tests.support.leaks import wait_for
from tests.support.processes import python


def test_words_as_they_are(keeper: KeeperRig, tmp_path: Path) -> None:
    """A command's words arrive whole, whatever is in them."""
    words = [b"a b", b"line\nbreak", b'"quoted"', b"\xff\xfe", b"$HOME", "Löffel".encode()]
    script = f'printf "%s\\0" "$@" >{tmp_path}/words'
    keeper.container("box", ["run", "/bin/sh", "-c", script, "sh", *words])
    keeper.clean()
    assert (tmp_path / "words").read_bytes().split(b"\0")[:-1] == words


def test_records_in_their_order(keeper: KeeperRig, tmp_path: Path) -> None:
    """Records are worked off one after the other; what fails or isn't understood is passed over."""
    log = tmp_path / "log"
    say = [["run", "/bin/sh", "-c", f"echo {i} >>{log}"] for i in range(3)]
    nonsense = [
        ["run", "/no/such/program"],
        ["run"],
        ["remove"],
        ["cgroup"],
        ["sing", "a song"],
        ["run", "/bin/false"],
    ]
    keeper.container(
        "box",
        say[0],
        *nonsense,
        say[1],
        ["remove", "/no/such/file"],
        ["cgroup", "/no/such/group"],
        say[2],
    )
    keeper.clean()
    assert log.read_text() == "0\n1\n2\n"


@pytest.mark.parametrize("size", [256, 257, 600])
def test_a_long_record(keeper: KeeperRig, tmp_path: Path, size: int) -> None:
    """A record of more than 256 words is left out as a whole: half a command is another one."""
    precious = tmp_path / "precious"
    precious.touch()
    words = ["run", "/bin/touch", str(tmp_path / "ran")]
    words += [str(tmp_path / "other")] * (size - len(words))
    if size > 256:  # a cut would make the rest begin with a verb
        words[257:259] = ["remove", str(precious)]
        words[256] = "x"
    box = keeper.container("box", words, ["run", "/bin/touch", str(tmp_path / "last")])
    keeper.clean()
    assert (tmp_path / "ran").exists() == (size <= 256)
    assert precious.exists()
    assert (tmp_path / "last").exists()
    assert not box.exists()


def test_a_list_that_was_cut(keeper: KeeperRig, tmp_path: Path) -> None:
    """A record without an end isn't run: the keeper reads only the first 64 KiB of a list."""
    filler = ["run", "/bin/true", "x" * 65_000]
    keeper.container(
        "box",
        ["run", "/bin/touch", str(tmp_path / "first")],
        filler,
        ["run", "/bin/touch", str(tmp_path / "last"), "y" * 1000],
    )
    keeper.clean()
    assert (tmp_path / "first").exists()
    assert not (tmp_path / "last").exists()


def test_commands_start_with_a_clean_slate(keeper: KeeperRig, tmp_path: Path) -> None:
    """A command has an empty signal mask, ignores no signal, and inherits no descriptor."""
    # No shell between: dash changes signal masks.
    copy = ["run", "/bin/cp", "/proc/self/status", str(tmp_path / "status")]
    listing = ["run", "/bin/sh", "-c", f"ls /proc/self/fd >{tmp_path}/fds"]
    keeper.container("box", copy, listing)

    def spoil() -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)

    keeper.launch(preexec_fn=spoil, restore_signals=False)
    keeper.leash.let_go()
    assert keeper.wait_gone() == 0
    status = dict(line.split(":\t", 1) for line in (tmp_path / "status").read_text().splitlines())
    assert [int(status[key], 16) for key in ("SigBlk", "SigIgn")] == [0, 0]
    assert (tmp_path / "fds").read_text().split() == ["0", "1", "2", "3"]  # 3: what ls reads


@impatient
def test_a_command_that_hangs(keeper: KeeperRig, tmp_path: Path) -> None:
    """A command that doesn't end is killed after a while, and the rest is done."""
    box = keeper.container(
        "box", ["run", *map(str, SLEEP)], ["run", "/bin/touch", str(tmp_path / "ran")]
    )
    keeper.clean()
    assert (tmp_path / "ran").exists()
    assert not box.exists()


@impatient
def test_a_hook_that_hangs(keeper: KeeperRig, tmp_path: Path) -> None:
    """The keeper first kills the process that a command waits for, so that the command does the
    rest, and kills the command last."""
    done, told = tmp_path / "done", tmp_path / "told"
    hook = f"sh -c 'echo $$ >>{told}; exec sleep 54322'"
    left = f"sh -c 'echo $$ >>{told}; sleep 54322' & trap '' TERM; while :; do sleep 54322; done"
    keeper.container(
        "web",
        ["run", "/bin/sh", "-c", f"{hook}; : >{done}"],
        ["run", "/bin/sh", "-c", left],
    )
    keeper.clean()
    assert done.exists()
    pids = [int(line) for line in told.read_text().split()]
    assert len(pids) == 2
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "they are gone")


# ---- removing ------------------------------------------------------------------------------


def test_remove(keeper: KeeperRig, tmp_path: Path) -> None:
    """A tree goes with all its content; the targets of links in the tree stay."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/er/file").touch()
    (tree / "link").symlink_to(outside)
    (tree / "dangling").symlink_to("nowhere")
    (tree / "\xff\n").touch()
    os.mkfifo(tree / "fifo")
    link = tmp_path / "link"
    link.symlink_to(outside)
    keeper.container("box", ["remove", str(tree)], ["remove", str(link)])
    keeper.clean()
    assert not tree.exists()
    assert link.is_symlink()  # no directory of ours
    assert (outside / "file").exists()


@root_only
def test_remove_stays_on_its_file_system(keeper: KeeperRig, tmp_path: Path) -> None:
    """The keeper doesn't empty a file system that is mounted in a tree."""
    tree = tmp_path / "tree"
    (tree / "mount").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "mount"], check=True)
    try:
        (tree / "mount/file").touch()
        keeper.container("box", ["remove", str(tree)])
        keeper.clean()
        assert (tree / "mount/file").exists()
    finally:
        subprocess.run(["umount", tree / "mount"], check=True)


def lacking(descriptors: int) -> Callable[[], None]:
    """Return what leaves a new process so many descriptors."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


def test_more_execs_than_descriptors(keeper: KeeperRig) -> None:
    """A shim's lock is awaited, not held: 506 execs were too many for a limit of 1,024."""
    box = keeper.container("box", ["run", "/bin/true"])
    for number in range(64):
        (box / f"exec-{number}").mkdir()
        (box / f"exec-{number}/shim").touch()
    keeper.launch(preexec_fn=lacking(32))
    keeper.leash.let_go()
    assert keeper.wait_gone() == 0
    assert not box.exists()


@pytest.mark.parametrize("descriptors", range(11, 24))
def test_what_somebody_creates_is_left_with_few_descriptors(
    keeper: KeeperRig, tmp_path: Path, descriptors: int
) -> None:
    """A creator that the keeper can't look at for lack of descriptors counts as alive, no longer as
    dead."""
    name = f"box-{os.getpid()}"
    begun = tmp_path / name
    begun.mkdir()
    keeper.container(name, ["owned", str(begun), "/no/bundle", "/bin/true"])
    with python("input()", name) as other:
        keeper.launch(preexec_fn=lacking(descriptors))
        keeper.leash.let_go()
        assert keeper.wait_gone() == 0
        assert begun.exists()
        other.communicate("\n")


# ---- what hangs, and what is left ------------------------------------------------------------


def has_ended(pid: int) -> bool:
    """Whether a process has ended; a process that was left to us is reaped."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    return not os.path.exists(f"/proc/{pid}")


@impatient
def test_many_commands_that_hang(keeper: KeeperRig, tmp_path: Path) -> None:
    """Commands that hang don't take the full time each, and their children end with the
    commands."""
    begun = time.monotonic()
    pids = tmp_path / "pids"
    script = f"sleep 1000 & echo $! >>{pids}; wait"
    for number in range(20):
        keeper.container(f"box{number}", ["run", "/bin/sh", "-c", script])
    keeper.clean("remove-root")
    assert not keeper.root.exists()
    assert time.monotonic() - begun < 20 * 0.3
    started = [int(pid) for pid in pids.read_text().split()]
    wait_for(lambda: all(map(has_ended, started)), "the killed ones' children")


@breaks
def test_a_bundle_goes_with_its_program(
    keeper: KeeperRig, leash: Leash, end: Break, tmp_path: Path
) -> None:
    """The bundle stays while the supervisor's program lives: after a close the program may still
    use the bundle."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    box = keeper.container("box", ["bundle", str(bundle)])
    keeper.launch()
    keeper.wait_ready()
    end(leash)
    assert keeper.wait_gone() == 0
    assert not box.exists()
    assert bundle.exists() == (end is Leash.let_go)


@pytest.mark.parametrize("verb", ["private", "owned"])
@pytest.mark.parametrize("whose", ["ours", "another bundle's", "writable"])
def test_what_a_runtime_keeps(keeper: KeeperRig, tmp_path: Path, verb: str, whose: str) -> None:
    """The keeper removes what the runtime couldn't delete, if it is ours, so that the id is
    free."""
    kept = tmp_path / "runtime" / "box"
    kept.mkdir(parents=True)
    (kept / "status").write_text(f'{{"bundle": "/x/{"z" if "another" in whose else "y"}"}}')
    if whose == "writable":
        kept.chmod(0o777)
    box = keeper.container("box", [verb, str(kept), "/x/y", "/bin/false"])
    keeper.clean()
    assert not box.exists()
    assert kept.exists() == (whose != "ours")
