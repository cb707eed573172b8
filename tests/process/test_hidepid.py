"""/proc with hidepid: an ordinary user's containers run as another user, and don't show in
/proc."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import traceback
from functools import partial
from pathlib import Path

import pytest

from supervisor import PIPE, Bundle, open_supervisor, run_container
from supervisor.native import find_binary
from tests.support.runtimes import Choice, needs_root
from tests.support.users import as_user, own_mounts, somebody

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

_CLONE_NEWNS = 0x20000


@pytest.fixture
def user() -> pwd.struct_passwd:
    """A user with subordinate ids."""
    if not own_mounts():
        pytest.skip("mounts of ours would be seen by others: run scripts/test")
    with somebody() as found:
        return found


async def _life(runtime: str, root: str, shim: str) -> None:
    """Go through all that looks at a process: create, adopt, start, exec, signals, stop, delete."""
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    bundle = Bundle.from_host(["sh", "-c", script], user=1000)
    async with open_supervisor(root, runtime=runtime, shim=shim) as sup:
        box = await sup.create("a", bundle, stdout=PIPE)
        assert box.pid is not None, "its pid isn't certain"
        assert box.status is None and box.state.value == "created"
    async with open_supervisor(root, runtime=runtime, shim=shim) as sup:
        box = sup["a"]
        assert box.pid is not None, "its pid isn't certain when it is adopted"
        await box.start()
        assert box.stdout is not None and await box.stdout.receive_some() == b"ready\n"
        told = await box.run(["sh", "-c", "id -u"], capture_stdout=True)
        assert told.stdout == b"1000\n"
        process = await box.exec(["sleep", "60"])
        assert process.pid is not None
        process.kill()
        assert (await process.wait()).signal == signal.SIGKILL
    async with open_supervisor(root, runtime=runtime, shim=shim) as sup:
        box = sup["a"]
        stopped = await box.stop(grace=20)
        assert stopped.status.code == 5 and not stopped.escalated, stopped
        await box.delete()
        box = await sup.create("a", bundle)
        await box.delete(force=True)
        done = await run_container(bundle, args=["true"], supervisor=sup)
        assert done.returncode == 0


def _where_proc_hides(hidepid: int, user: pwd.struct_passwd, runtime: str, *words: str) -> int:
    """Go through a container's life in a child with mounts of its own; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert ctypes.CDLL(None).unshare(_CLONE_NEWNS) == 0  # in Python since 3.12
            options = f"hidepid={hidepid}"
            subprocess.run(["mount", "-t", "proc", "-o", options, "proc", "/proc"], check=True)
            as_user(user.pw_uid, user.pw_gid, partial(_life, runtime, *words))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("hidepid", [0, 1, 2])
def test_a_whole_life(choice: Choice, workdir: Path, hidepid: int, user: pwd.struct_passwd) -> None:
    """A whole life works under hidepid: once the pid file named "no child of the shim", wrongly;
    and runc didn't start the container."""
    if choice.name == "crun" and hidepid == 1:
        pytest.skip("a bare crun fails there: open state file /proc/N/stat: not permitted")
    shim = workdir / "supervisor-shim"
    shutil.copy(find_binary("supervisor-shim"), shim)
    shim.chmod(0o755)
    root = workdir / "root"
    root.mkdir()
    os.chown(root, user.pw_uid, user.pw_gid)
    assert _where_proc_hides(hidepid, user, choice.name, str(root), str(shim)) == 0
