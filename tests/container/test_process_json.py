"""What the runtimes read from process.json and config.json is what was put in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor import PIPE, Bundle, Container, ContainerPool, Process, run_container
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.runtimes import needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun"), pytest.mark.rootless]

EXAMPLES = 25

plain = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("PATH", "HOME", "HOSTNAME", "_", "PWD")
)


async def output_of(process: Process) -> bytes:
    assert process.stdout is not None
    async with process.stdout as stream:
        return b"".join([chunk async for chunk in stream])


async def seen_by_exec(box: Container, args: list[str], env: dict[str, str]) -> tuple[bytes, bytes]:
    """Return the command line and environment that an exec of busybox's cat finds in /proc."""
    async with trio.open_nursery() as nursery:
        results: dict[str, bytes] = {}

        async def one(name: str) -> None:
            process = await box.exec(
                ["cat", f"/proc/self/{name}", "--", *args], env=env, stdout=PIPE
            )
            results[name] = await output_of(process)
            await process.wait()

        nursery.start_soon(one, "cmdline")
        nursery.start_soon(one, "environ")
    return results["cmdline"], results["environ"]


async def test_exec_reads_what_was_put_in(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Arguments and variables with any text that a runtime can carry arrive unchanged."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "600")) as box:
        await box.start()
        checked = 0

        async def check(args: list[str], env: dict[str, str]) -> None:
            cmdline, environ = await seen_by_exec(box, args, env)
            wanted = b"".join(word.encode() + b"\0" for word in args)
            # An argument may be a file's name in there, which is then put out behind.
            assert cmdline.partition(b"--\0")[2].startswith(wanted)
            variables = dict(entry.partition(b"=")[::2] for entry in environ.split(b"\0"))
            for name, value in env.items():
                assert variables[name.encode()] == value.encode()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(plain, max_size=4), st.dictionaries(names, plain, max_size=4))
        def examples(args: list[str], env: dict[str, str]) -> None:
            nonlocal checked
            trio.from_thread.run(check, args, env)
            checked += 1

        await trio.to_thread.run_sync(examples)
        assert checked >= EXAMPLES


NULLABLE = ("env", "user", "capabilities", "rlimits", "noNewPrivileges", "consoleSize")


@needs_root
@pytest.mark.parametrize("key", [*NULLABLE, "gid"])
async def test_null_is_missing(supervisor: OpenSupervisor, bundle: MakeBundle, key: str) -> None:
    """Null means *nothing*, as programs written in Go write it; create and exec once raised
    TypeError."""
    made = bundle("/bin/sleep", "600")
    config = Path(made.path) / "config.json"
    spec = json.loads(config.read_text())
    (spec["process"]["user"] if key == "gid" else spec["process"])[key] = None
    config.write_text(json.dumps(spec))
    async with supervisor() as sup, await sup.create("a", Bundle.load(made.path)) as box:
        await box.start()
        job = await box.exec(["/bin/busybox", "env"], env={"A": "b"}, user=1, stdout=PIPE)
        assert b"A=b\n" in await output_of(job)
        assert (await job.wait()).code == 0
    async with supervisor() as sup:
        async with await sup.create("a", Bundle.load(made.path), env={"A": "b"}) as box:
            await box.start()
            assert (await box.run(["/bin/true"])).returncode == 0


async def test_null_in_a_pool(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Null means *nothing* also in a pool, where the program comes later."""
    made = bundle("/bin/true")
    config = Path(made.path) / "config.json"
    spec = json.loads(config.read_text())
    spec["process"]["env"] = None
    config.write_text(json.dumps(spec))
    async with supervisor() as sup:
        async with ContainerPool(Bundle.load(made.path), size=1, supervisor=sup) as pool:
            done = await pool.run(["/bin/busybox", "env"], env={"A": "b"})
            assert b"A=b\n" in (done.stdout or b"")


def _respelt(bundle: Bundle, path: Path, **changes: object) -> Bundle:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**bundle.spec, **changes}))
    return Bundle.load(path)


@needs_root
@pytest.mark.parametrize("version", ["1.0", "v1.0.2", "1.0.2-dev", "1.1.0+dev", "1.0.0-rc5"])
async def test_versions_that_both_runtimes_take(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, version: str
) -> None:
    """The runtime decides whether it runs a version: we once refused "1.0"."""
    taken = _respelt(bundle("sh", "-c", "exit 3"), workdir / "other", ociVersion=version)
    async with supervisor() as sup:
        assert (await run_container(taken, supervisor=sup, check=False)).status.code == 3


@needs_root
async def test_an_empty_path_of_a_namespace(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path
) -> None:
    """An empty path of a namespace means a new namespace, as programs written in Go write it; crun
    would look for the path."""
    made = bundle("sh", "-c", "exit 3")
    named = [{**one, "path": ""} for one in made.spec["linux"]["namespaces"]]
    taken = _respelt(made, workdir / "other", linux={**made.spec["linux"], "namespaces": named})
    async with supervisor() as sup:
        assert (await run_container(taken, supervisor=sup, check=False)).status.code == 3
