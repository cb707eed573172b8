"""``writable="overlay"``: each container writes in a layer of its own, which is removed with the
container."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from supervisor import (
    Bundle,
    Cause,
    Container,
    InvalidValue,
    Mount,
    ProgramNotFound,
    RuntimeFailed,
    ShimError,
    ShimExited,
    State,
    Supervisor,
)
from supervisor.state import read_pid
from supervisor.system import look_at
from tests.conftest import MakeBundle, OpenSupervisor
from tests.container.layers import files, no_mounts, output, until_seen
from tests.support.cancelling import cancelled_after, for_every_checkpoint
from tests.support.containers import left, lingering, pid_in, shim_of, state_of, until
from tests.support.leaks import descendants
from tests.support.runtimes import Choice, needs_root
from tests.support.victim import Victims

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

STRANGE = "a b,c:d\\e\\,f\\:g=h"
"""A name with every character that mount options treat specially."""


@pytest.fixture
def image(rootfs: Path, workdir: Path) -> Path:
    """A root filesystem of the test's own, with a difficult name."""
    path = workdir / STRANGE
    subprocess.run(["cp", "-a", str(rootfs), str(path)], check=True)
    (path / "kept").write_text("below\n")
    (path / "directory").mkdir()
    (path / "directory/file").write_text("inside\n")
    return path


@pytest.fixture
def layered(image: Path, workdir: Path) -> MakeBundle:
    """Make a bundle with a layer."""

    def make(*args: str, **options: object) -> Bundle:
        return Bundle.from_rootfs(image, list(args), writable="overlay", **options)  # type: ignore[arg-type]

    return make


async def test_writes_stay_in_the_layer(
    supervisor: OpenSupervisor, layered: MakeBundle, image: Path, workdir: Path, root: Path
) -> None:
    """A container sees what it writes, removes and renames, and no other container does; even the
    runtime doesn't touch the root filesystem, and the host never sees a mount."""
    before = files(image)
    spec = layered("sleep", "600")
    async with supervisor(root) as sup:
        one, two = await sup.create("one", spec), await sup.create("two", spec)
        assert no_mounts(workdir)
        await one.start()
        await two.start()
        script = """
            read line </kept; echo "$line"; echo above >/kept; rm /directory/file
            /bin/busybox mv /directory /renamed; echo new >/etc/new
            rm /bin/false; /bin/busybox mkdir /made; echo done
        """
        assert await output(one, script) == "below\ndone\n"
        script = "cat /kept /etc/new; ls -d /directory /renamed /made /renamed/file 2>/dev/null; :"
        assert await output(one, script) == "above\nnew\n/made\n/renamed\n"
        assert await output(two, "cat /kept; cat /directory/file; ls -d /made 2>&1; :") == (
            "below\ninside\nls: /made: No such file or directory\n"
        )
        assert no_mounts(workdir) and os.listdir(root / "one/bundle/rootfs") == []
        await one.delete(force=True)
        three = await sup.create("one", spec)
        await three.start()
        assert await output(three, "cat /kept; ls -d /made 2>/dev/null; :") == "below\n"
        for box in (two, three):
            await box.delete(force=True)
        assert left(root) == []
    assert files(image) == before


async def test_every_operation(
    supervisor: OpenSupervisor, layered: MakeBundle, root: Path, choice: Choice
) -> None:
    """All runtime calls but create come from outside the mount, and work: a terminal, an exec with
    one, a stop, and deletes of created, running and ended containers."""
    async with supervisor(root) as sup:
        box = await sup.create("a", layered("sh", "-i"), terminal=(80, 25))
        await box.start()
        async with await box.attach() as terminal:
            await terminal.send_all(b"echo $((40+2)) >/seen; cat /seen\n")
            await until_seen(terminal.receive_some, b"\r\n42\r\n")
        process = await box.exec(["sh", "-c", "read x; echo got-$x-$(cat /seen)"], terminal=True)
        async with await process.attach() as terminal:
            await terminal.send_all(b"it\n")
            await until_seen(terminal.receive_some, b"got-it-42")
        assert (await process.wait()).code == 0
        await box.delete(force=True)
        created = await sup.create("b", layered("true"))
        await created.delete()
        ended = await sup.create("c", layered("true"))
        await ended.start()
        assert (await ended.wait()).code == 0
        await ended.delete()
        stopped = await sup.create("d", layered("sleep", "600", init=True))
        await stopped.start()
        assert not (await stopped.stop(grace=30)).escalated
        await stopped.delete()
        assert left(root) == []


