"""Bundles that we make, run by the real runtimes: what they promise holds inside."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from supervisor.bundle import Bundle
from supervisor.spec import Mount
from tests.support.bundle_running import SECONDS, Runner, cgroup_mounts

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may limit here")

STATUS = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"


def shell(busybox: Path, script: str, **keywords: object) -> Bundle:
    return Bundle.from_rootfs(busybox, ["sh", "-c", script], **keywords)  # type: ignore[arg-type]


def test_what_is_printed_and_how_it_ends(runner: Runner, busybox: Path) -> None:
    """A bundle runs the program with the arguments, and ends with the program's exit code."""
    done = runner.run(Bundle.from_rootfs(busybox, ["sh", "-c", 'echo "$0|$1"; exit 7', "a b", ""]))
    assert (done.returncode, done.stdout) == (7, "a b|\n")


def test_no_privilege_is_held_or_gained(runner: Runner, busybox: Path) -> None:
    """The program has three capabilities, can't get more, and can't gain any by a setuid file."""
    words = runner.output(shell(busybox, STATUS)).split()
    found = dict(zip(words[::2], words[1::2], strict=True))
    few = f"{1 << 29 | 1 << 10 | 1 << 5:016x}"  # CAP_AUDIT_WRITE, CAP_NET_BIND_SERVICE, CAP_KILL
    none = "0" * 16
    assert found == {
        "CapInh:": none,
        "CapPrm:": few,
        "CapEff:": few,
        "CapBnd:": few,
        "CapAmb:": none,
        "NoNewPrivs:": "1",
    }


@pytest.mark.parametrize("path", ["/", "/etc", "/proc/sys/kernel", "/sys"])
def test_the_root_filesystem_is_read_only(runner: Runner, busybox: Path, path: str) -> None:
    """Nothing of the image or of the host's kernel can be written."""
    done = runner.run(shell(busybox, f"touch {path}/file"))
    assert done.returncode != 0
    assert "touch" in done.stderr
    assert not (busybox / "file").exists()


def test_private_directories_are_writable(runner: Runner, busybox: Path) -> None:
    """/tmp, /run and /dev/shm are the container's own, and every user inside can write to /tmp."""
    script = "for d in /tmp /run /dev/shm; do ls -A $d; touch $d/x; done; stat -c %a /tmp"
    assert runner.output(shell(busybox, script)) == "1777\n"
    assert os.listdir(busybox / "tmp") == []


def test_direct_writes_in_the_root_filesystem(
    runner: Runner, busybox: Path, tmp_path: Path
) -> None:
    """With ``writable="direct"`` the program writes to the image."""
    subprocess.run(["cp", "-a", str(busybox), str(tmp_path / "image")], check=True)
    runner.output(shell(tmp_path / "image", "echo x > /file; echo y > /tmp/y", writable="direct"))
    assert (tmp_path / "image/file").read_text() == "x\n"
    assert (tmp_path / "image/tmp/y").read_text() == "y\n"


def test_the_kernels_secrets_are_masked(runner: Runner, busybox: Path) -> None:
    """Files of the kernel that show or change the host are empty or read-only."""
    script = "cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls -A /sys/firmware | wc -l"
    assert runner.output(shell(busybox, script)) == "0\n0\n"


