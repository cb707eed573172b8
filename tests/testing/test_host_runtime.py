"""HostRuntime runs bundles on the host, for any user; FaultyRuntime fails as asked."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import tempfile
import traceback
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import (
    PIPE,
    Bundle,
    CreateTimeout,
    Deadlines,
    InvalidValue,
    RuntimeFailed,
    open_supervisor,
    run_container,
)
from supervisor.testing import leak_check
from supervisor.testing.runtimes import Fault, FaultyRuntime, HostRuntime
from tests.conftest import OpenSupervisor
from tests.support.runtimes import needs_root

NOBODY = 65534
PYTHON = shutil.which("python3", path="/usr/bin:/bin")

pytestmark = pytest.mark.runtimes("fake")


async def test_runs_on_the_host(workdir: Path) -> None:
    """A bundle's program runs on the host with the bundle's arguments, environment and
    directory."""
    bundle = Bundle.from_host(
        ["sh", "-c", "echo $GREETING; pwd; exit 3"],
        env={"GREETING": "hello"},
        cwd=str(workdir),
        path=workdir / "bundle",
    )
    done = await run_container(
        bundle, runtime=HostRuntime().runtime, capture_stdout=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, f"hello\n{workdir}\n".encode())


async def _supervise() -> None:
    """Supervise a container; exit with 0 if all is right."""
    bundle = Bundle.from_host(["sh", "-c", "id -u; read line"])
    host = HostRuntime(python=PYTHON)
    async with (
        leak_check(temporary=False, cgroup_parent=None),  # there are no cgroups
        open_supervisor(runtime=host.runtime) as sup,
    ):
        async with await sup.create("web", bundle, stdin=PIPE, stdout=PIPE) as box:
            await box.start()
            assert box.stdout is not None
            assert await box.stdout.receive_some() == b"%d\n" % NOBODY
            job = await box.exec(["sh", "-c", "exit 4"])
            assert (await job.wait()).code == 4
            box.kill()
            assert (await box.wait()).signal == signal.SIGKILL


@needs_root
@pytest.mark.skipif(PYTHON is None, reason="needs a Python that everybody may run")
def test_ordinary_user(workdir: Path) -> None:
    """An ordinary user, without cgroups and runtimes, can run and supervise with HostRuntime."""
    place = workdir / "nobodys"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            # Or /proc/self is root's: man 2 prctl, PR_SET_DUMPABLE.
            assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0
            tempfile.tempdir = str(place)
            trio.run(_supervise)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


async def test_terminal(supervisor: OpenSupervisor) -> None:
    """A process of HostRuntime may have a terminal."""
    async with supervisor() as sup:
        bundle = Bundle.from_host(["sh", "-c", "test -t 0 && stty size"])
        async with await sup.create("a", bundle, terminal=(77, 33)) as box:
            await box.start()
            async with await box.attach() as terminal:
                said = b""
                while not said.endswith(b"\n"):
                    said += await terminal.receive_some()
            assert said == b"33 77\r\n"
            assert (await box.wait()).code == 0


async def test_fault_of_one_container() -> None:
    """A fault may be limited to one container; the others work."""
    faulty = FaultyRuntime(Fault(verb="start", what="fail", value="no luck", container="b"))
    bundle = Bundle.from_host(["true"])
    async with open_supervisor(runtime=faulty.runtime) as sup:
        async with await sup.create("a", bundle) as a, await sup.create("b", bundle) as b:
            await a.start()
            with pytest.raises(RuntimeFailed, match="no luck"):
                await b.start()
            assert (await a.wait()).code == 0


async def test_fault_while(workdir: Path) -> None:
    """A fault may hold for as long as a file exists."""
    trouble = workdir / "trouble"
    trouble.touch()
    faulty = FaultyRuntime(Fault(verb="create", what="hang", only_while=trouble))
    bundle = Bundle.from_host(["true"])
    deadlines = Deadlines(create=0.3)
    async with open_supervisor(runtime=faulty.runtime, deadlines=deadlines) as sup:
        with pytest.raises(CreateTimeout):
            await sup.create("a", bundle)
    trouble.unlink()
    async with open_supervisor(runtime=faulty.runtime) as sup:
        async with await sup.create("a", bundle) as box:
            await box.start()


async def test_fault_once(workdir: Path) -> None:
    """A fault may happen only once."""
    trouble = workdir / "trouble"
    trouble.touch()
    faulty = FaultyRuntime(Fault(verb="create", when="after-pid", what="die", once=trouble))
    bundle = Bundle.from_host(["true"])
    async with open_supervisor(runtime=faulty.runtime) as sup:
        with pytest.raises(RuntimeFailed, match="signal 9"):
            await sup.create("a", bundle)
        async with await sup.create("a", bundle) as box:
            await box.start()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"what": "explode"}, "'explode'"),
        ({"what": "hang", "verb": "run"}, "verb must be .* not 'run'"),
        ({"what": "hang", "verb": "start", "when": "before-pid"}, "no 'before-pid' in start"),
        ({"what": "hang", "when": "sometimes"}, "not 'sometimes'"),
        ({"what": "no-pid", "when": "after"}, "takes no when"),
        ({"what": "no-pid", "verb": "delete"}, "delete makes no process: no-pid"),
        ({"what": "late", "verb": "create"}, "needs seconds"),
        ({"what": "late", "value": -1}, "needs seconds"),
        ({"what": "late", "value": float("inf")}, "needs seconds"),
        ({"what": "tell", "value": "pid"}, "absolute path"),
        ({"what": "fail", "value": 5}, "needs text"),
        ({"what": "die", "value": "now"}, "takes no value"),
        ({"what": "die", "only_while": "/a", "once": "/b"}, "not both"),
    ],
)
def test_faults_that_cannot_be(told: dict[str, Any], said: str) -> None:
    """An impossible fault is refused by name when it is made."""
    with pytest.raises(InvalidValue, match=said):
        Fault(**told)


async def test_wrong_usage_is_said(workdir: Path) -> None:
    """HostRuntime's own errors are single lines, as runtimes' are, and no tracebacks."""
    host = HostRuntime(root=workdir / "boxes").runtime
    for words in ([], ["start"], ["--root"], ["--what", "x", "list"], ["kill", "a", "SIGNO"]):
        command = [host.path, *host.args, *(["--root", str(workdir)] if words[:1] else []), *words]
        done = await trio.run_process(command, capture_stderr=True, check=False)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr and done.stderr.count(b"\n") == 1