async def test_the_root_directory_is_as_below(
    supervisor: OpenSupervisor, image: Path, layered: MakeBundle
) -> None:
    """The container's / has the owner and the mode of the root filesystem's."""
    image.chmod(0o3751)
    os.chown(image, 12, 34)
    async with supervisor() as sup, await sup.create("a", layered("sleep", "60")) as box:
        await box.start()
        assert await output(box, "/bin/busybox stat -c %a,%u,%g /") == "3751,12,34\n"


async def test_the_layer_counts_as_memory(supervisor: OpenSupervisor, layered: MakeBundle) -> None:
    """The layer counts as the container's memory: beyond the limit the container is killed."""
    script = "dd if=/dev/zero of=/big bs=1M count=64"
    spec = layered("sh", "-c", f"exec {script}", memory_bytes=32 << 20)
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        assert (await box.wait()).cause is Cause.OUT_OF_MEMORY


async def test_the_layer_has_a_limit_of_its_own(
    supervisor: OpenSupervisor, layered: MakeBundle
) -> None:
    """With ``layer_bytes`` the program gets an error that it can handle."""
    script = "dd if=/dev/zero of=/big bs=1M count=2 2>&1; rm /big; echo again >/big && cat /big"
    spec = layered("sleep", "60", layer_bytes=1 << 20)
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        said = await output(box, script)
        assert "No space left" in said and said.endswith("again\n")


async def test_empty_files_are_bounded(supervisor: OpenSupervisor, layered: MakeBundle) -> None:
    """Empty files count toward ``layer_bytes``: 600,000 of them once held 720 MB of the kernel's
    memory."""
    script = "n=0; while true >/$n; do n=$((n+1)); done 2>/dev/null; echo $n"
    async with supervisor() as sup:
        for size, files in ((1 << 20, 1024), (8 << 20, 2048)):
            spec = layered("sleep", "60", layer_bytes=size)
            async with await sup.create(f"a{size}", spec) as box:
                await box.start()
                assert files - 40 < int(await output(box, script)) < files