def test_devices_are_few(runner: Runner, busybox: Path) -> None:
    """/dev is the container's own, with the harmless devices only."""
    script = "ls /dev; echo x > /dev/null; head -c 1 /dev/urandom > /dev/zero"
    names = set(runner.output(shell(busybox, script)).split())
    assert {"full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "zero"} <= names
    assert not {"kmsg", "mem", "sda", "vda"} & names


def test_processes_are_its_own(runner: Runner, busybox: Path) -> None:
    """The program is process 1 and sees no other."""
    assert runner.output(shell(busybox, "echo $$; ls -d /proc/[0-9]* | wc -l")).split()[0] == "1"


def test_no_network(runner: Runner, busybox: Path) -> None:
    """By default there is a loopback, which is up, and nothing else."""
    script = "ls /sys/class/net; cat /sys/class/net/lo/flags"
    name, flags = runner.output(shell(busybox, script)).split()
    assert name == "lo"
    assert int(flags, 16) & 1


def test_the_hosts_network(runner: Runner, busybox: Path) -> None:
    """With ``network="host"`` the container sees the host's interfaces."""
    seen = runner.output(shell(busybox, "ls /sys/class/net", network="host"))
    assert sorted(seen.split()) == sorted(os.listdir("/sys/class/net"))


@pytest.mark.parametrize(("hostname", "seen"), [(None, "container"), ("box-1", "box-1")])
def test_hostnames(runner: Runner, busybox: Path, hostname: str | None, seen: str) -> None:
    """The container has the name that was asked for."""
    assert runner.output(shell(busybox, "hostname", hostname=hostname)) == f"{seen}\n"


@needs_root
@pytest.mark.parametrize(
    ("user", "seen"), [(None, "0:0"), (5, "5:5"), ("web", "33:44"), ((7, 8), "7:8")]
)
def test_users(
    runner: Runner, busybox: Path, user: int | str | tuple[int, int] | None, seen: str
) -> None:
    """The program runs as the requested user; only root keeps a capability."""
    script = f'echo "$(id -u):$(id -g)"; {STATUS}; touch /tmp/x'
    ids, *status = runner.output(shell(busybox, script, user=user)).splitlines()
    assert ids == seen
    effective = next(line for line in status if line.startswith("CapEff"))
    assert (int(effective.split()[1], 16) == 0) == (user is not None)


def test_the_environment_and_the_directory(runner: Runner, busybox: Path) -> None:
    """The program has the given variables and working directory, and none of our variables."""
    bundle = shell(busybox, "pwd; env", env={"A": "b c"}, cwd="/etc")
    directory, *entries = runner.output(bundle).splitlines()
    assert directory == "/etc"
    names = {entry.partition("=")[0] for entry in entries}
    assert "A=b c" in entries
    assert {"A", "HOME", "PATH"} <= names <= {"A", "HOME", "PATH", "PWD", "SHLVL", "OLDPWD"}


def test_open_files_are_limited(runner: Runner, busybox: Path) -> None:
    """A supervisor's own limit of open files isn't handed on."""
    assert runner.output(shell(busybox, "ulimit -Sn; ulimit -Hn")).split() == ["1024", "4096"]


def test_mounts(runner: Runner, busybox: Path, tmp_path: Path) -> None:
    """A read-only mount can be read; a writable one written; a file mounts like a directory."""
    for name in ("shown", "given"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    tmp_path.chmod(0o755)
    bundle = shell(
        busybox,
        "cat /tmp/a/file /tmp/b/file /tmp/f; echo; echo new > /tmp/b/file; touch /tmp/a/x /tmp/f",
        mounts=[
            Mount(tmp_path / "shown", "/tmp/a"),
            Mount(tmp_path / "given", "/tmp/b", read_only=False),
            Mount(tmp_path / "shown/file", "/tmp/f"),
        ],
    )
    done = runner.run(bundle)
    assert done.stdout == "showngivenshown\n"
    assert done.stderr.count("Read-only file system") == 2
    assert (tmp_path / "given/file").read_text() == "new\n"
    assert os.listdir(tmp_path / "shown") == ["file"]


@needs_root
def test_a_mount_inside_a_read_only_one_is_read_only(
    runner: Runner, busybox: Path, tmp_path: Path
) -> None:
    """A mount inside a read-only mount is read-only too; a plain ``ro`` would leave it writable."""
    (tmp_path / "inner").mkdir()
    bundle = shell(busybox, "touch /tmp/a/inner/x", mounts=[Mount(tmp_path, "/tmp/a")])
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path / "inner")], check=True)
    try:
        done = runner.run(bundle)
    finally:
        subprocess.run(["umount", str(tmp_path / "inner")], check=True)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


# ---- limits ---------------------------------------------------------------------------


def read_cgroup(*names: str) -> str:
    """A script that prints the first of these files that the hierarchies here have."""
    paths = [f"/sys/fs/cgroup/{name}" for name in names]
    return f"cat {' '.join(paths)} 2>/tmp/none; true"


@needs_root
def test_limits_are_set(runner: Runner, busybox: Path) -> None:
    """A container can read its limits in its own cgroup."""
    script = ";".join(
        (
            read_cgroup("memory.max", "memory/memory.limit_in_bytes"),
            read_cgroup("pids.max", "pids/pids.max"),
            read_cgroup("cpu.max", "cpu/cpu.cfs_quota_us"),
            "touch /sys/fs/cgroup/pids/x /sys/fs/cgroup/x 2>/tmp/err; ls /sys/fs/cgroup/*/x",
        )
    )
    done = runner.run(shell(busybox, script, memory_bytes=32 << 20, pids=9, cpus=0.5))
    assert done.stdout.split()[:3] == [str(32 << 20), "9", "50000"]
    assert "/sys/fs/cgroup/*/x" in done.stderr


@needs_root
def test_too_many_processes_are_refused(runner: Runner, busybox: Path) -> None:
    """The limit of processes holds, with the program included.

    With a limit as low as three, runc may have no threads left.
    """
    script = "for n in $(seq 15); do sleep 60 & done; echo started"
    assert "started" in runner.output(shell(busybox, script, pids=16))
    assert "fork" in runner.run(shell(busybox, script, pids=15)).stderr


@needs_root
def test_too_much_memory_is_fatal(runner: Runner, busybox: Path) -> None:
    """A program that uses more memory than the limit is killed, also if the memory is files in
    /tmp."""
    bundle = Bundle.from_rootfs(busybox, ["tail", "/dev/zero"], memory_bytes=32 << 20)
    assert runner.run(bundle).returncode == 128 + 9
    script = "dd if=/dev/zero of=/tmp/x bs=1M count=64"
    assert runner.run(shell(busybox, f"exec {script}", memory_bytes=32 << 20)).returncode == 137


# ---- init -----------------------------------------------------------------------------


