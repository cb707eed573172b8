"""The checks of `check_runtime`, and the ability that each check needs."""

from __future__ import annotations

import enum
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

from ._rig import KILLED, Rig

# glibc's posix_spawn, which newer Pythons use, may leave glibc's two internal signals ignored. No
# program notices.
_INTERNAL_SIGNALS: Final = 0b11 << 31
_STAY: Final = "read line"  # from a pipe without a writer; a trap ends the read


class Ability(enum.Enum):
    """Something that not every runtime has to do."""

    NAMESPACES = "processes are in pid, mount and ipc namespaces of the container's own"
    ROOT_FILESYSTEM = "processes see the bundle's root filesystem"
    CGROUP = "processes are in the cgroup that the spec names"
    PRIVILEGES = "processes have the capabilities of the spec, and can't gain any"
    TERMINAL = "a process may have a terminal, sent over a console socket"
    PAUSE = "a container may be paused and resumed"


Body = Callable[[Rig], Awaitable[None]]
CHECKS: Final[dict[str, tuple[Body, Ability | None]]] = {}


def _check(ability: Ability | None = None) -> Callable[[Body], Body]:
    def keep(body: Body) -> Body:
        CHECKS[body.__name__.removeprefix("_")] = body, ability
        return body

    return keep


async def _refused(rig: Rig, words: Iterable[str]) -> None:
    done = await rig.call(tuple(words))
    assert done.returncode != 0, f"must be refused: {done}"


async def _status(rig: Rig) -> dict[str, str]:
    """Return what the kernel reports of a program in a container (proc(5), status)."""
    box, _ = await rig.run("/bin/cat", "/proc/self/status")
    lines = box.call.output.read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# ---- create and start -----------------------------------------------------------------------


@_check()
async def _created_container_waits(rig: Rig) -> None:
    """A created container has a process, with the pid in the pid file; the program hasn't run."""
    box = await rig.create("/bin/echo", "ran")
    told = await rig.state(box.id)
    assert told is not None and told["id"] == box.id, f"state says {told}"
    assert (told["status"], told["pid"]) == ("created", box.process.pid), f"state says {told}"
    ran = box.process.ended() or box.call.output.read_bytes() != b""
    assert not ran, "the program ran before the start"
    await rig.start(box)
    assert await box.ended() == 0
    assert box.call.output.read_bytes() == b"ran\n"


@_check()
async def _started_container_runs(rig: Rig) -> None:
    """The state is running, then stopped, and the container stays known until the delete."""
    box = await rig.create("/bin/sh", "-c", _STAY)
    await rig.start(box)
    told = await rig.state(box.id)
    assert told is not None and told["status"] == "running", f"state says {told}"
    box.process.kill()
    assert await box.ended() == KILLED
    told = await rig.state(box.id)
    assert told is not None and told["status"] == "stopped", f"state says {told}"


@_check()
async def _starts_once(rig: Rig) -> None:
    """A container that runs, has ended or isn't there can't be started."""
    box = await rig.create("/bin/sh", "-c", _STAY)
    await rig.start(box)
    await _refused(rig, rig.words("start", box.id))
    box.process.kill()
    await box.ended()
    await _refused(rig, rig.words("start", box.id))
    await _refused(rig, rig.words("start", "absent"))


@_check()
async def _id_is_taken(rig: Rig) -> None:
    """A second container with the same id is refused, and the first lives on."""
    box = await rig.create("/bin/sh", "-c", _STAY)
    pid_file = str(rig.path / "second.pid")
    bundle = rig.config(box.id, ["/bin/true"])
    await _refused(rig, rig.of(box.id).create(bundle=bundle, pid_file=pid_file).words)
    told = await rig.state(box.id)
    assert told is not None and told["pid"] == box.process.pid, f"state says {told}"
    assert not box.process.ended()


# ---- ends -----------------------------------------------------------------------------------


@_check()
async def _exit_codes(rig: Rig) -> None:
    """The process ends as the program does: with the program's exit code or signal."""
    for code in (0, 127, 255):
        _, told = await rig.run("/bin/sh", "-c", f"exit {code}")
        assert told == code, f"exit {code} became {told}"


@_check()
async def _kill_sends_signals(rig: Rig) -> None:
    """Kill sends the signal to the process, and is refused after the process has ended."""
    box = await rig.create("/bin/sh", "-c", f"trap 'exit 9' USR1; echo ready; {_STAY}")
    await rig.start(box)
    await rig.ready(box)
    done = await rig.call(rig.kill(box.id, 10))
    assert done.returncode == 0, str(done)
    assert await box.ended() == 9
    await _refused(rig, rig.kill(box.id, 10))
    await _refused(rig, rig.kill("absent", 10))


