"""Root's containers with user namespaces, with the real runtimes.

Stdin is a pipe here: crun gives a container's standard streams to the container's root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from supervisor import (
    PIPE,
    Bundle,
    Container,
    ContainerPool,
    IdsExhausted,
    InvalidValue,
    Mount,
    ShimError,
    Supervisor,
    UserNamespace,
)
from supervisor.bundle import content_of
from supervisor.state import _id_claims
from supervisor.state._id_claims import LINK
from supervisor.userns import _choice
from supervisor.userns._ranges import SIZE, Blocks
from tests.conftest import OpenSupervisor
from tests.support.containers import left
from tests.support.runtimes import needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

FIRST = 1_879_048_192


@pytest.fixture(autouse=True)
def claims(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Claims of the test's own; none may be left."""
    monkeypatch.setattr(_id_claims, "DIRECTORY", str(workdir / "ids"))
    return workdir / "ids"


@pytest.fixture
def image(rootfs: Path, workdir: Path) -> Path:
    """A root filesystem that only the owner can reach, with files of root and of another user."""
    (workdir / "private").mkdir(mode=0o700)
    path = workdir / "private/image"
    subprocess.run(["cp", "-a", str(rootfs), str(path)], check=True)
    (path / "secret").write_text("kept\n")
    (path / "secret").chmod(0o600)
    (path / "users").write_text("its\n")
    os.chown(path / "users", 1000, 1001)
    return path


async def made(sup: Supervisor, bundle: Bundle, name: str = "a", **options: Any) -> Container:
    box = await sup.create(name, bundle, args=["sleep", "600"], stdin=PIPE, **options)
    await box.start()
    return box


async def output(box: Container, script: str) -> str:
    done = await box.run(["sh", "-c", script], stdin=b"", capture_stdout=True)
    assert done.stdout is not None
    return done.stdout.decode()


def mapped(pid: int) -> int:
    """Return the host's uid of the root of a process's user namespace."""
    return int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])


@pytest.mark.parametrize("writable", [None, "direct", "overlay"])
async def test_the_root_filesystem_is_mapped(
    supervisor: OpenSupervisor, image: Path, root: Path, writable: str | None
) -> None:
    """Root inside reads root's files, also where the host lets no other user through; owners are as
    in the image, and on the host new files belong to the same owner as without a namespace."""
    spec = Bundle.from_rootfs(image, ["sh"], userns="auto", writable=writable)
    async with supervisor(root) as sup:
        async with await made(sup, spec) as box:
            assert box.pid is not None and FIRST <= mapped(box.pid) < 2**31
            assert os.stat(f"/proc/{box.pid}").st_uid == mapped(box.pid)
            assert await output(box, "cat /secret; /bin/busybox stat -c %u:%g /secret /users") == (
                "kept\n0:0\n1000:1001\n"
            )
            said = await output(box, "echo x >/new 2>/dev/null && cat /new || echo refused")
            assert said == ("refused\n" if writable is None else "x\n")
        assert left(root) == []
    assert (image / "new").exists() == (writable == "direct")
    if writable == "direct":
        assert os.stat(image / "new").st_uid == 0


async def test_what_root_alone_may_read_of_the_host(
    supervisor: OpenSupervisor, workdir: Path
) -> None:
    """The host's files look like those of the user ``nobody``: 0600 is closed, and no file can be
    changed."""
    given = workdir / "given"
    given.mkdir()
    (given / "secret").write_text("hidden\n")
    (given / "secret").chmod(0o600)
    (given / "open").write_text("seen\n")
    for userns, seen in (("auto", "seen\n"), ("none", "hidden\nseen\n")):
        mounts = [Mount(given, "/data", read_only=False)]
        spec = Bundle.from_host(["sh"], userns=userns, mounts=mounts)
        async with supervisor() as sup, await made(sup, spec) as box:
            assert await output(box, "cat /data/secret /data/open 2>/dev/null; :") == seen
            if userns == "auto":
                script = "chmod 777 /data/open; echo x >/data/new; chown 0 /data/open; :"
                await output(box, f"({script}) 2>/dev/null; :")
    assert set(os.listdir(given)) == {"secret", "open"}
    assert (given / "open").stat().st_mode & 0o777 == 0o644


