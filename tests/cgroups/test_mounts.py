"""The mount of a cgroup hierarchy that counts, and the kernel's names for the groups inside."""

from __future__ import annotations

from supervisor.cgroups._mounts import Mount, choose, parse

PIDS = "31 25 0:27 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids"
READ_ONLY = "40 25 0:27 / /srv/look ro,relatime - cgroup cgroup rw,pids"
ELSEWHERE = "41 25 0:27 / /srv/write rw,relatime - cgroup cgroup rw,pids"
BOUND = "50 31 0:27 /docker/1a /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids"
UNIFIED = "32 25 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
OTHER = "33 25 0:5 / /dev rw - devtmpfs dev rw"


def chosen(*lines: str) -> list[Mount]:
    """Return the mount that is chosen from a mount table that is all visible."""
    return choose(parse(lines), lambda _: True)


def test_a_read_only_mount_elsewhere_changes_nothing() -> None:
    """A read-only mount elsewhere changes nothing: once root passed no cgroupsPath then, and
    containers of one id shared a cgroup."""
    for table in ([PIDS, READ_ONLY], [READ_ONLY, PIDS]):
        assert [mount.point for mount in chosen(*table)] == ["/sys/fs/cgroup/pids"]


def test_the_usual_place_comes_first() -> None:
    """The usual place comes first, because runtimes make cgroups there."""
    assert [mount.point for mount in chosen(ELSEWHERE, PIDS)] == ["/sys/fs/cgroup/pids"]
    assert [mount.point for mount in chosen(ELSEWHERE, READ_ONLY)] == ["/srv/write"]
    assert [mount.read_only for mount in chosen(READ_ONLY, OTHER)] == [True]


def test_what_another_mount_hides_is_not_chosen() -> None:
    """A hierarchy that another mount hides isn't chosen: a part of it is bound over the whole, and
    the kernel names processes from above."""
    (mount,) = chosen(PIDS, BOUND)
    assert mount.path_of("/a/b") == "/docker/1a/a/b"
    assert chosen(PIDS)[0].path_of("/a/b") == "/a/b"
    assert choose(parse([PIDS]), lambda _: False) == []


def test_lines_are_matched_by_hierarchy() -> None:
    """A line of /proc/PID/cgroup counts for the hierarchy with the same controllers."""
    pids, unified = chosen(PIDS, UNIFIED)
    assert pids.is_of("pids") and not pids.is_of("cpu") and not pids.is_of("")
    assert unified.is_of("") and not unified.is_of("pids")