async def test_a_user_namespace(
    supervisor: OpenSupervisor, layered: MakeBundle, image: Path, workdir: Path
) -> None:
    """With mapped ids, the container's root writes in directories that the mapped root owns, and
    owns the new files."""
    subprocess.run(["chown", "-Rh", "100000:100000", str(image)], check=True)
    spec = layered("sleep", "60")
    mapping = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    linux = spec.spec["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = mapping
    async with supervisor(workdir / "root") as sup, await sup.create("a", spec) as box:
        await box.start()
        script = "echo x >/new && echo y >/directory/file && rm /kept && ls / && stat -c %u /new"
        seen = await output(box, script.replace("stat", "/bin/busybox stat"))
        assert seen.split()[-1] == "0" and "new" in seen and "kept" not in seen
    assert (image / "directory/file").read_text() == "inside\n"


async def test_the_hosts_programs(supervisor: OpenSupervisor, workdir: Path) -> None:
    """A bundle of the host's programs has a writable root; the host's own directories stay
    read-only."""
    script = "echo x >/new && echo y >/etc/new && echo z >/tmp/new && cat /new /etc/new /tmp/new"
    spec = Bundle.from_host(["sleep", "60"], writable="overlay")
    async with supervisor(workdir / "root") as sup, await sup.create("a", spec) as box:
        await box.start()
        assert await output(box, script) == "x\ny\nz\n"
        assert "Read-only" in await output(box, "touch /usr/x /etc/passwd 2>&1; :")
        assert not (workdir / "root/a/bundle/rootfs/new").exists()
        assert no_mounts(workdir)


async def test_with_mounts(supervisor: OpenSupervisor, layered: MakeBundle, workdir: Path) -> None:
    """Mounts come over the layer, at places that needn't exist in the root filesystem."""
    given = workdir / "given"
    given.mkdir()
    spec = layered("sleep", "60", mounts=[Mount(given, "/made/up", read_only=False)])
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        await output(box, "echo x >/made/up/file; echo y >/made/file")
    assert (given / "file").read_text() == "x\n"


async def test_loaded_again(
    supervisor: OpenSupervisor, layered: MakeBundle, image: Path, workdir: Path
) -> None:
    """``writable`` is in config.json, so a bundle that is loaded has it too."""
    layered("sleep", "60", path=workdir / "bundle", layer_bytes=1 << 20)
    async with supervisor() as sup, await sup.create("a", workdir / "bundle") as box:
        await box.start()
        assert await output(box, "echo x >/new; /bin/busybox df / | /bin/busybox tail -n 1") != ""
    assert not (image / "new").exists()


# ---- failures ---------------------------------------------------------------------------------


async def test_a_root_filesystem_that_went_away(
    supervisor: OpenSupervisor, layered: MakeBundle, image: Path, root: Path
) -> None:
    """A layer that can't be made raises an error with the reason, and nothing is left."""
    spec = layered("true")
    image.rename(image.with_name("elsewhere"))
    async with supervisor(root) as sup:
        with pytest.raises(ShimError, match=r"cannot open the root file system .*: No such file"):
            await sup.create("a", spec)
        assert left(root) == [] and not sup.broken


async def test_a_program_that_is_not_there(
    supervisor: OpenSupervisor, layered: MakeBundle, root: Path
) -> None:
    """A runtime that fails over a layer leaves nothing, and is quoted."""
    async with supervisor(root) as sup:
        with pytest.raises(ProgramNotFound, match="nowhere"):
            async with await sup.create("a", layered("nowhere")) as box:
                await box.start()
        assert left(root) == [] and not sup.broken


async def test_no_checkpoint(supervisor: OpenSupervisor, layered: MakeBundle, root: Path) -> None:
    """A checkpoint doesn't include the layer: a checkpoint is refused, and so is a restore with a
    layer."""
    async with supervisor(root) as sup:
        with pytest.raises(InvalidValue, match="layer"):
            await sup.create("a", layered("true"), checkpoint=root)
        async with await sup.create("b", layered("sleep", "60")) as box:
            await box.start()
            with pytest.raises(InvalidValue, match="layer"):
                await box.checkpoint(root / "image")
        assert left(root) == []


# ---- crashes ----------------------------------------------------------------------------------


async def running(sup: Supervisor, spec: Bundle, **options: str) -> Container:
    box = await sup.create("a", spec, **options)  # type: ignore[arg-type]
    await box.start()
    assert await output(box, "echo mine >/new; cat /new") == "mine\n"
    return box


async def test_a_killed_shim_takes_it_along(
    supervisor: OpenSupervisor, layered: MakeBundle, root: Path, workdir: Path
) -> None:
    """Without its shim the container is killed, and the layer goes."""
    async with supervisor(root) as sup:
        box = await running(sup, layered("sleep", "600"))
        os.kill(shim_of(root / "a/init"), signal.SIGKILL)
        assert (await box.wait()).signal == signal.SIGKILL
        assert no_mounts(workdir)
        await box.delete()
        assert left(root) == []


async def test_kept_without_its_shim(
    supervisor: OpenSupervisor, layered: MakeBundle, root: Path
) -> None:
    """The layer belongs to the container, not to the shim: a kept container goes on with its
    layer."""
    async with supervisor(root) as sup:
        box = await running(sup, layered("sleep", "600"), on_shim_lost="keep")
        shim = shim_of(root / "a/init")
        os.kill(shim, signal.SIGKILL)
        await until(lambda: state_of(shim) in ("", "Z"), "its shim is gone")
        assert await output(box, "cat /new /kept") == "mine\nbelow\n"
        await box.delete(force=True)
        assert left(root) == []


async def test_adopted(
    supervisor: OpenSupervisor,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    layered: MakeBundle,
    root: Path,
    workdir: Path,
) -> None:
    """Containers whose supervisor was killed are adopted with their layers, whatever became of the
    bundle; the next supervisor starts one that was only created."""
    spec = layered("sh", "-c", "echo mine >/new; exec sleep 600", path=workdir / "bundle").path
    with victim(
        choice.runtime(),
        cgroup_parent,
        root,
        containers={"ran": spec, "waits": spec},
        started=["ran"],
        execs={"more": ["sleep", "600"]},
    ):
        pass
    subprocess.run(["rm", "-r", spec], check=True)
    async with supervisor(root) as sup:
        assert sorted(sup) == ["ran", "waits"] and not sup.broken
        assert sup["waits"].state is State.CREATED
        await sup["waits"].start()
        for box in sup.values():
            assert (await box.run(["true"])).returncode == 0
            await until_written(box)
            assert await output(box, "cat /new /kept") == "mine\nbelow\n"
            await box.delete(force=True)
        assert left(root) == [] and no_mounts(workdir)


async def until_written(box: Container) -> None:
    """Wait until the container's program has written the file."""
    await output(box, "until [ -s /new ]; do sleep 0.01; done")


async def test_on_the_leash(
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    layered: MakeBundle,
    workdir: Path,
    root: Path,
) -> None:
    """A killed program's leashed containers go, and all that was mounted for them."""
    spec = layered("sleep", "600", path=workdir / "bundle").path
    with victim(
        choice.runtime(),
        cgroup_parent,
        root,
        containers={"a": spec, "b": spec},
        started=["a"],
        leash=True,
    ):
        pids = [read_pid(str(root / id / "init/pid")) for id in "ab"]
    await until(lambda: os.listdir(root) == [".runtime"], "an empty root")
    for pid in pids:
        assert pid is not None and state_of(pid) in ("", "Z")
    assert no_mounts(workdir)


def parent_of(pid: int) -> int | None:
    """Return the pid of a process's parent, or None if the process has gone."""
    now = look_at(pid)
    return None if now is None else now.parent_pid


@pytest.mark.parametrize("who", ["runtime", "shim"])
async def test_killed_while_it_is_made(
    supervisor: OpenSupervisor,
    choice: Choice,
    layered: MakeBundle,
    root: Path,
    workdir: Path,
    who: str,
) -> None:
    """A runtime or a shim that is killed while mounting the layer leaves no part of the layer."""
    gate = workdir / "gate"
    gate.touch()
    runtime = lingering(choice, workdir / "a-runtime", "create", gate)
    pids: list[int] = []

    async def kill() -> None:
        await until(lambda: read_pid(str(root / "a/init/pid")), "the container's process is there")
        shim = shim_of(root / "a/init")
        # A child of the runtime itself: a fresh fork still has the runtime's command line.
        runtimes = [pid for pid, words in descendants(shim).items() if "a-runtime" in words]
        [lingers] = [pid for pid in runtimes if parent_of(pid) == shim]
        pids.append(pid_in(root / "a/init"))
        assert "overlay" in Path(f"/proc/{pids[0]}/mountinfo").read_text()
        os.kill(shim if who == "shim" else lingers, signal.SIGKILL)

    async with supervisor(root, runtime=runtime) as sup:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            with pytest.raises((ShimExited, RuntimeFailed)):
                await sup.create("a", layered("sleep", "600"))
        gate.unlink()
        await until(lambda: state_of(pids[0]) in ("", "Z"), "the container's process is dead")
        assert left(root) == [] and no_mounts(workdir) and not sup.broken


@pytest.mark.parametrize("moment", ["before the runtime", "in the runtime"])
async def test_killed_in_create(
    supervisor: OpenSupervisor,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    layered: MakeBundle,
    root: Path,
    workdir: Path,
    moment: str,
) -> None:
    """The next supervisor removes what a supervisor that was killed in create has left."""
    spec = layered("sleep", "600", path=workdir / "bundle").path
    with victim(choice.runtime(), cgroup_parent, root, containers={"a": spec}, say_before=True):
        wanted = root / ("a/init/shim" if moment == "before the runtime" else ".runtime/a")
        await until(wanted.exists, str(wanted))
    async with supervisor(root, delete_unstarted=True) as sup:
        assert list(sup) == [] and not sup.broken
        assert left(root) == [] and no_mounts(workdir)


# ---- cancellation -----------------------------------------------------------------------------


async def test_cancelled_in_create(
    supervisor: OpenSupervisor, layered: MakeBundle, root: Path, workdir: Path
) -> None:
    """A create that is cancelled anywhere leaves no directory, no runtime state, and no mount."""
    spec = layered("sleep", "600")
    async with supervisor(root) as sup:

        async def attempt(steps: int) -> bool:
            cancelled = await cancelled_after(steps, lambda: sup.create("a", spec))
            if cancelled:
                assert list(sup) == [] and not sup.broken
                assert left(root) == [] and no_mounts(workdir)
            return cancelled

        await for_every_checkpoint(attempt)
        await sup["a"].delete()
