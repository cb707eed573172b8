"""The program behind `HostRuntime`: an OCI command line that runs processes on the host.

Python runs the program by path, ``python -IS _host_program.py``; `HostRuntime` and `FaultyRuntime`
compose the command line. The containers have no namespaces, no root filesystem, no cgroup and no
user of their own. The program is slow and simple on purpose, and imports nothing of ours.

``--fault JSON``, a global argument, is one `Fault`. Source: the OCI runtime command-line interface.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False  # every import costs milliseconds, in each call
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn, TypeAlias

FLAGS = {
    "--all",
    "--detach",
    "--ext-unix-sk",
    "--file-locks",
    "--force",
    "--leave-running",
    "--no-pivot",
    "--shell-job",
    "--tcp-established",
}
GLOBALS = {"--root", "--log", "--log-format", "--fault"}
POLL_SECONDS = 0.002

Options: TypeAlias = "dict[str, Any]"
Faults: TypeAlias = "list[dict[str, Any]]"


# ---- the command line -----------------------------------------------------------------------


def parse(words: list[str]) -> tuple[str, Options, list[str], Faults]:
    """Return the verb, the verb's options and arguments, and the faults."""
    options: Options = {}
    rest: list[str] = []
    verb = ""
    faults: Faults = []
    words = list(words)
    while words:
        word = words.pop(0)
        if word in FLAGS:
            options[word] = True
        elif word.startswith("--"):
            if not words or (not verb and word not in GLOBALS):
                complain(options, f"unknown option, or an option without a value: {word}")
            value = words.pop(0)
            if word == "--fault":
                faults.append(json.loads(value))
            else:
                options[word] = value
        elif not verb:
            verb = word
        else:
            rest.append(word)
    return verb, options, rest, faults


def complain(options: Options, message: str) -> NoReturn:
    """Log and exit as runtimes do: the last log entry of level error is the one that matters."""
    entries = [("error", "an earlier error"), ("error", message), ("warning", "a later warning")]
    if "--log" in options:
        with open(options["--log"], "a", encoding="utf-8") as file:
            for level, text in entries:
                entry = {"level": level, "msg": text, "time": "2000-01-01T00:00:00Z"}
                file.write(json.dumps(entry) + "\n")
            file.write("not JSON\n")
    sys.stderr.write(message + "\n")
    sys.exit(1)


# ---- faults ---------------------------------------------------------------------------------


class Misbehaviour:
    """The faults of this call."""

    def __init__(self, verb: str, container: str, options: Options, faults: Faults) -> None:
        self.verb = verb
        self.options = options
        self.faults = [
            fault
            for fault in faults
            if fault["verb"] in (None, verb) and fault["container"] in (None, container)
        ]

    def now(self, what: str, when: str = "first") -> Iterator[dict[str, Any]]:
        """Yield the faults of a kind that happen at this time."""
        for fault in self.faults:
            if (fault["what"], fault["when"]) == (what, when) and applies(fault):
                yield fault

    def at(self, when: str) -> None:
        """Carry out the faults of this time."""
        for fault in self.now("tell", when):
            with open(fault["value"] + ".new", "w", encoding="utf-8") as file:
                file.write(str(os.getpid()))
            os.rename(file.name, fault["value"])
        for _ in self.now("noisy", when):
            sys.stderr.write("x" * (1 << 20))
            sys.stderr.flush()
        for fault in self.now("late", when):
            time.sleep(fault["value"])
        for fault in self.now("hang", when):
            while fault["only_while"] is None or os.path.exists(fault["only_while"]):
                time.sleep(POLL_SECONDS)
        for _ in self.now("die", when):
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in self.now("mute", when):
            sys.exit(1)
        for fault in self.now("fail", when):
            complain(self.options, fault["value"] or f"told to fail in {self.verb}")


def applies(fault: dict[str, Any]) -> bool:
    """Whether a fault happens now, as far as its files say; removes the file of ``once``."""
    if fault["only_while"] is not None:
        return os.path.exists(fault["only_while"])
    if fault["once"] is not None:
        try:
            os.unlink(fault["once"])
        except FileNotFoundError:
            return False
    return True


