"""A server that is killed at random points, which reveals a bug.

The server keeps keys and values in a file. The bug: the server acknowledges a write that is only in
memory, and saves three writes at once; a kill before that loses them. Hypothesis writes, reads,
kills and restarts, finds the bug, and shrinks the search to the few steps that matter.

``python examples/durable.py`` prints these steps. ``python examples/durable.py fixed`` tests a
server without the bug, and finds nothing.
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
    """One life of the server. The methods run in the supervisor's thread."""

    def __init__(self, box: Container) -> None:
        self.box = box

    @classmethod
    async def start(cls, supervisor: Supervisor, bundle: Bundle, name: str) -> Server:
        """Start the server on the data of the earlier lives."""
        server = cls(await supervisor.create(name, bundle, stdin=PIPE, stdout=PIPE))
        await server.box.start()
        return server

    async def ask(self, line: str) -> str:
        """Send the server a line, and return the answer."""
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
        """SIGKILL the server, and delete the container."""
        await self.box.delete(force=True)


class Durability(RuleBasedStateMachine):
    """The server keeps every acknowledged write, also after a kill."""

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
        """The server acknowledges a write."""
        assert self.thread.run_sync(self.server.ask, f"set {key} {value}") == "ok"
        self.acknowledged[key] = str(value)

    @rule(key=keys)
    def read(self, key: str) -> None:
        """The server has the value that was acknowledged last."""
        answer = self.thread.run_sync(self.server.ask, f"get {key}")
        assert answer == self.acknowledged.get(key, "")

    @rule()
    def crash(self) -> None:
        """The server is killed, and started again."""
        self.thread.run_sync(self.server.kill)
        self.server = self.new_life()

    def teardown(self) -> None:
        """Remove the server and the data."""
        self.thread.run_sync(self.server.kill)
        shutil.rmtree(self.data)


def search(script: str) -> None:
    """Search for a lost write; raise AssertionError if one is found."""
    with SupervisorThread() as thread:

        @seed(7)  # the same search each time; without a seed, another search
        def machine() -> Durability:
            return Durability(thread, script)

        run_state_machine_as_test(machine, settings=SEARCH)


def main(arguments: list[str]) -> None:
    """Search, and print the steps that lose a write."""
    try:
        search(FIXED if "fixed" in arguments else BUGGY)
    except AssertionError as error:
        print("An acknowledged write is lost:")
        print("\n".join(error.__notes__))
    else:
        print("No write was lost.")


if __name__ == "__main__":
    main(sys.argv[1:])
