"""A server that is killed at random points, and a bug in it that only this finds.

The server keeps keys and values in a file. It says "ok" to writes that it has only in memory, and
loses them if it is killed before it has three. Hypothesis writes, reads, kills and restarts, finds
that, and shrinks it to the few steps that matter.

Run it as ``python examples/durable.py``: it prints the steps. With ``fixed`` behind it, the server
has no bug, and nothing is found.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import trio
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from supervisor import PIPE, Bundle, Container, Mount, Supervisor
from supervisor.testing import SupervisorThread, profile

SERVER = """
load() { while read -r key value; do eval "v_$key=\\$value"; done < /data/file; }
save() { printf "$pending" >> /data/file; pending=; }
touch /data/file; load
while read -r verb key value; do
    case $verb in
    get) eval "echo \\"\\$v_$key\\"" ;;
    set) eval "v_$key=\\$value"; pending="$pending$key $value\\n"
         EAGER
         [ ${#pending} -lt 12 ] || save
         echo ok ;;
    esac
done
"""
BUGGY, FIXED = SERVER.replace("EAGER", ":"), SERVER.replace("EAGER", "save")

ANSWER_SECONDS = 10.0
SEARCH = settings(
    profile(database=None, deadline=None, max_examples=50),
    stateful_step_count=10,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)

keys = st.sampled_from(["a", "b"])
values = st.integers(0, 9)


class Server:
    """One life of the server. Its methods run in the supervisor's thread."""

    def __init__(self, box: Container) -> None:
        self.box = box

    @classmethod
    async def start(cls, supervisor: Supervisor, bundle: Bundle, name: str) -> Server:
        """Start it on the data that its earlier lives have left."""
        server = cls(await supervisor.create(name, bundle, stdin=PIPE, stdout=PIPE))
        await server.box.start()
        return server

    async def ask(self, line: str) -> str:
        """Send it a line, and return its answer."""
        assert self.box.stdin is not None and self.box.stdout is not None
        answer = b""
        with trio.fail_after(ANSWER_SECONDS):
            await self.box.stdin.send_all(line.encode() + b"\n")
            while not answer.endswith(b"\n"):
                chunk = await self.box.stdout.receive_some()
                assert chunk, "the server has ended by itself"
                answer += chunk
        return answer.decode().strip()

    async def kill(self) -> None:
        """SIGKILL it, and remove its container."""
        await self.box.delete(force=True)


class Durability(RuleBasedStateMachine):
    """What was acknowledged is there, whatever happens to the server."""

    def __init__(self, thread: SupervisorThread, script: str) -> None:
        super().__init__()
        self.thread = thread
        self.data = Path(tempfile.mkdtemp(prefix="trio-supervisor-"))
        mount = Mount(self.data, "/data", read_only=False)
        self.bundle = Bundle.from_host(["sh", "-c", script], mounts=[mount])
        self.acknowledged: dict[str, str] = {}
        self.lives = 0
        self.server = self.new_life()

    def new_life(self) -> Server:
        """Start the server."""
        self.lives += 1
        return self.thread.run_sync(
            Server.start, self.thread.supervisor, self.bundle, f"life-{self.lives}"
        )

    @rule(key=keys, value=values)
    def write(self, key: str, value: int) -> None:
        """It acknowledges a write."""
        assert self.thread.run_sync(self.server.ask, f"set {key} {value}") == "ok"
        self.acknowledged[key] = str(value)

    @rule(key=keys)
    def read(self, key: str) -> None:
        """It has the value that it has acknowledged last."""
        answer = self.thread.run_sync(self.server.ask, f"get {key}")
        assert answer == self.acknowledged.get(key, "")

    @rule()
    def crash(self) -> None:
        """It is killed, and started again."""
        self.thread.run_sync(self.server.kill)
        self.server = self.new_life()

    def teardown(self) -> None:
        """Leave nothing."""
        self.thread.run_sync(self.server.kill)
        shutil.rmtree(self.data)


def search(script: str) -> None:
    """Look for a write that is lost; raises if there is one."""
    with SupervisorThread() as thread:

        @seed(7)  # the same search each time; without it, another one
        def machine() -> Durability:
            return Durability(thread, script)

        run_state_machine_as_test(machine, settings=SEARCH)


def main(arguments: list[str]) -> None:
    """Search, and print the steps that lose a write."""
    try:
        search(FIXED if "fixed" in arguments else BUGGY)
    except AssertionError as error:
        print("A write that was acknowledged is lost:")
        print("\n".join(error.__notes__))
    else:
        print("No write was lost.")


if __name__ == "__main__":
    main(sys.argv[1:])
