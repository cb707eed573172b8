"""The writable layer: who sees it, what it costs the root filesystem (nothing), how it fails."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.native.rig import SLEEP, Gate, Rig, children, ended, root_only, runtime, shell
from tests.support.leaks import STRANGERS, wait_for

pytestmark = root_only

STRANGE = "a b,c:d\\e\\,f\\:g=h"
"""A name with everything that mount options use for themselves."""


@pytest.fixture
def lower(rig: Rig) -> Path:
    """A root filesystem of two files, in a directory with a difficult name."""
    path = rig / f"lower {STRANGE}"
    path.mkdir()
    path.chmod(0o3751)
    os.chown(path, 1234, 2345)
    for name in ("kept", "lost"):
        (path / name).write_text(f"{name} below\n")
    return path


@pytest.fixture
def target(rig: Rig) -> Path:
    """The place where the runtime sees the root filesystem with the layer."""
    path = rig / f"target {STRANGE}"
    path.mkdir()
    return path


def options(lower: Path, target: Path, size: int = 0) -> list[str]:
    return ["--lower", str(lower), "--layer", f"{size}:{target}"]


def mounts_below(path: Path, process: int | str = "self") -> list[str]:
    """Return the types of what a process has mounted below a path."""
    escaped = str(path).replace("\\", "\\134").replace(" ", "\\040")
    lines = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    words = [line.split(" ") for line in lines]
    return [line[line.index("-") + 1] for line in words if line[4].startswith(escaped)]


def test_the_runtime_sees_a_layer_and_nobody_else(rig: Rig, lower: Path, target: Path) -> None:
    """The runtime's changes are in the layer alone: neither the root filesystem nor the host's view
    of the place changes, and the shim has no mount either."""
    script = f"""
        cd '{target}' && cat kept lost && rm lost && echo above >kept && mkdir made &&
        mv made moved && ls && cat kept && stat -c %a,%u,%g .
    """
    pid_of_process = rig.launch(
        runtime("/bin/sleep", "1000", before=f"({script}) >'{rig / 'seen'}' 2>&1"),
        *options(lower, target),
    )
    process = rig.running()
    assert (rig / "seen").read_text() == (
        "kept below\nlost below\nkept\nmoved\nabove\n3751,1234,2345\n"
    )
    assert sorted(os.listdir(lower)) == ["kept", "lost"]
    assert (lower / "kept").read_text() == "kept below\n"
    assert os.listdir(target) == []
    assert mounts_below(rig.path) == mounts_below(rig.path, pid_of_process) == []
    assert mounts_below(rig.path, process) == ["tmpfs", "overlay"]
    assert os.readlink(f"/proc/{rig.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")


def test_where_mounts_are_shared(rig: Rig, lower: Path, target: Path) -> None:
    """The layer stays inside even if mounts are shared between namespaces (systemd's default); an
    unmount outside also happens inside, or the file system would stay busy."""
    outer = rig / "outer"
    outer.mkdir()
    gate = Gate(rig)
    shared = ["unshare", "--mount", "--propagation", "shared", "sh", "-c"]
    script = f'mount -t tmpfs outer {outer} && exec "$@"'
    words = ["--directory", str(rig.path), *options(lower, target), "--"]
    command = runtime(*SLEEP, before=gate.wait)
    rig.launch_words([*shared, script, "sh", rig.programs.shim, *words, *command])
    gate.wait_reached()
    [inside] = children(rig.pid)
    assert mounts_below(rig.path, rig.pid) == ["tmpfs"]
    assert mounts_below(rig.path, inside) == ["tmpfs", "tmpfs", "overlay"]
    subprocess.run(["nsenter", f"--mount=/proc/{rig.pid}/ns/mnt", "umount", outer], check=True)
    assert mounts_below(rig.path, inside) == ["tmpfs", "overlay"]
    gate.open()
    rig.made()


def test_a_directory_below_can_be_renamed(rig: Rig, lower: Path, target: Path) -> None:
    """Without a redirect the kernel says EXDEV, which no program expects in one directory."""
    (lower / "directory").mkdir()
    program = f"import os; os.chdir({str(target)!r}); os.rename('directory', 'renamed')"
    rig.launch(
        runtime("/bin/true", before=f'python3 -c "{program}" || exit 3'), *options(lower, target)
    )
    rig.made()
    assert (lower / "directory").exists()


def test_the_layer_is_limited(rig: Rig, lower: Path, target: Path) -> None:
    """A write beyond the layer's size fails with *no space left*."""
    size = 64 << 10
    fill = f"head -c {2 * size} /dev/zero >'{target}/big' 2>'{rig / 'error'}'"
    after = f"{fill}; stat -c %s '{target}/big' >'{rig / 'size'}'"
    rig.launch(runtime("/bin/true", before=after), *options(lower, target, size))
    rig.made()
    assert "No space left" in (rig / "error").read_text()
    assert int((rig / "size").read_text()) == size


def test_without_a_size_it_is_the_kernels(rig: Rig, lower: Path, target: Path) -> None:
    """Zero is half of the memory, not no limit."""
    before = f"stat -f -c '%b %S' '{target}' >'{rig / 'size'}'"
    rig.launch(runtime("/bin/true", before=before), *options(lower, target))
    rig.made()
    blocks, size = map(int, (rig / "size").read_text().split())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory // 3 < blocks * size < memory


def test_in_a_user_namespace(rig: Rig, lower: Path, target: Path) -> None:
    """With ids of its own the runtime is root in a user namespace, and may mount there."""
    for path in (lower, lower / "kept", lower / "lost"):
        os.chown(path, 0, 0)
    seen = rig / "seen"
    script = f"cd '{target}' && echo above >kept && rm lost && ls && cat /proc/self/uid_map"
    rig.launch(
        runtime("/bin/true", before=f"({script}) >'{seen}' 2>&1"),
        *options(lower, target),
        *("--uids", "0 0 1", "--gids", "0 0 1"),
    )
    rig.made()
    assert seen.read_text().split() == ["kept", "0", "0", "1"]
    assert (lower / "kept").read_text() == "kept below\n"


TWO_LINES = ("--uids", "0 0 1\n1 100000 9", "--gids", "0 0 1\n1 100000 9")
NEWMAP = """#!/bin/sh
echo ${0##*/} "$@" >>SEEN
case $0 in *uidmap) map=uid_map;; *) map=gid_map;; esac
pid=$1; shift
printf '%s %s %s\\n' "$@" >/proc/$pid/$map
"""


def mappers(rig: Rig, script: str) -> dict[str, str]:
    """Return an environment in which this script is newuidmap and newgidmap."""
    directory = rig / "bin"
    directory.mkdir()
    for name in ("newuidmap", "newgidmap"):
        (directory / name).write_text(script)
        (directory / name).chmod(0o755)
    return {**rig.programs.environment, "PATH": f"{directory}:{os.environ['PATH']}"}


def test_ids_that_others_map(rig: Rig, lower: Path, target: Path) -> None:
    """More ids than the own one are mapped by newuidmap and newgidmap, from outside."""
    for path in (lower, lower / "kept", lower / "lost"):
        os.chown(path, 0, 0)
    seen = rig / "seen"
    before = f"(chown 3:4 '{target}'/kept; stat -c %u:%g '{target}'/kept; id -u) >'{seen}' 2>&1"
    env = mappers(rig, NEWMAP.replace("SEEN", str(rig / "mappers")))
    words = [*options(lower, target), *TWO_LINES]
    rig.launch(runtime("/bin/true", before=before), *words, env=env)
    rig.made()
    assert seen.read_text().split() == ["3:4", "0"]
    first, second = (rig / "mappers").read_text().splitlines()
    assert first.startswith("newuidmap ") and first.endswith(" 0 0 1 1 100000 9")
    assert second.startswith("newgidmap ") and second.endswith(" 0 0 1 1 100000 9")


@pytest.mark.parametrize("how", ["refused", "missing"])
def test_ids_that_nobody_maps(rig: Rig, lower: Path, target: Path, how: str) -> None:
    """If they refuse, or aren't there, that is the error."""
    env = mappers(rig, "#!/bin/sh\nexit 1\n")
    if how == "missing":
        env["PATH"] = "/nowhere"
    rig.launch(shell(f"touch '{rig / 'ran'}'"), *options(lower, target), *TWO_LINES, env=env)
    told = rig.refused("layer")
    assert told["errno"] == errno.EACCES
    assert told["error"].startswith("cannot have newuidmap and newgidmap map what /etc/subuid")
    assert not (rig / "ran").exists()


def test_killed_while_ids_are_mapped(rig: Rig, lower: Path, target: Path) -> None:
    """A shim that is killed while ids are mapped leaves no process that waits for the shim."""
    gate = Gate(rig)
    env = mappers(rig, f"#!/bin/bash\n{gate.wait}\n")
    rig.launch(shell("exec sleep 1000"), *options(lower, target), *TWO_LINES, env=env)
    gate.wait_reached()
    both = children(rig.pid)
    assert len(both) == 2
    STRANGERS.update(both)
    os.kill(rig.pid, signal.SIGKILL)
    wait_for(lambda: all(ended(pid) for pid in both), "both to end")
    gate.open()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lower", "/"], "--lower and --layer go together"),
        (["--layer", "0:/"], "--lower and --layer go together"),
        (["--layer", "0:x"], "--layer takes BYTES:TARGET, not 0:x"),
        (["--layer", "/x"], "--layer takes BYTES:TARGET, not /x"),
        (["--layer", "-1:/x"], "--layer takes BYTES:TARGET, not -1:/x"),
        (["--layer", "5:"], "--layer takes BYTES:TARGET, not 5:"),
        (["--layer", "9999999999999999999:/x"], "--layer takes BYTES:TARGET"),
        (["--uids", "0 0 1\n" * 3000], "too many ids"),
        (["--uids", "0 0 1"], "--uids and --gids go together, and with --layer"),
        (["--uids", "0 0 1", "--gids", "0 0 1"], "--uids and --gids go together, and with --layer"),
        (["--target", "/"], "--lower and --layer go together, or --lower and --target"),
        (["--lower", "/", "--target", "/x"], "--target goes with --lower-uids and --lower-gids"),
        (["--lower-uids", "0 0 1"], "--lower-uids and --lower-gids go together"),
        (
            ["--lower-uids", "0 0 1", "--lower-gids", "0 0 1"],
            "--lower-uids and --lower-gids go together, and with --lower",
        ),
    ],
)
def test_bad_options(rig: Rig, words: list[str], said: str) -> None:
    """Options that make no sense are refused by name."""
    rig.launch(["/bin/true"], *words)
    assert rig.refused("options")["error"].startswith(said)