# ---- delete ---------------------------------------------------------------------------------


@_check()
async def _delete_forgets(rig: Rig) -> None:
    """Delete forgets a container that has ended; a second delete is refused."""
    box, _ = await rig.run("/bin/true")
    done = await rig.call(rig.words("delete", box.id))
    assert done.returncode == 0, str(done)
    assert await rig.state(box.id) is None, "the runtime still knows the container"
    await _refused(rig, rig.words("delete", box.id))


@_check()
async def _delete_spares_the_living(rig: Rig) -> None:
    """A running container is deleted only by force, which kills the process."""
    box = await rig.create("/bin/sh", "-c", _STAY)
    await rig.start(box)
    await _refused(rig, rig.words("delete", box.id))
    assert not box.process.ended()
    done = await rig.call(rig.of(box.id).deletion().words)
    assert done.returncode == 0, str(done)
    assert await box.ended() == KILLED
    assert await rig.state(box.id) is None, "the runtime still knows the container"


@_check()
async def _delete_by_force_accepts_nothing(rig: Rig) -> None:
    """A delete by force of a container that isn't there is no error."""
    done = await rig.call(rig.of("absent").deletion().words)
    assert done.returncode == 0, str(done)


# ---- exec -----------------------------------------------------------------------------------


@_check()
async def _exec_runs_beside(rig: Rig) -> None:
    """A further process has its own streams, pid and exit code, and init goes on."""
    box = await rig.create("/bin/sh", "-c", _STAY)
    await rig.start(box)
    job = await rig.exec(box, "/bin/sh", "-c", "echo out; echo err >&2; exit 5")
    assert await job.ended() == 5
    assert job.call.output.read_bytes() == b"out\n"
    assert b"err\n" in job.call.errors.read_bytes()
    assert job.process.pid != box.process.pid and not box.process.ended()


@_check()
async def _exec_needs_a_living_container(rig: Rig) -> None:
    """An exec in a container that has ended, or isn't there, is refused."""
    box, _ = await rig.run("/bin/true")
    file, pid_file = str(rig.path / "exec.json"), str(rig.path / "exec.pid")
    process = {**rig.bundle.spec["process"], "args": ["/bin/true"]}
    Path(file).write_text(json.dumps(process), encoding="utf-8")
    for id in (box.id, "absent"):
        await _refused(rig, rig.of(id).exec(process=file, pid_file=pid_file).words)


# ---- what the program gets -------------------------------------------------------------------


@_check()
async def _streams_are_inherited(rig: Rig) -> None:
    """The program's three streams are the streams of the create call."""
    script = "cat; echo err >&2"
    box = await rig.create("/bin/sh", "-c", script, stdin=b"in")
    await rig.start(box)
    assert await box.ended() == 0
    assert box.call.output.read_bytes() == b"in"
    assert b"err\n" in box.call.errors.read_bytes()


@_check()
async def _descriptors_are_closed(rig: Rig) -> None:
    """The program gets no descriptors besides the three streams."""
    box, _ = await rig.run("/bin/ls", "/proc/self/fd")
    # 3 is the directory that ls reads.
    assert box.call.output.read_bytes().split() == [b"0", b"1", b"2", b"3"]


@_check()
async def _signals_are_as_new(rig: Rig) -> None:
    """The program blocks and ignores no signal if the runtime was started that way."""
    told = await _status(rig)
    masks = {name: int(told[name], 16) & ~_INTERNAL_SIGNALS for name in ("SigBlk", "SigIgn")}
    assert not any(masks.values()), f"the program has {masks}"


@_check()
async def _environment_is_the_spec_s(rig: Rig) -> None:
    """The program gets the spec's environment and directory, and no variables of the caller."""
    env = ["PATH=/usr/bin:/bin", "GIVEN=some=thing"]
    box, _ = await rig.run("/bin/sh", "-c", "env; pwd", env=env, cwd="/usr")
    lines = box.call.output.read_text(encoding="utf-8").splitlines()
    found = "GIVEN=some=thing" in lines and "PATH=/usr/bin:/bin" in lines
    assert found, f"the program's environment is {lines}"
    assert lines[-1] == "/usr", f"the program's directory is {lines[-1]}"
    assert not [line for line in lines if line.startswith("RUNTIME_CALLER")]


