"""Bundles, root filesystems and roots that are reached by symbolic links."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from supervisor import Bundle, Completed, Supervisor, run_container
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import known
from tests.support.runtimes import Choice, needs_root

pytestmark = pytest.mark.rootless

Made = Callable[[Path, Path], Bundle]


async def run(sup: Supervisor, bundle: Bundle) -> Completed:
    return await run_container(bundle, supervisor=sup, capture_stdout=True, capture_stderr=True)


def _by_a_link(rootfs: Path, place: Path, **options: object) -> Bundle:
    Bundle.from_rootfs(rootfs, ["echo", "hi"], path=place / "bundle", **options)  # type: ignore[arg-type]
    (place / "link").symlink_to("bundle")
    return Bundle.load(place / "link")


def _with_a_linked_root(rootfs: Path, place: Path) -> Bundle:
    made = Bundle.from_rootfs(rootfs, ["echo", "hi"], path=place / "bundle")
    (place / "bundle/current").symlink_to(rootfs)
    config = place / "bundle/config.json"
    config.write_text(json.dumps({**made.spec, "root": {"path": "current"}}))
    return Bundle.load(place / "bundle")


def _above_a_link(rootfs: Path, place: Path) -> Bundle:
    """``..`` behind a link leads up from the link's target, as in the kernel, not from the link's
    own place."""
    (place / "far/bundle").mkdir(parents=True)
    made = Bundle.from_rootfs(rootfs, ["echo", "hi"], path=place / "far/bundle")
    (place / "far/root").symlink_to(rootfs)
    config = place / "far/bundle/config.json"
    config.write_text(json.dumps({**made.spec, "root": {"path": "../root"}}))
    (place / "link").symlink_to("far/bundle")
    return Bundle.load(place / "link")


def _of_a_linked_rootfs(rootfs: Path, place: Path) -> Bundle:
    (place / "current").symlink_to(rootfs)
    return Bundle.from_rootfs(place / "current", ["echo", "hi"])


def _with_a_layer(rootfs: Path, place: Path) -> Bundle:
    return _by_a_link(rootfs, place, writable="overlay")


@needs_root
@pytest.mark.parametrize(
    "made", [_by_a_link, _with_a_linked_root, _above_a_link, _of_a_linked_rootfs, _with_a_layer]
)
async def test_bundles(supervisor: OpenSupervisor, rootfs: Path, workdir: Path, made: Made) -> None:
    """runc refuses a root filesystem whose path has a link in it, so runc gets the real path."""
    async with supervisor() as sup:
        done = await run(sup, made(rootfs, workdir))
        assert (done.stdout, done.status.code) == (b"hi\n", 0)


@needs_root
async def test_a_link_is_followed_when_a_container_is_made(
    supervisor: OpenSupervisor, rootfs: Path, workdir: Path
) -> None:
    """A loaded bundle's links are followed when a container is made, as by a bare runtime:
    deploying a new version by a link works."""
    bundle = _with_a_linked_root(rootfs, workdir)
    empty = workdir / "empty"
    empty.mkdir()
    async with supervisor() as sup:
        assert (await run(sup, bundle)).stdout == b"hi\n"
        (workdir / "bundle/current").unlink()
        (workdir / "bundle/current").symlink_to(empty)
        with pytest.raises(Exception, match="echo"):
            await run(sup, bundle)


@needs_root
async def test_roots(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path
) -> None:
    """A root and a runtime's root may be links: nothing is left behind in either."""
    for name in ("real", "real-runtime"):
        (workdir / name).mkdir(mode=0o700)
        (workdir / f"{name}-link").symlink_to(name)
    (workdir / "real").chmod(0o711)
    runtime = attrs.evolve(choice.runtime(), root=str(workdir / "real-runtime-link"))
    async with supervisor(workdir / "real-link", runtime=runtime) as sup:
        assert sup.runtime.root == str(workdir / "real-runtime")
        async with await sup.create("a", bundle("sleep", "60")) as box:
            await box.start()
            assert (await (await box.exec(["true"])).wait()).code == 0
    assert known(workdir / "real-runtime") == []