# ---- processes ------------------------------------------------------------------------------


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat, from the state on; none if there is no process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def check_process(options: Options, process: dict[str, Any]) -> str:
    """Return the path of the program, or complain, as a runtime does before making a process."""
    args: list[str] = process.get("args") or complain(options, "process.args is empty")
    paths = [entry[5:] for entry in process.get("env", ()) if entry.startswith("PATH=")]
    search = paths[-1] if paths else os.environ.get("PATH", os.defpath)
    if not os.path.isdir(process.get("cwd", "/")):
        complain(options, f"cannot chdir to {process['cwd']}: no such directory")
    places = [""] if "/" in args[0] else search.split(os.pathsep)
    for path in (os.path.join(place, args[0]) for place in places):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    complain(options, f"exec: {args[0]!r}: executable file not found in $PATH")


def run_process(
    options: Options,
    process: dict[str, Any],
    faults: Misbehaviour,
    gate: str | None = None,
    preserved: int = 0,
) -> int:
    """Fork the process, and return the pid.

    With a gate the process waits until ``start`` writes to the gate. The process keeps
    ``preserved`` descriptors, from 3 on.
    """
    program = check_process(options, process)
    fd = os.open(gate, os.O_RDWR) if gate else -1  # start writes to the gate, then removes it
    terminal = open_terminal(options, process, faults) if process.get("terminal") else -1
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if terminal >= 0:
                take_terminal(terminal)
            if gate:
                os.read(fd, 1)
            become(program, process, preserved)
        except BaseException as error:
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
        finally:
            os._exit(127)
    for ours in (fd, terminal):
        if ours >= 0:
            os.close(ours)
    return pid


def become(program: str, process: dict[str, Any], preserved: int) -> None:
    """Become the program, which inherits only our streams."""
    os.chdir(process.get("cwd", "/"))
    for number in signal.valid_signals():  # Python ignores some, and our caller may ignore others
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.closerange(3 + preserved, 1 << 20)
    env = dict(entry.partition("=")[::2] for entry in process.get("env", ()))
    os.execve(program, process["args"], env)


