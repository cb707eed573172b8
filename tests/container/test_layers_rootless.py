"""Layers for ordinary users: in a user namespace around the runtime."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor import Bundle, InvalidValue, Supervisor, open_supervisor
from supervisor.native import find_binary
from tests.container.layers import files, no_mounts, output, until_seen
from tests.support.containers import left
from tests.support.runtimes import Choice, needs_root
from tests.support.users import NOBODYS, as_user

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]


@pytest.fixture
def image(rootfs: Path, workdir: Path) -> Path:
    """A root filesystem that belongs to root, who is unmapped in an ordinary user's containers."""
    path = workdir / "image"
    subprocess.run(["cp", "-a", str(rootfs), str(path)], check=True)
    (path / "kept").write_text("below\n")
    return path


@pytest.fixture
def shim(workdir: Path) -> str:
    """A shim that any user can run, wherever the sources are."""
    path = workdir / "supervisor-shim"
    shutil.copy(find_binary("supervisor-shim"), path)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def home(workdir: Path) -> Path:
    """A directory for the user's own things."""
    path = workdir / "home"
    path.mkdir()
    path.chmod(0o711)
    return path


async def use(sup: Supervisor, bundle: Bundle, workdir: Path) -> None:
    """Go through a container's life with a layer."""
    async with await sup.create("a", bundle) as box:
        await box.start()
        assert no_mounts(workdir)
        script = (
            "cat /kept; echo above >/new; rm -r /kept; /bin/busybox mkdir /made; ls /; cat /new"
        )
        said = await output(box, script)
        assert said.startswith("below\n") and said.endswith("above\n")
        assert "made" in said and "kept" not in said
        process = await box.exec(["sh", "-c", "read x; echo got-$x-$(cat /new)"], terminal=True)
        async with await process.attach() as terminal:
            await terminal.send_all(b"it\n")
            await until_seen(terminal.receive_some, b"got-it-above")
        assert (await process.wait()).code == 0
    async with await sup.create("b", bundle, args=["sh", "-i"], terminal=True) as box:
        await box.start()
        async with await box.attach() as terminal:
            await terminal.send_all(b"echo $((40+2)) >/seen; cat /seen\n")
            await until_seen(terminal.receive_some, b"\r\n42\r\n")
    async with await sup.create("b", bundle):
        pass
    async with await sup.create("a", bundle) as box:
        await box.start()
        assert await output(box, "cat /kept; ls -d /made 2>/dev/null; :") == "below\n"


def test_anybody(choice: Choice, image: Path, workdir: Path, home: Path, shim: str) -> None:
    """A user without subordinate ids has layers, too; the container's root owns the files that it
    makes."""
    os.chown(home, NOBODYS, NOBODYS)
    before = files(image)

    async def program() -> None:
        bundle = Bundle.from_rootfs(image, ["sleep", "600"], writable="overlay", path=home / "b")
        root = home / "root"
        async with open_supervisor(root, runtime=choice.runtime(), shim=shim) as sup:
            await use(sup, bundle, workdir)
            assert left(root) == [] and not sup.broken

    as_user(NOBODYS, NOBODYS, program)
    assert files(image) == before


def test_somebody_with_subordinate_ids(
    choice: Choice, image: Path, workdir: Path, home: Path, shim: str, somebody: pwd.struct_passwd
) -> None:
    """With subordinate ids there are other users inside, who own the files that they make in the
    layer."""
    os.chown(home, somebody.pw_uid, somebody.pw_gid)

    async def program() -> None:
        bundle = Bundle.from_rootfs(image, ["sleep", "600"], writable="overlay", path=home / "b")
        root = home / "root"
        async with open_supervisor(root, runtime=choice.runtime(), shim=shim) as sup:
            await use(sup, bundle, workdir)
            async with await sup.create("c", bundle) as box:
                await box.start()
                await output(box, "b=/bin/busybox; $b mkdir /shared; $b chmod 1777 /shared")
                await box.run(["sh", "-c", "echo x >/shared/file"], user=(33, 44))
                assert await output(box, "/bin/busybox stat -c %u:%g /shared/file") == "33:44\n"
            assert left(root) == [] and not sup.broken

    as_user(somebody.pw_uid, somebody.pw_gid, program)


def test_without_a_user_namespace(
    choice: Choice, image: Path, home: Path, shim: str, workdir: Path
) -> None:
    """A bundle that root has made has no user namespace, and so an ordinary user can't give it a
    layer."""
    os.chown(home, NOBODYS, NOBODYS)
    made = Bundle.from_rootfs(image, ["true"], writable="overlay", path=workdir / "bundle")

    async def program() -> None:
        root = home / "root"
        async with open_supervisor(root, runtime=choice.runtime(), shim=shim) as sup:
            with pytest.raises(InvalidValue, match="you aren't root, and may mount only in"):
                await sup.create("a", made)
            assert left(root) == []

    as_user(NOBODYS, NOBODYS, program)
