"""Checkpoint and restore: a fake where CRIU can't run, and the errors of real runtimes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor import CheckpointOptions, IllegalTransition, InvalidValue, RuntimeFailed, State
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.runtimes import fake, needs_root

pytestmark = [pytest.mark.runtimes("fake"), pytest.mark.rootless]

ALL = CheckpointOptions(
    tcp_established=True, external_unix_sockets=True, shell_job=True, file_locks=True
)


async def test_there_and_back(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path
) -> None:
    """A checkpoint ends the container, and a container that is made from the checkpoint runs at
    once."""
    image = workdir / "image"
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "600"))
        await box.start()
        await box.checkpoint(image, options=ALL)
        assert box.state is State.STOPPED and (image / "image").exists()
        await box.delete()
        again = await sup.create(
            "a", bundle("sleep", "600"), checkpoint=image, checkpoint_options=ALL
        )
        assert again.state is State.RUNNING and again.status is None
        options = (root / "a/init/restore-options").read_text().split()
        assert options == [
            "--detach",
            "--ext-unix-sk",
            "--file-locks",
            "--shell-job",
            "--tcp-established",
        ]
        with pytest.raises(IllegalTransition):
            await again.start()
    async with supervisor(root) as sup:
        assert sup["a"].state is State.RUNNING
        await sup["a"].delete(force=True)


async def test_leave_running(supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path) -> None:
    """With leave_running the container goes on."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "600")) as box:
        await box.start()
        await box.checkpoint(workdir / "image", leave_running=True)
        assert box.state is State.RUNNING and box.status is None


async def test_says_what_criu_said(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path
) -> None:
    """The error of a failed checkpoint quotes CRIU, and the container goes on."""
    async with (
        supervisor(runtime=fake("criu")) as sup,
        await sup.create("a", bundle("sleep", "600")) as box,
    ):
        await box.start()
        with pytest.raises(RuntimeFailed, match="vdso: can't start") as caught:
            await box.checkpoint(workdir / "image")
        assert caught.value.container == "a" and box.state is State.RUNNING


async def test_bad_places(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, root: Path
) -> None:
    """A checkpoint into a full directory or from none is refused before anything is touched."""
    (workdir / "full").mkdir()
    (workdir / "full/x").touch()
    async with supervisor(root) as sup:
        async with await sup.create("a", bundle("sleep", "600")) as box:
            with pytest.raises(IllegalTransition):
                await box.checkpoint(workdir / "image")
            await box.start()
            with pytest.raises(InvalidValue, match="not empty"):
                await box.checkpoint(workdir / "full")
        with pytest.raises(InvalidValue, match="there is no checkpoint"):
            await sup.create("b", bundle("true"), checkpoint=workdir / "none")
        assert os.listdir(root) == [".runtime"]


async def test_restore_fails(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, root: Path
) -> None:
    """A restore that fails says why and leaves nothing."""
    (workdir / "empty").mkdir()
    async with supervisor(root) as sup:
        with pytest.raises(RuntimeFailed, match="no image there"):
            await sup.create("a", bundle("true"), checkpoint=workdir / "empty")
        assert len(sup) == 0 and os.listdir(root) == [".runtime"]


@pytest.mark.runtimes("runc", "crun")
async def test_real_one_says_why_not(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path
) -> None:
    """A real runtime either makes the checkpoint, or the error quotes the runtime and CRIU."""
    image = workdir / "image"
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "600")) as box:
        await box.start()
        try:
            await box.checkpoint(image)
        except RuntimeFailed as error:
            assert error.reason and box.state is State.RUNNING
            print(error)
        else:
            assert box.state is State.STOPPED and os.listdir(image)


@needs_root
@pytest.mark.runtimes("runsc")
async def test_real_there_and_back(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path
) -> None:
    """runsc, whose checkpoints need no CRIU, makes one and restores it, and the restored container
    runs an exec."""
    image = workdir / "image"
    spec = bundle("/bin/busybox", "sleep", "600")
    async with supervisor() as sup:
        async with await sup.create("a", spec) as box:
            await box.start()
            assert (await (await box.exec(["/bin/busybox", "sh", "-c", "exit 3"])).wait()).code == 3
            await box.checkpoint(image)
            await box.wait()
            assert box.state is State.STOPPED and os.listdir(image)
        async with await sup.create("b", spec, checkpoint=image) as box:
            assert box.state is State.RUNNING and box.status is None
            assert (await (await box.exec(["/bin/busybox", "true"])).wait()).code == 0
