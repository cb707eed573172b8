"""What a program in a container can do, as one probe tries: every answer is expected, or
reported."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import Bundle, Mount, open_supervisor, run_container
from supervisor.bundle._compose import MASKED_PATHS
from tests.hostile.table import FAMILIES, MAKES, MOBY, OURS, READS, WRITES, source
from tests.support.bundle_running import open_directory
from tests.support.runtimes import Choice, needs_root
from tests.support.users import as_user

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/security.md"
SECONDS = 60
KINDS = ("from_rootfs", "from_host", "from_rootfs userns", "from_host userns")
USER_KINDS = ("from_rootfs", "from_host")
NODES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "tty", "random", "urandom"))
WRITABLE = {
    "/dev": "tmpfs",
    "/dev/mqueue": "mqueue",
    "/dev/pts": "devpts",
    "/dev/shm": "tmpfs",
    "/proc": "proc",
    "/run": "tmpfs",
    "/sys/fs/cgroup": "tmpfs",  # of version 1, with runc: no program in there may write to it
    "/tmp": "tmpfs",
}
Answers = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A directory with the probe, and a root filesystem with nothing else."""
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
    """Return a bundle with all our defaults, and with a user namespace only if that is asked
    for."""
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
    found: Answers = json.loads(done.stdout or b"")
    return found


def expected(kind: str, who: str, runtime: str) -> dict[str, dict[str, str | None]]:
    """Return the table's answers: one for all, or one by kind, runtime and user; None for none."""
    table = json.loads((HERE / "expected.json").read_text())
    which = (f"{kind}, {who}", f"{runtime}, {who}", runtime, "else")
    answers: dict[str, dict[str, str | None]] = {
        section: {
            name: next(one[key] for key in which if key in one) if isinstance(one, dict) else one
            for name, one in rows.items()
        }
        for section, rows in table.items()
    }
    answers["calls"] = {call.replace('"', "'"): said for call, said in OURS.items()}
    return answers


def differences(found: Answers, wanted: dict[str, dict[str, str | None]]) -> list[str]:
    """Return what differs, for people; a call that this processor lacks is left out."""
    return [
        f"{section}: {name}: {found[section].get(name)!r}, not {rows.get(name)!r}"
        for section, rows in wanted.items()
        for name in sorted({*rows, *found[section]})
        if found[section].get(name) != rows.get(name)
        and not (section == "calls" and name not in found[section])
    ]


def loose_mounts(found: Answers) -> list[str]:
    """Return mounts that are writable, or allow setuid programs of the host's, and shouldn't."""
    told = []
    for place, text in found["mounts"].items():
        kind, _, options = text.partition(" ")
        flags = set(options.split(","))
        if place in WRITABLE and kind != "cgroup2":
            wrong = "nosuid" not in flags or kind != WRITABLE[place]
        elif place == "/":
            wrong = "ro" not in flags
        elif kind == "devtmpfs" or place in MASKED_PATHS:  # one of /dev's, or what masks a file
            wrong = place not in {*NODES, *MASKED_PATHS}
        elif kind in ("proc", "tmpfs"):
            wrong = "ro" not in flags
        else:
            wrong = not {"ro", "nosuid", "nodev"} <= flags
        if wrong:
            told.append(f"mounts: {place}: {text}")
    return told


@pytest.mark.parametrize("kind", KINDS)
async def test_what_roots_containers_can_do(
    kind: str, ground: Path, choice: Choice, cgroup_parent: str
) -> None:
    """No answer differs from the table, with either runtime."""
    found = await probe(kind, ground, choice.runtime(), cgroup_parent=cgroup_parent)
    assert differences(found, expected(kind, "root", choice.name)) + loose_mounts(found) == []


@pytest.mark.parametrize("kind", USER_KINDS)
def test_what_a_users_containers_can_do(
    kind: str, ground: Path, choice: Choice, somebody: pwd.struct_passwd
) -> None:
    """No answer for an ordinary user's containers differs from the table either."""
    place = ground / f"{kind}-{choice.name}"
    place.mkdir()
    os.chown(place, somebody.pw_uid, somebody.pw_gid)

    async def program() -> None:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["HOME"] = str(place)
        found = await probe(kind, ground, choice.runtime())
        (place / "found").write_text(json.dumps(found))

    as_user(somebody.pw_uid, somebody.pw_gid, program)
    found = json.loads((place / "found").read_text())
    assert differences(found, expected(kind, "user", choice.name)) + loose_mounts(found) == []


def test_the_probe_is_wide() -> None:
    """The probe tries as many things as the page says."""
    assert len(OURS) >= 70
    assert len({*READS, *WRITES, *MAKES}) >= 40


def test_the_page_names_each_difference_to_docker() -> None:
    """The page lists each call that ours refuses and docker's doesn't, with the reason."""
    page = PAGE.read_text()
    for call, family in FAMILIES.items():
        assert OURS[call] == "refused"
        assert f"`{family}`" in page, call
    assert {call for call, said in OURS.items() if said != MOBY.get(call, said)} == set(FAMILIES)


def test_the_page_names_tests_that_exist() -> None:
    """Each row of the page's table names an existing test."""
    named = re.findall(r"`([a-z_/]+\.py)::(test_[a-z0-9_]+)`", PAGE.read_text())
    assert len(named) >= 15
    for path, name in named:
        text = (HERE.parent / path).read_text()
        assert re.search(rf"def {name}\b", text), f"{path}::{name}"
