"""What a program in a container can do, tried by one: every answer is expected, or told."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import Bundle, Mount, open_supervisor, run_container
from tests.oci.running import open_directory
from tests.support.runtimes import Choice, needs_root
from tests.support.users import as_user

from .table import MAKES, OURS, READS, STRICTER, WRITES, source

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

HERE = Path(__file__).parent
SECONDS = 60
KINDS = ("from_rootfs", "from_host", "from_rootfs userns", "from_host userns")
USER_KINDS = ("from_rootfs", "from_host")
Answers = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A directory with the probe, and a root filesystem without anything else in it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here: install gcc and libc6-dev")
    with open_directory() as directory:
        program = directory / "probe"
        (directory / "probe.c").write_text(source((HERE / "probe.c").read_text()))
        command = [compiler, "-O1", "-w", "-static", "-o", program, directory / "probe.c"]
        subprocess.run(command, check=True, timeout=SECONDS)
        for name in ("dev", "etc", "proc", "run", "sys", "tmp"):
            (directory / "root" / name).mkdir(parents=True)
        yield directory


def bundle(kind: str, ground: Path) -> Bundle:
    """Return a bundle with all of our defaults, but for a user namespace if it is asked for."""
    wanted: dict[str, Any] = {"mounts": [Mount(ground / "probe", "/dev/probe")]}
    if kind.endswith("userns"):
        wanted["userns"] = "auto"
    if kind.startswith("from_host"):
        return Bundle.from_host(["/dev/probe"], **wanted)
    return Bundle.from_rootfs(ground / "root", ["/dev/probe"], **wanted)


async def probe(kind: str, ground: Path, runtime: Any, **options: Any) -> Answers:
    with trio.fail_after(SECONDS), bundle(kind, ground) as made:
        async with open_supervisor(runtime=runtime, **options) as sup:
            done = await run_container(
                made, supervisor=sup, capture_stdout=True, capture_stderr=True
            )
    found: Answers = json.loads(done.stdout)
    return found


def expected(kind: str, who: str) -> Answers:
    """Return the table's answers: one for all, or one by kind and user."""
    table = json.loads((HERE / "expected.json").read_text())
    return {
        section: {
            name: one.get(f"{kind}, {who}", one.get("else", "")) if isinstance(one, dict) else one
            for name, one in rows.items()
        }
        for section, rows in table.items()
    } | {"calls": {call.replace('"', "'"): answer for call, answer in OURS.items()}}


def differences(found: Answers, wanted: Answers) -> list[str]:
    told = []
    for section, rows in wanted.items():
        for name in sorted({*rows, *found[section]}):
            here, there = found[section].get(name), rows.get(name)
            if here != there and not (section == "calls" and here is None):
                told.append(f"{section}: {name}: {here!r}, not {there!r}")
    return told


@pytest.mark.parametrize("kind", KINDS)
async def test_what_roots_containers_can_do(
    kind: str, ground: Path, choice: Choice, cgroup_parent: str
) -> None:
    """No answer differs from the table, with either runtime."""
    found = await probe(kind, ground, choice.runtime(), cgroup_parent=cgroup_parent)
    if os.environ.get("DUMP"): open(f"/tmp/security/{kind}, root, {choice.name}.json","w").write(json.dumps(found))
    assert differences(found, expected(kind, "root")) == []


@pytest.mark.parametrize("kind", USER_KINDS)
def test_what_a_users_containers_can_do(
    kind: str, ground: Path, choice: Choice, somebody: pwd.struct_passwd
) -> None:
    """Nor of who isn't root."""
    place = ground / f"{kind}-{choice.name}"
    place.mkdir()
    os.chown(place, somebody.pw_uid, somebody.pw_gid)

    async def program() -> None:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["HOME"] = str(place)
        found = await probe(kind, ground, choice.runtime())
        (place / "found").write_text(json.dumps(found))

    as_user(somebody.pw_uid, somebody.pw_gid, program)
    found = json.loads((place / "found").read_text())
    if os.environ.get("DUMP"): open(f"/tmp/security/{kind}, user, {choice.name}.json","w").write(json.dumps(found))
    assert differences(found, expected(kind, "user")) == []


def test_the_probe_is_wide() -> None:
    """As many things are tried as the page says."""
    assert len(OURS) >= 70
    assert len({*READS, *WRITES, *MAKES}) >= 40


def test_the_page_names_each_difference_to_docker() -> None:
    """Whatever ours refuses and docker's doesn't stands on the page, with its reason."""
    page = (HERE.parents[1] / "docs/security.md").read_text()
    for call, reason in STRICTER.items():
        assert OURS[call] == "refused"
        assert f"`{call}`" in page and reason in page, call