async def test_two_containers_are_nothing_to_one_another(
    supervisor: OpenSupervisor, image: Path, root: Path
) -> None:
    """Each container has ids of its own: neither may signal the other's processes, even if visible,
    nor open the other's streams. The supervisor's files are closed to both."""
    spec = Bundle.from_rootfs(image, ["sh"], userns="auto")
    async with supervisor(root) as sup:
        async with await made(sup, spec, "a") as one, await made(sup, spec, "b") as two:
            assert one.pid is not None and two.pid is not None
            first, second = mapped(one.pid), mapped(two.pid)
            assert abs(first - second) >= SIZE
            as_first = {"user": first, "group": first, "extra_groups": []}
            kill = subprocess.run(
                ["sh", "-c", f"kill {two.pid}"], stderr=subprocess.PIPE, check=False, **as_first
            )
            assert kill.returncode != 0 and b"not permitted" in kill.stderr.lower()
            fifo, state = root / "b/init/stdin", root / "b/state.json"
            assert os.stat(fifo).st_uid == second
            for path in (fifo, state):
                command = ["test", "-r", path, "-o", "-w", path]
                done = subprocess.run(command, check=False, **as_first)
                assert done.returncode != 0, path


async def test_every_operation(
    supervisor: OpenSupervisor, image: Path, workdir: Path, root: Path, claims: Path
) -> None:
    """Create, exec as another user, a terminal, an init, the host's network, cgroups and a
    delete."""
    for network in ("none", "host"):
        spec = Bundle.from_rootfs(
            image, ["sh"], userns="auto", init=True, network=network, memory_bytes=64 << 20, pids=50
        )
        async with supervisor(root) as sup:
            async with await made(sup, spec, stdout=PIPE, stderr=PIPE) as box:
                assert await output(box, "cat /proc/1/comm; ls -d /sys/fs/cgroup /sys/class") == (
                    "init\n/sys/class\n/sys/fs/cgroup\n"
                )
                process = await box.exec(["sh", "-c", "read x; test $x = it"], terminal=True)
                async with await process.attach() as terminal:
                    await terminal.send_all(b"it\n")
                    assert (await process.wait()).code == 0
                assert not (await box.stop(grace=10)).escalated
            assert left(root) == [] and os.listdir(claims) == []
    spec = Bundle.from_rootfs(image, ["sh"], userns="auto", user=1000)
    async with supervisor(root) as sup, await made(sup, spec) as box:
        assert await output(box, "/bin/busybox id -u; cat /users") == "1000\nits\n"


async def test_pools(supervisor: OpenSupervisor, image: Path) -> None:
    """Containers that wait behind a gate have ids of their own, too."""
    spec = Bundle.from_rootfs(image, ["sh"], userns="auto")
    async with supervisor() as sup, ContainerPool(spec, size=2, supervisor=sup) as pool:
        done = await pool.run(["cat", "/proc/self/uid_map"])
        assert done.stdout is not None and int(done.stdout.split()[1]) >= FIRST


async def test_explicit_mappings(supervisor: OpenSupervisor, image: Path) -> None:
    """Given ids are used; a tree that belongs to these ids is shown unchanged."""
    ids = UserNamespace(uids=[(0, 400000, 2000)], gids=[(0, 500000, 2000)])
    spec = Bundle.from_rootfs(image, ["sh"], userns=ids, writable="direct")
    script = "/bin/busybox stat -c %u:%g /secret; echo x >/new; cat /proc/self/gid_map"
    async with supervisor() as sup, await made(sup, spec) as box:
        assert (await output(box, script)).split() == ["0:0", "0", "500000", "2000"]
    assert os.stat(image / "new").st_uid == 0
    image.parent.chmod(0o711)  # without a mount of the image, root inside has to get there
    subprocess.run(["chown", "-Rh", "400000:500000", str(image)], check=True)
    async with supervisor() as sup, await made(sup, spec) as box:
        assert (await output(box, script)).split() == ["0:0", "0", "500000", "2000"]
    assert os.stat(image / "new").st_uid == 400000


