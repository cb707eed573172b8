"""Roots and bundles at paths that have a meaning for runtimes, for JSON or for the kernel."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import attrs
import pytest

from supervisor import Bundle, InvalidValue
from supervisor.directories._temporary import PLACE
from supervisor.runtime import Call, Head
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import known
from tests.support.runtimes import Choice, needs_root

pytestmark = pytest.mark.rootless

ODD = ["a:b", "file:x", """ !"#$%&'()*+,-;<=>?@[\\]^`{|}~\u2028é\x7f """]


@needs_root
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("leash", [False, True])
async def test_roots(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, name: str, leash: bool
) -> None:
    """At any root path all operations work, and nothing is left: crun reads a log as TYPE:PATH,
    JSON spells some paths its way."""
    root = workdir / name / "root"
    async with supervisor(root, leash=leash) as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        assert (await (await box.exec(["true"], terminal=True)).wait()).code == 0
        await box.delete(force=True)
        assert known(root / ".runtime") == []


@needs_root
@pytest.mark.parametrize("name", ODD)
async def test_bundles_and_runtimes_roots(
    supervisor: OpenSupervisor,
    rootfs: Path,
    workdir: Path,
    choice: Choice,
    name: str,
) -> None:
    """A bundle, its root filesystem, and the runtime's own state may lie at any path."""
    odd = workdir / name
    (odd / "kept").mkdir(mode=0o700, parents=True)
    shutil.copytree(rootfs, odd / "rootfs", symlinks=True)
    with Bundle.from_rootfs(odd / "rootfs", ["sleep", "60"]) as made:
        (odd / "config.json").write_text(json.dumps({**made.spec, "root": {"path": "rootfs"}}))
    runtime = attrs.evolve(choice.runtime(), root=str(odd / "kept"))
    async with supervisor(runtime=runtime) as sup:
        async with await sup.create("a", odd) as box:
            await box.start()
            assert (await (await box.exec(["true"])).wait()).code == 0
        assert known(odd / "kept") == []


@pytest.mark.runtimes("fake")
@pytest.mark.parametrize(
    ("name", "why"), [("a\nb", r"contains '\\n'"), ("a\udcff", "(isn't|not) UTF-8")]
)
async def test_what_cannot_work(
    supervisor: OpenSupervisor,
    workdir: Path,
    choice: Choice,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    why: str,
) -> None:
    """A path that can't work is refused at open, by name and with the reason, also behind a link;
    nothing is made."""
    odd = workdir / name
    link = workdir / "link"
    link.symlink_to(odd)
    for root in (odd, link):
        with pytest.raises(InvalidValue, match=f"root .* {why}"):
            await supervisor(root).__aenter__()
        with pytest.raises(InvalidValue, match=rf"root.* {why}"):
            runtime = attrs.evolve(choice.runtime(), root=str(root))
            await supervisor(runtime=runtime).__aenter__()
    assert os.listdir(workdir) == ["link"]
    odd.mkdir(mode=0o711)
    monkeypatch.setenv(PLACE, str(odd))
    with pytest.raises(InvalidValue, match=f"no temporary directory can be in .* {why}"):
        await supervisor().__aenter__()


def test_logs() -> None:
    """crun, by whatever path the program is named, is told that a log with a colon in the path is a
    file's."""
    for runtime, path, value in (
        ("/bin/crun", "/a:b", "file:/a:b"),
        ("/bin/crun", "/ab", "/ab"),
        ("/opt/crun-1.14", "/a:b", "file:/a:b"),
        ("/bin/runc", "/a:b", "/a:b"),
    ):
        head = Head(path=runtime, root="/r", container="x")
        words = Call(head=head, verb="start", log=path).words
        assert words[words.index("--log") + 1] == value
        assert "--log" not in Call(head=head, verb="start").words