def test_init_reaps_orphans(runner: Runner, busybox: Path) -> None:
    """With an init, an orphan that ends is reaped."""
    script = """
        (sh -c 'echo $$ > /tmp/orphan' &)
        until [ -s /tmp/orphan ]; do :; done
        while [ -d /proc/$(cat /tmp/orphan) ]; do :; done
        echo "reaped by $(cat /proc/1/comm)"
    """
    assert runner.output(shell(busybox, script, init=True)) == "reaped by init\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("nowhere", 127)]
)
def test_init_ends_as_the_program_ends(
    runner: Runner, busybox: Path, script: str, code: int
) -> None:
    """With an init, the exit code is the program's, or 128 plus the signal that killed the
    program."""
    assert runner.run(shell(busybox, script, init=True)).returncode == code


def test_init_says_what_it_cannot_run(runner: Runner, busybox: Path) -> None:
    """A missing program is named, and the exit code is the shell's for that."""
    done = runner.run(Bundle.from_rootfs(busybox, ["nowhere"], init=True))
    assert done.returncode == 127
    assert "can't run nowhere: No such file or directory" in done.stderr


SLEEP = "echo ready; exec sleep 1000"


def test_init_hands_signals_on(runner: Runner, busybox: Path) -> None:
    """With an init, SIGTERM ends a program without a handler at once."""
    with runner.running(shell(busybox, SLEEP, init=True)) as (name, process):
        runner.kill(name, "TERM")
        assert process.wait(timeout=SECONDS) == 128 + 15


def test_without_init_sigterm_is_ignored(runner: Runner, busybox: Path) -> None:
    """Without an init, the kernel drops a SIGTERM to process 1: only the later SIGKILL ends the
    program."""
    with runner.running(shell(busybox, SLEEP)) as (name, process):
        runner.kill(name, "TERM")
        runner.kill(name, "KILL")
        assert process.wait(timeout=SECONDS) == 128 + 9


# ---- the host's programs ----------------------------------------------------------------


def test_the_hosts_programs_run(runner: Runner) -> None:
    """A program of the host runs with the libraries that the program needs, and names the users."""
    seen = runner.output(Bundle.from_host(["id", "-un"], init=True))
    assert seen == "root\n"


def test_the_host_is_hidden(runner: Runner) -> None:
    """Of the host there is /usr and a little of /etc; homes, data and secrets aren't there."""
    top, etc = runner.output(
        Bundle.from_host(
            ["sh", "-c", "ls -A / | tr '\n' ' '; echo; ls -A /etc /root | tr '\n' ' '"]
        )
    ).splitlines()
    known = "bin dev etc lib lib32 lib64 libx32 proc root run sbin sys tmp usr var"
    assert set(top.split()) <= set(known.split())
    assert {"passwd", "group"} <= set(etc.split())
    assert not {"shadow", "hosts", "resolv.conf", "ssh", ".bashrc"} & set(etc.split())


@pytest.mark.parametrize("path", ["/", "/usr", "/etc", "/etc/passwd", "/usr/bin/env"])
def test_the_host_cannot_be_written(runner: Runner, path: str) -> None:
    """Nothing of what is shown of the host can be written, by root either."""
    done = runner.run(Bundle.from_host(["sh", "-c", f"test -d {path} && set -- x; : >>{path}/$1"]))
    assert done.returncode != 0
    done = runner.run(Bundle.from_host(["chmod", "700", path]))
    assert "Read-only file system" in done.stderr


def test_the_hosts_network_with_its_names(runner: Runner) -> None:
    """With the host's network, the resolver's configuration is there."""
    if not os.path.exists("/etc/resolv.conf"):
        pytest.skip("this host has no /etc/resolv.conf")
    seen = runner.output(Bundle.from_host(["cat", "/etc/resolv.conf"], network="host"))
    assert seen == Path("/etc/resolv.conf").read_text()


def test_a_container_outlives_its_temporary_bundle(runner: Runner) -> None:
    """Closing the bundle doesn't take /usr away from a running container of the bundle.

    Removing a directory on which something is mounted elsewhere unmounts it there: a container that
    ran on the bundle's own directory lost every program.
    """
    script = "echo ready; until [ -e /tmp/go ]; do :; done; ls /usr > /dev/null && echo whole"
    with (
        Bundle.from_host(["sh", "-c", script]) as bundle,
        runner.running(bundle) as (name, process),
    ):
        bundle.close()
        assert not os.path.exists(bundle.path)
        went = runner.call("exec", name, "touch", "/tmp/go")
        # The program may end, and the whole namespace with the program, before touch has.
        assert went.returncode in (0, 128 + 9), went
        out, _ = process.communicate(timeout=SECONDS)
        assert out == "whole\n"


def test_cgroups_are_gone(runner: Runner, busybox: Path) -> None:
    """After a run, all cgroups of the run can be removed."""
    runner.output(shell(busybox, "true"))
    runner.remove_cgroups()
    assert not [mount for mount in cgroup_mounts() if os.path.exists(f"{mount}/{runner.parent}")]