async def test_a_file_system_that_cannot_be_mapped(supervisor: OpenSupervisor, root: Path) -> None:
    """There is never a wrong owner: the error says what is missing, and what to do."""
    spec = Bundle.from_rootfs("/sys/kernel", ["sh"], userns="auto")
    async with supervisor(root) as sup:
        with pytest.raises(ShimError, match=r"other ids\. Use userns=\"none\"; or chown the tree"):
            await sup.create("a", spec)
        assert left(root) == [] and not sup.broken


async def test_all_are_taken(
    supervisor: OpenSupervisor, image: Path, root: Path, claims: Path, monkeypatch: Any
) -> None:
    """When no range is left, a create says so; a delete by any supervisor makes room."""
    few = Blocks(((FIRST, SIZE),), ((FIRST, SIZE),))
    monkeypatch.setattr(_choice, "blocks", lambda: few)
    spec = Bundle.from_rootfs(image, ["sh"], userns="auto")
    object.__setattr__(content_of(spec), "_blocks", few)
    async with supervisor(root) as sup:
        async with await made(sup, spec) as box:
            assert os.readlink(root / "a" / LINK) == str(claims / os.listdir(claims)[0])
            with pytest.raises(IdsExhausted, match=r"all 1 ranges of ids belong to containers"):
                await sup.create("b", spec)
            assert box.pid is not None
        assert os.listdir(claims) == []
    async with supervisor(root) as sup:
        await made(sup, spec)
    async with supervisor(root) as sup:  # adopted, and deleted by another one
        with pytest.raises(IdsExhausted):
            await sup.create("b", spec)
        await sup["a"].delete(force=True)
        async with await made(sup, spec, "b"):
            pass


async def test_no_checkpoints(supervisor: OpenSupervisor, image: Path, workdir: Path) -> None:
    """A checkpoint is refused at once, because the restore would need the same ids."""
    spec = Bundle.from_rootfs(image, ["sh"], userns="auto")
    async with supervisor() as sup, await made(sup, spec) as box:
        with pytest.raises(InvalidValue, match="can't be restored with other ids"):
            await box.checkpoint(workdir / "image")
        with pytest.raises(InvalidValue, match="can't be restored with other ids"):
            await sup.create("b", spec, checkpoint=workdir)


async def test_loaded_again(supervisor: OpenSupervisor, image: Path, workdir: Path) -> None:
    """The wish is in config.json: containers of a loaded bundle have ids of their own, too."""
    Bundle.from_rootfs(image, ["sh"], userns="auto", path=workdir / "bundle")
    async with supervisor() as sup:
        spec = Bundle.load(workdir / "bundle")
        async with await made(sup, spec) as one, await made(sup, spec, "b") as two:
            assert one.pid is not None and two.pid is not None
            assert mapped(one.pid) != mapped(two.pid)
            assert await output(one, "cat /secret") == "kept\n"


async def test_ids_that_are_given_and_ids_that_are_promised(
    supervisor: OpenSupervisor, image: Path, claims: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An auto container doesn't get the ids that a caller gave to another one, nor the other
    way."""
    few = Blocks(((FIRST, SIZE),), ((FIRST, SIZE),))
    monkeypatch.setattr(_choice, "blocks", lambda: few)
    ids = UserNamespace(uids=[(0, FIRST + 5, 10)], gids=[(0, FIRST + 5, 10)])
    given = Bundle.from_rootfs(image, ["true"], userns=ids)
    auto = Bundle.from_rootfs(image, ["true"], userns="auto")
    object.__setattr__(content_of(auto), "_blocks", few)
    async with supervisor() as sup:
        first = await sup.create("first", given)
        with pytest.raises(IdsExhausted):
            await sup.create("second", auto)
        other = await sup.create("third", given)
        await first.delete(force=True)
        await other.delete(force=True)
        assert list(claims.iterdir()) == []
        second = await sup.create("second", auto)
        with pytest.raises(InvalidValue, match=r"some of the ids belong to .*/second"):
            await sup.create("first", given)
        await second.delete(force=True)
        await (await sup.create("first", given)).delete(force=True)
        assert list(claims.iterdir()) == []