@_check(Ability.TERMINAL)
async def _terminal_is_sent(rig: Rig) -> None:
    """The terminal is the process's three streams; its master comes over the console socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        path = str(rig.path / "console")
        listener.bind(path)
        listener.listen(1)
        script = "test -t 0 && test -t 1 && test -t 2 && echo all three > /dev/tty; exit 3"
        box = await rig.create("/bin/sh", "-c", script, terminal=True, console_socket=path)
        connection, _ = listener.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    try:
        await rig.start(box)
        assert await box.ended() == 3
        assert os.read(fds[0], 4096) == b"all three\r\n"
    finally:
        os.close(fds[0])


# ---- what the runtime reports ----------------------------------------------------------------


@_check()
async def _errors_are_logged(rig: Rig) -> None:
    """A create that can't work is refused, and the log gets a JSON entry of level error."""
    id = "no-program"
    rig.boxes.append(id)
    bundle = rig.config(id, ["/no/such/program"])
    call = rig.of(id).create(bundle=bundle, pid_file=str(rig.path / "no.pid"))
    done = await rig.call(call.words)
    assert done.returncode != 0, f"there is no such program: {done}"
    entries = [entry for entry in done.entries() if entry.get("level") == "error"]
    logged = entries and all(entry.get("msg") for entry in entries)
    assert logged, f"the runtime logged {done.entries()}"


@_check()
async def _wrong_usage_is_refused(rig: Rig) -> None:
    """An unknown command, a missing id and a bundle without a config.json are errors."""
    head = rig.bare()
    await _refused(rig, [*head, "no-such-command"])
    await _refused(rig, [*head, "start"])
    nowhere = rig.path / "nowhere"
    nowhere.mkdir()
    rig.boxes.append("nowhere")
    call = rig.of("nowhere").create(bundle=str(nowhere), pid_file=str(rig.path / "n.pid"))
    await _refused(rig, call.words)


@_check()
async def _containers_are_listed(rig: Rig) -> None:
    """List names the containers below the runtime's root."""
    box = await rig.create("/bin/true")
    done = await rig.call(rig.list_all())
    assert done.returncode == 0, str(done)
    listed = {entry["id"]: entry["status"] for entry in json.loads(done.output.read_bytes())}
    assert listed.get(box.id) == "created", f"the runtime lists {listed}"


# ---- what only some runtimes do --------------------------------------------------------------


@_check(Ability.PAUSE)
async def _pause_and_resume(rig: Rig) -> None:
    """A paused container has the state paused, and goes on after the resume."""
    box = await rig.create("/bin/sh", "-c", f"trap 'exit 4' TERM; echo ready; {_STAY}")
    await rig.start(box)
    await rig.ready(box)
    for verb, status in (("pause", "paused"), ("resume", "running")):
        done = await rig.call(rig.words(verb, box.id))
        assert done.returncode == 0, str(done)
        told = await rig.state(box.id)
        assert told is not None and told["status"] == status, f"state says {told}"
    box.process.send_signal(15)
    assert await box.ended() == 4


@_check(Ability.NAMESPACES)
async def _namespaces_are_its_own(rig: Rig) -> None:
    """The program is pid 1 in namespaces of its own; other processes end with the program."""
    box = await rig.create("/bin/sh", "-c", f"echo $$; {_STAY}")
    for kind in ("pid", "mnt", "ipc"):
        ours, its = (os.readlink(f"/proc/{pid}/ns/{kind}") for pid in ("self", box.process.pid))
        assert ours != its, f"the container has our {kind} namespace"
    await rig.start(box)
    await rig.until(box, "1\n")
    job = await rig.exec(box, "/bin/sh", "-c", _STAY)
    box.process.kill()
    assert await job.ended() == KILLED
    assert await box.ended() == KILLED


@_check(Ability.ROOT_FILESYSTEM)
async def _root_is_the_bundle_s(rig: Rig) -> None:
    """The program can't see the host's files, nor write to a read-only root."""
    script = f"test ! -e {rig.path} && ! echo x > /usr/x"
    _, told = await rig.run("/bin/sh", "-c", script)
    assert told == 0, "the program sees our files, or can write to the root"


@_check(Ability.CGROUP)
async def _cgroup_is_the_spec_s(rig: Rig) -> None:
    """The container's processes are in the cgroup that the spec names."""
    box = await rig.create("/bin/true")
    cgroup = rig.cgroup(box.id)
    assert cgroup is not None, "we may make no cgroups here"
    assert rig.hierarchies.holds(cgroup, box.process.pid), "the process isn't in the cgroup"


@_check(Ability.PRIVILEGES)
async def _privileges_are_the_spec_s(rig: Rig) -> None:
    """The program has the spec's capabilities, and can't gain others."""
    told = await _status(rig)
    capabilities = len(rig.bundle.spec["process"]["capabilities"]["effective"])
    assert told["NoNewPrivs"] == "1", "the program can gain privileges"
    held = int(told["CapEff"], 16).bit_count()
    assert held == capabilities, f"the program's capabilities are {told['CapEff']}"