def open_terminal(options: Options, process: dict[str, Any], faults: Misbehaviour) -> int:
    """Make a terminal, send the master to the console socket, and return the slave.

    A fault may prevent the sending.
    """
    import array  # noqa: PLC0415  (few processes have a terminal)
    import fcntl  # noqa: PLC0415
    import socket  # noqa: PLC0415
    import struct  # noqa: PLC0415
    import termios  # noqa: PLC0415

    if "--console-socket" not in options:
        complain(options, "a process with a terminal needs --console-socket")
    master, slave = os.openpty()
    size = process.get("consoleSize") or {"height": 0, "width": 0}
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", size["height"], size["width"], 0, 0))
    if any(faults.now("no-console")):
        return slave
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(options["--console-socket"])
        fds = array.array("i", [master])
        console.sendmsg([b"/dev/ptmx"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    os.close(master)
    return slave


def take_terminal(terminal: int) -> None:
    """Make the terminal our controlling terminal, and our three streams."""
    import fcntl  # noqa: PLC0415
    import termios  # noqa: PLC0415

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(terminal, fd)


def write_pid(options: Options, pid: int, faults: Misbehaviour) -> None:
    """Write the pid file, unless a fault prevents that."""
    if any(faults.now("no-pid")):
        return
    text = str(pid)
    for fault in faults.now("garbage-pid"):
        text = "gar\0bage" if fault["value"] is None else fault["value"]
    if "--pid-file" in options:
        with open(options["--pid-file"], "w", encoding="utf-8") as file:
            file.write(text)


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for one in found:
        try:
            with open(f"/proc/{one}/task/{one}/children", encoding="utf-8") as file:
                found += map(int, file.read().split())
        except OSError:
            continue
    return found


# ---- containers -----------------------------------------------------------------------------


class Box:
    """A container's directory below ``--root``."""

    def __init__(self, root: str, name: str) -> None:
        self.name = name
        self.path = os.path.join(root, name)
        self.gate = os.path.join(self.path, "exec.fifo")
        self.file = os.path.join(self.path, "state")
        self.paused = os.path.join(self.path, "paused")

    def exists(self) -> bool:
        """Whether the container's process was ever made."""
        return os.path.exists(self.file)

    def save(self, pid: int, bundle: str) -> None:
        """Write the container's files; the file with the pid comes last."""
        facts = {"started": stat(pid)[19:20], "bundle": bundle}
        for path, text in ((f"{self.path}/facts", json.dumps(facts)), (self.file, str(pid))):
            with open(path + ".new", "w", encoding="utf-8") as file:
                file.write(text)
            os.rename(path + ".new", path)

    def pid(self) -> int:
        """Return the pid of the init, dead or alive."""
        with open(self.file, encoding="utf-8") as file:
            return int(file.read())

    def facts(self) -> dict[str, Any]:
        """Return the other facts on disk: the init's start time and the bundle."""
        with open(f"{self.path}/facts", encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
            return found

    def alive(self) -> bool:
        """Whether the init lives, and the pid doesn't belong to another process by now."""
        found = stat(self.pid())
        return bool(found) and found[0] not in "ZX" and found[19:20] == self.facts()["started"]

    def status(self) -> str:
        """Return the container's status."""
        if not self.alive():
            return "stopped"
        if os.path.exists(self.paused):
            return "paused"
        return "created" if os.path.exists(self.gate) else "running"

    def told(self) -> dict[str, Any]:
        """Return the state, as the OCI runtime specification describes."""
        status = self.status()
        return {
            "ociVersion": "1.0.2",
            "id": self.name,
            "status": status,
            "pid": 0 if status == "stopped" else self.pid(),
            "bundle": self.facts()["bundle"],
        }

    def remove(self) -> None:
        """Remove the container's directory."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.path):
                os.unlink(os.path.join(self.path, name))
            os.rmdir(self.path)


# ---- verbs ----------------------------------------------------------------------------------


def shown(spec: dict[str, Any]) -> None:
    """Run a program that the spec mounts from the mount's source on the host."""
    sources = {mount["destination"]: mount.get("source") for mount in spec.get("mounts", ())}
    args = spec["process"].get("args")
    if args and sources.get(args[0]):
        args[0] = sources[args[0]]


def create(box: Box, options: Options, faults: Misbehaviour, *, gated: bool = True) -> None:
    """Make a container; the process waits at the gate."""
    bundle = os.path.abspath(options.get("--bundle", "."))
    try:
        with open(os.path.join(bundle, "config.json"), encoding="utf-8") as file:
            text = file.read()
        spec = json.loads(text)
        process = spec["process"]
    except (OSError, ValueError, KeyError) as error:
        complain(options, f"config.json: {error}")
    shown(spec)
    check_process(options, process)
    try:
        os.makedirs(box.path)
    except FileExistsError:
        complain(options, "a container of that id is half-made: run delete --force")
    os.mkfifo(box.gate)
    with open(os.path.join(box.path, "config.json"), "w", encoding="utf-8") as file:
        file.write(text)
    preserved = int(options.get("--preserve-fds", 0))
    pid = run_process(options, process, faults, box.gate if gated else None, preserved)
    box.save(pid, bundle)
    if not gated:
        os.unlink(box.gate)
    faults.at("before-pid")
    write_pid(options, pid, faults)
    faults.at("after-pid")


def start(box: Box, options: Options, faults: Misbehaviour) -> None:
    """Open the gate."""
    if box.status() != "created":
        complain(options, f"cannot start: the container is {box.status()}")
    fd = os.open(box.gate, os.O_RDWR)
    os.write(fd, b"g")
    os.unlink(box.gate)
    faults.at("after")


def delete(box: Box, options: Options, faults: Misbehaviour) -> None:
    """Forget a container; with --force, kill the container first."""
    if not box.exists():
        if "--force" in options:
            box.remove()  # a killed create may have left the directory
            return
        complain(options, "no such container")
    if box.alive():
        if "--force" not in options:
            complain(options, "the container is not stopped")
        os.kill(box.pid(), signal.SIGKILL)
        while box.alive():
            time.sleep(POLL_SECONDS)
    box.remove()


def exec_(box: Box, options: Options, faults: Misbehaviour) -> None:
    """Run a further process beside a container's."""
    if box.status() != "running":
        complain(options, f"cannot exec: the container is {box.status()}")
    with open(options["--process"], encoding="utf-8") as file:
        process = json.load(file)
    pid = run_process(options, process, faults)
    faults.at("before-pid")
    write_pid(options, pid, faults)
    faults.at("after-pid")


def kill(box: Box, number: int, options: Options) -> None:
    """Send a container's process a signal."""
    if not box.alive():
        complain(options, "the container has ended already")
    signal_family(box, number, everybody="--all" in options)


def signal_family(box: Box, number: int, *, everybody: bool) -> None:
    """Send a signal to a container's process, and to its descendants too if asked to."""
    for pid in family(box.pid()) if everybody else [box.pid()]:
        with contextlib.suppress(ProcessLookupError):  # the process has ended since the listing
            os.kill(pid, number)


def pause(box: Box, options: Options, faults: Misbehaviour) -> None:
    """Stop a container's process and its descendants: there is no cgroup to freeze."""
    if box.status() != "running":
        complain(options, f"cannot pause: the container is {box.status()}")
    signal_family(box, signal.SIGSTOP, everybody=True)
    open(box.paused, "w", encoding="utf-8").close()


def resume(box: Box, options: Options, faults: Misbehaviour) -> None:
    """Let the stopped processes go on."""
    if box.status() != "paused":
        complain(options, f"cannot resume: the container is {box.status()}")
    os.unlink(box.paused)
    signal_family(box, signal.SIGCONT, everybody=True)


def checkpoint(box: Box, options: Options, faults: Misbehaviour) -> None:
    """Pretend to write an image."""
    if any(faults.now("criu")):
        with open(os.path.join(options["--work-path"], "dump.log"), "w", encoding="utf-8") as file:
            file.write("(00.1) Warn  (x.c:1): hm\n(00.2) Error (criu/x.c:2): vdso: can't start\n")
        complain(options, "criu failed: type NOTIFY errno 0")
    with open(os.path.join(options["--image-path"], "image"), "w", encoding="utf-8") as file:
        file.write("processes")
    if "--leave-running" not in options:
        os.kill(box.pid(), signal.SIGKILL)


def restore(box: Box, options: Options, faults: Misbehaviour) -> None:
    """Pretend to read an image: the program begins anew."""
    if not os.path.exists(os.path.join(options["--image-path"], "image")):
        complain(options, "no image there")
    with open(
        os.path.join(options["--work-path"], "restore-options"), "w", encoding="utf-8"
    ) as file:
        file.write(" ".join(sorted(key for key in options if key in FLAGS)))
    create(box, options, faults, gated=False)


ACTIONS = {
    "create": create,
    "start": start,
    "delete": delete,
    "exec": exec_,
    "pause": pause,
    "resume": resume,
    "checkpoint": checkpoint,
    "restore": restore,
}


def main() -> None:
    """Run the command line's verb."""
    verb, options, rest, faults = parse(sys.argv[1:])
    if verb not in (*ACTIONS, "state", "kill", "list"):
        complain(options, f"no such command: {verb!r}")
    root = options.get("--root") or complain(options, "--root is missing")
    if verb != "list" and not rest:
        complain(options, f"{verb}: the container's id is missing")
    os.makedirs(root, exist_ok=True)
    trouble = Misbehaviour(verb, rest[0] if rest else "", options, faults)
    trouble.at("first")
    box = Box(root, rest[0] if rest else "")
    if verb in ("create", "restore") and box.exists():
        complain(options, "container exists")
    if verb not in ("create", "restore", "delete", "list") and not box.exists():
        complain(options, "container does not exist")
    if verb == "list":
        boxes = [Box(root, name) for name in sorted(os.listdir(root))]
        print(json.dumps([each.told() for each in boxes if each.exists()]))
    elif verb == "state":
        print(json.dumps(box.told()))
    elif verb == "kill":
        kill(box, signal_number(rest[1] if len(rest) > 1 else "TERM", options), options)
    else:
        ACTIONS[verb](box, options, trouble)


def signal_number(text: str, options: Options) -> int:
    """Return the number of a signal, from a number or a name."""
    if text.isdigit():
        return int(text)
    try:
        return signal.Signals[text if text.startswith("SIG") else f"SIG{text}"]
    except KeyError:
        complain(options, f"unknown signal: {text}")


if __name__ == "__main__":
    main()
