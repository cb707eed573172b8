"""Hooks find the user's bundle, as with a bare runtime, though containers are run from ours."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor import Bundle, run_container
from tests.conftest import OpenSupervisor
from tests.support.runtimes import Choice, needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root, pytest.mark.rootless]

OUTSIDE = ("prestart", "createRuntime", "poststart", "poststop")
KINDS = (*OUTSIDE, "createContainer")
TELL = '#!/bin/sh\npwd >"$1.cwd"; cat >"$1.state"; printf %s "$WORD" >"$1.word"\n'


def make(rootfs: Path, place: Path, **options: object) -> Bundle:
    """Make a bundle whose hooks run a script of the bundle's: found by the hook's directory, or by
    name."""
    place.mkdir()
    place.chmod(0o777)
    shutil.copytree(rootfs, place / "rootfs", symlinks=True)
    (place / "tell.sh").write_text(TELL)
    (place / "tell.sh").chmod(0o755)
    with Bundle.from_rootfs(place / "rootfs", ["true"], **options) as made:  # type: ignore[arg-type]
        spec = {**made.spec, "root": {"path": "rootfs"}}
    hooks = {kind: [_hook(kind, f"./tell.sh {kind}")] for kind in OUTSIDE}
    home = shlex.quote(str(place))
    inside = f"cwd=$PWD; cd {home}; ./tell.sh createContainer; echo $cwd >createContainer.cwd"
    hooks["createContainer"] = [_hook("createContainer", inside)]
    (place / "config.json").write_text(json.dumps({**spec, "hooks": hooks}))
    return Bundle.load(place)


def _hook(kind: str, script: str) -> dict[str, object]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": [f"WORD={kind}", "PATH=/bin"]}


def found(place: Path, kind: str) -> tuple[str, str, str]:
    """Return the directory, the state's bundle, and a variable, that a hook has found."""
    cwd = (place / f"{kind}.cwd").read_text().strip()
    told = json.loads((place / f"{kind}.state").read_text())
    word = (place / f"{kind}.word").read_text()
    for ending in ("cwd", "state", "word"):
        (place / f"{kind}.{ending}").unlink()
    return cwd, str(told["bundle"]), word


async def test_as_by_itself(
    supervisor: OpenSupervisor, rootfs: Path, workdir: Path, choice: Choice
) -> None:
    """Each hook finds the same directory and bundle as with a bare runtime; once both were ours,
    without the bundle's files."""
    place = workdir / "it's a bundle"
    bundle = make(rootfs, place)
    name = f"bare-{workdir.name}"
    root = ["--root", str(workdir / "bare")]
    subprocess.run(
        [choice.runtime().path, *root, "run", "--bundle", str(place), name],
        stdin=subprocess.DEVNULL,
        cwd=place,  # where runc runs poststop hooks
        check=True,
        timeout=60,
    )
    bare = {kind: found(place, kind) for kind in KINDS}
    async with supervisor() as sup:
        await run_container(bundle, supervisor=sup)
    assert {kind: found(place, kind) for kind in KINDS} == bare
    assert all(bare[kind] == (str(place), str(place), kind) for kind in OUTSIDE)


async def test_a_path_in_the_bundle(
    supervisor: OpenSupervisor, rootfs: Path, workdir: Path, choice: Choice
) -> None:
    """A hook's path relative to the bundle runs as with a bare runtime; here such a path was once
    refused as not absolute."""
    place = workdir / "bundle"
    make(rootfs, place)
    config = place / "config.json"
    spec = json.loads(config.read_text())
    hooks = {kind: [{"path": "./tell.sh", "args": ["tell", kind]}] for kind in OUTSIDE}
    config.write_text(json.dumps({**spec, "hooks": hooks}))
    async with supervisor() as sup:
        await run_container(Bundle.load(place), supervisor=sup)
    for kind in OUTSIDE:
        assert found(place, kind) == (str(place), str(place), "")


@pytest.mark.parametrize("options", [{"writable": "overlay"}, {"userns": "auto"}])
async def test_from_a_directory_of_ours(
    supervisor: OpenSupervisor, rootfs: Path, workdir: Path, options: dict[str, str]
) -> None:
    """Hooks also find the bundle where the root filesystem is shown below ours, and where a
    user namespace leaves the hook unmapped."""
    place = workdir / "bundle"
    bundle = make(rootfs, place, **options)
    async with supervisor() as sup:
        await run_container(bundle, supervisor=sup)
    for kind in OUTSIDE:
        assert found(place, kind) == (str(place), str(place), kind)
    assert (place / "createContainer.state").exists()


async def test_a_bundle_that_has_gone(
    supervisor: OpenSupervisor, rootfs: Path, workdir: Path
) -> None:
    """The poststop hooks of a bundle that has gone run all the same."""
    place = workdir / "bundle"
    bundle = make(rootfs, place)
    spec = json.loads((place / "config.json").read_text())
    told = workdir / "told"
    spec["hooks"] = {"poststop": [_hook("poststop", f"cat >{told}")]}
    (place / "config.json").write_text(json.dumps(spec))
    bundle = Bundle.load(place)
    async with supervisor() as sup:
        box = await sup.create("a", bundle)
        await box.start()
        await box.wait()
        place.rename(workdir / "moved")
        await box.delete()
    assert json.loads(told.read_text())["bundle"] == str(place)