@pytest.mark.parametrize("at_fault", ["no lower", "lower", "target"])
def test_a_layer_that_cannot_be(rig: Rig, lower: Path, target: Path, at_fault: str) -> None:
    """A mount that fails is named, with the errno; the runtime isn't run."""
    if at_fault == "no lower":
        shutil.rmtree(lower)
    elif at_fault == "lower":
        lower = lower / "kept"
    else:
        target.rmdir()
    rig.launch(shell(f"touch '{rig / 'ran'}'"), *options(lower, target))
    told = rig.refused("layer")
    number, said = {
        "no lower": (errno.ENOENT, f"cannot open the root file system {lower}: No such file"),
        "lower": (errno.ENOTDIR, f"cannot open the root file system {lower}: Not a directory"),
        "target": (errno.ENOENT, f"cannot mount a tmpfs at {target}: No such file"),
    }[at_fault]
    assert told["errno"] == number
    assert told["error"].startswith(said)
    assert not (rig / "ran").exists()


@pytest.mark.parametrize("programs", ["release"], indirect=True)
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("unshare:error=ENOSPC:when=1", "cannot make a mount namespace for "),
        ("mount:error=ENOMEM:when=1", "cannot have mounts of our own for "),
        ("mount:error=ENOMEM:when=2", "cannot mount a tmpfs at "),
        ("mount:error=ENODEV:when=3", "cannot mount an overlay at "),
        ("/mkdir:error=ENOSPC:when=1", "cannot make directories in the layer at "),
        ("/mkdir:error=ENOSPC:when=2", "cannot make directories in the layer at "),
        ("/chown:error=EPERM:when=1", "cannot make directories in the layer at "),
        ("/chmod:error=EPERM:when=1", "cannot make directories in the layer at "),
    ],
)
def test_each_call_may_fail(rig: Rig, lower: Path, target: Path, call: str, said: str) -> None:
    """Whichever step fails, the report says which one, and nothing stays mounted."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    trace = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}"]
    words = ["--directory", str(rig.path), *options(lower, target), "--", "/bin/true"]
    rig.launch_words([*trace, rig.programs.shim, *words])
    told = rig.refused("layer")
    assert told["error"].startswith(f"{said}{target}: ")
    assert told["errno"] == getattr(errno, call.partition("error=")[2].partition(":")[0])
    assert mounts_below(rig.path) == []
    assert stat.S_IMODE(target.stat().st_mode) & 0o700 == 0o700


def test_whoever_may_not_mount(rig: Rig, lower: Path, target: Path) -> None:
    """Without the capability the error is the kernel's, not a runtime without a root filesystem."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed (apt-get install util-linux)")
    words = ["--directory", str(rig.path), *options(lower, target), "--", "/bin/true"]
    rig.launch_words([setpriv, "--bounding-set=-sys_admin", rig.programs.shim, *words])
    assert rig.refused("layer")["errno"] == errno.EPERM
