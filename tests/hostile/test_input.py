"""Hostile input: ids, paths, roots and bundles are refused with a clear error, or contained."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import (
    PIPE,
    Bundle,
    BundleInvalid,
    ContainerNotFound,
    InvalidValue,
    ProgramNotExecutable,
    ProgramNotFound,
    RuntimeFailed,
    SupervisorError,
)
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.bundle_configs import Place, name, places, replaced, value_at, without
from tests.support.containers import left
from tests.support.runtimes import needs_root

pytestmark = pytest.mark.runtimes("crun")


fake_only = pytest.mark.runtimes("fake")


TEST_SECONDS = 30.0


UGLY = {
    "above": "../a",
    "slash": "a/b",
    "absolute": "/a",
    "NUL": "a\0b",
    "newline": "a\nb",
    "long": "a" * 300,
    "not UTF-8": os.fsdecode(b"a\xff\xfe"),
    "surrogate": "a\ud800",
}


@fake_only
@pytest.mark.parametrize("ugly", UGLY.values(), ids=list(UGLY))
async def test_ids(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, ugly: str, nothing_left: NothingLeft
) -> None:
    """No id is ever a path: bad ids of containers and execs are refused, unknown ones not found."""
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        before = sorted(path for path, _, _ in os.walk(root.parent))
        with pytest.raises(InvalidValue):
            await sup.create(ugly, bundle("true"))
        with pytest.raises(InvalidValue):
            await a.exec(["true"], id=ugly)
        with pytest.raises(ContainerNotFound):
            sup[ugly]
        assert ugly not in sup
        found = sorted(path for path, _, _ in os.walk(root.parent))
        assert [path for path in found if "bundle-" not in path] == [
            path for path in before if "bundle-" not in path
        ]
    await nothing_left()


@fake_only
@pytest.mark.parametrize("ugly", UGLY.values(), ids=list(UGLY))
async def test_paths(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    workdir: Path,
    ugly: str,
    nothing_left: NothingLeft,
) -> None:
    """Whatever a path contains, a supervisor's root works or is refused, and so do bundles, streams
    and working directories; no other exception is ever raised."""
    inside = f"{workdir}/x/y"
    os.makedirs(inside)
    path = os.path.join(inside, ugly)
    with pytest.raises((InvalidValue, BundleInvalid)):
        Bundle.load(path)
    async with supervisor(workdir / "root") as sup:
        for argument in ("stdout", "stdin", "checkpoint", "cwd"):
            arguments: dict[str, Any] = {argument: path}
            try:
                box = await sup.create("a", bundle("true"), **arguments)
            except (SupervisorError, FileNotFoundError):
                pass
            except OSError as error:
                assert error.errno == errno.ENAMETOOLONG, arguments
            else:
                await box.delete(force=True)
            assert left(workdir / "root") == [], arguments
    await nothing_left()
    path = os.path.join(f"{workdir}/x", ugly)
    try:
        async with supervisor(path) as sup:
            made = await sup.create("a", bundle("true"))
            await made.delete(force=True)
    except InvalidValue:
        pass
    except OSError as error:
        assert error.errno == errno.ENAMETOOLONG
    known = {"x", "root", *(one.name for one in workdir.glob("bundle-*"))}
    assert set(os.listdir(workdir)) <= known | {"a"}


@fake_only
async def test_root_is_a_symlink(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path
) -> None:
    """A root that is a symlink is the directory that the link leads to, by whatever name it is
    opened; changing the link later moves nothing."""
    real, link, other = workdir / "real", workdir / "link", workdir / "other"
    real.mkdir(mode=0o711)
    other.mkdir(mode=0o711)
    link.symlink_to(real)
    async with supervisor(link) as sup:
        assert sup.root == str(real)
        async with await sup.create("a", bundle("sleep", "60")) as a:
            link.unlink()
            link.symlink_to(other)
            await a.start()
            async with supervisor(real) as beside:
                assert beside["a"].foreign
            async with supervisor(link) as elsewhere:
                assert list(elsewhere) == []
    assert left(real) == [] and left(other) == []


@fake_only
async def test_root_that_leads_nowhere(supervisor: OpenSupervisor, workdir: Path) -> None:
    """A root that is a dangling symlink, or a loop, is refused."""
    (workdir / "dangling").symlink_to("nowhere")
    (workdir / "loop").symlink_to("loop")
    for link in ("dangling", "loop"):
        with pytest.raises(InvalidValue):
            async with supervisor(workdir / link):
                raise AssertionError("it was opened")
    assert not (workdir / "nowhere").exists()


@fake_only
@needs_root
@pytest.mark.parametrize("through", ["itself", "a symlink"])
@pytest.mark.parametrize(("mode", "uid"), [(0o777, 0), (0o1777, 0), (0o731, 0), (0o711, 1000)])
async def test_root_of_others(
    supervisor: OpenSupervisor, workdir: Path, mode: int, uid: int, through: str
) -> None:
    """A root that others may write to, or that belongs to another user, is refused and left
    alone."""
    real = workdir / "real"
    real.mkdir()
    real.chmod(mode)
    os.chown(real, uid, uid)
    (workdir / "link").symlink_to(real)
    with pytest.raises(InvalidValue, match="root"):
        async with supervisor(real if through == "itself" else workdir / "link"):
            raise AssertionError("it was opened")
    status = real.stat()
    assert (status.st_mode & 0o7777, status.st_uid, os.listdir(real)) == (mode, uid, [])


@pytest.fixture
def own_rootfs(rootfs: Path, workdir: Path) -> Path:
    """A root filesystem that a test may spoil."""
    path = workdir / "rootfs"
    shutil.copytree(rootfs, path, symlinks=True)
    path.chmod(0o755)
    return path


@pytest.mark.runtimes("crun", "runc")
@pytest.mark.parametrize("place", ["proc", "tmp", "etc", "mnt/data", "itself"])
async def test_rootfs_escapes(
    supervisor: OpenSupervisor,
    workdir: Path,
    root: Path,
    own_rootfs: Path,
    place: str,
    nothing_left: NothingLeft,
) -> None:
    """A symlink in a root filesystem, in the way of what runtimes mount and make, leads nowhere
    outside: it is refused, or followed inside. A root that is a symlink itself is the link's
    target."""
    outside = workdir / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    where = own_rootfs
    if place == "itself":
        where = workdir / "entrance"
        where.symlink_to(own_rootfs)
    else:
        doomed = own_rootfs / place.partition("/")[0]
        shutil.rmtree(doomed, ignore_errors=True)
        doomed.symlink_to("../" * 20 + str(outside).lstrip("/"))
    data = workdir / "data"
    data.mkdir()
    mounts: list[dict[str, Any]] = [
        {"destination": "/mnt/data", "type": "bind", "source": str(data), "options": ["bind"]},
        {"destination": "/etc/extra", "type": "tmpfs", "source": "tmpfs"},
    ]
    script = f"cat {outside}/secret /etc/secret /tmp/secret; echo x > /tmp/made; exit 3"
    bundle = Bundle.from_rootfs(where, ["sh", "-c", script], path=workdir / "b", mounts=mounts)
    with trio.fail_after(TEST_SECONDS):
        async with supervisor(root) as sup:
            try:
                box = await sup.create("a", bundle, stdout=PIPE)
            except RuntimeFailed:
                pass
            else:
                await box.start()
                assert (await box.wait()).code == 3
                assert box.stdout is not None and await box.stdout.receive_some() == b""
                await box.delete()
            await nothing_left()
    assert os.listdir(outside) == ["secret"]


def _valid(rootfs: Path) -> dict[str, Any]:
    """Return a config.json that a runtime really runs, with a bit of everything."""
    spec = copy.deepcopy(Bundle.from_rootfs(rootfs, ["sh"], memory_bytes=64 << 20, pids=32).spec)
    spec["process"] |= {
        "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [5]},
        "oomScoreAdj": 100,
    }
    spec |= {"annotations": {"org.example": "yes"}, "hooks": {"poststop": []}}
    spec["hooks"]["poststop"] = [{"path": "/bin/true", "args": ["true"], "env": ["A=b"]}]
    spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "0"}
    spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    return spec


SAMPLES: tuple[Any, ...] = (None, True, 5, -(2**70), 1.5, "text", "", [], [{}], {}, {"k": None})


def _spoiled(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for place in places(spec):
        if _is_dangerous(spec, place):
            continue
        yield f"without {name(place)}", without(copy.deepcopy(spec), place)
        for sample in SAMPLES:
            if sample != value_at(spec, place):
                yield (
                    f"{name(place)} = {sample!r}",
                    replaced(copy.deepcopy(spec), place, copy.deepcopy(sample)),
                )


def _is_dangerous(spec: dict[str, Any], place: Place) -> bool:
    """Whether a valid config without this part would, as ordered, change the host's own mounts or
    network settings: that isn't hostile input, and a test must not do it."""
    return place[:1] == ("linux",) and (len(place) == 1 or place[1] in ("namespaces", "sysctl"))


async def test_config(
    supervisor: OpenSupervisor,
    workdir: Path,
    root: Path,
    own_rootfs: Path,
    request: pytest.FixtureRequest,
    nothing_left: NothingLeft,
) -> None:
    """A config.json of which any part is missing or another JSON value makes a container, or is
    refused by name; no other exception is ever raised, and nothing is left."""
    path = workdir / "spoiled"
    path.mkdir()
    valid = _valid(own_rootfs)
    stride = 1 if request.config.getoption("--long", default=False) else 10
    made = refused = 0
    async with supervisor(root) as sup:
        for what, spec in itertools.islice(_spoiled(valid), 0, None, stride):
            (path / "config.json").write_text(json.dumps(spec))
            try:
                Bundle.load(path)
            except BundleInvalid:
                refused += 1
                continue
            with trio.fail_after(TEST_SECONDS):
                try:
                    box = await sup.create("a", path)
                except (BundleInvalid, InvalidValue):
                    refused += 1
                except (RuntimeFailed, ProgramNotFound, ProgramNotExecutable):
                    pass
                else:
                    made += 1
                    await box.delete(force=True)
            assert left(root) == [] and list(sup) == [] and not sup.broken, what
        await nothing_left()
    assert refused > 50 and made > 5
