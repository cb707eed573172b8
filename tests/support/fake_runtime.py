#!/usr/bin/python3 -IS
"""An OCI command line that runs processes on the host, and misbehaves when told to.

``--fault NAME`` or ``NAME:VALUE``, a global argument, says how; without one it behaves.
``NAME-while:PATH`` is the same fault for as long as there is a file at PATH, and
``NAME-once:PATH`` is so once, and removes it. VERB is create,
start, state, delete, exec, ...; WHEN is nothing (before it has done anything), or one of
-before-pid and -after-pid (create, restore, exec: the process is there) and -after (start:
the program runs):

late-VERBWHEN     waits for VALUE seconds first
hang-VERBWHEN     never returns
die-VERBWHEN      is killed by SIGKILL
fail-VERBWHEN     complains (of VALUE) and exits 1
noisy-VERBWHEN    writes a megabyte to its stderr
mute-VERBWHEN     exits 1 and says nothing
garbage-pid       writes VALUE, or rubbish, in place of the pid
no-pid            writes no pid file
criu              checkpoint fails as CRIU does

Its containers have no namespaces and no cgroup. It is slow and simple on purpose.
"""

import json
import os
import shutil
import signal
import sys
import time

FLAGS = {
    "--force",
    "--all",
    "--no-pivot",
    "--detach",
    "--tcp-established",
    "--ext-unix-sk",
}
FLAGS |= {"--shell-job", "--file-locks", "--leave-running"}
VERBS = {
    "create",
    "start",
    "state",
    "kill",
    "delete",
    "exec",
    "pause",
    "resume",
    "list",
}
VERBS |= {"restore", "checkpoint"}


def parse(words):
    options, rest, verb, faults = {}, [], None, {}
    words = list(words)
    while words:
        word = words.pop(0)
        if word == "--fault":
            name, _, value = words.pop(0).partition(":")
            faults[name] = value
        elif word in FLAGS:
            options[word] = True
        elif word.startswith("--"):
            options[word] = words.pop(0)
        elif verb is None and word in VERBS:
            verb = word
        else:
            rest.append(word)
    return verb, options, rest, faults


def complain(options, message):
    """Exit as runtimes do: the last line of level error is the one that matters."""
    entries = [("error", "an earlier error"), ("error", message), ("warning", "a later warning")]
    if "--log" in options:
        with open(options["--log"], "a") as file:
            for level, text in entries:
                file.write(json.dumps({"level": level, "msg": text, "time": "now"}) + "\n")
            file.write("not JSON\n")
    sys.stderr.write(message + "\n")
    sys.exit(1)


def told(faults, name):
    """Return a fault's value, or None if it isn't to be had now."""
    path = faults.get(f"{name}-while")
    if path is not None and os.path.exists(path):
        return ""
    path = faults.get(f"{name}-once")
    if path is not None and os.path.exists(path):
        os.unlink(path)
        return ""
    return faults.get(name)


def misbehave(verb, options, faults, when=""):
    """Do what the faults say for this verb at this time."""
    name = f"{verb}{when}"
    if told(faults, f"noisy-{name}") is not None:
        sys.stderr.write("x" * (1 << 20))
        sys.stderr.flush()
    late = told(faults, f"late-{name}")
    if late is not None:
        time.sleep(float(late))
    while told(faults, f"hang-{name}") is not None:
        time.sleep(0.002)
    if told(faults, f"die-{name}") is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    if told(faults, f"mute-{name}") is not None:
        sys.exit(1)
    message = told(faults, f"fail-{name}")
    if message is not None:
        complain(options, message or f"told to fail in {name}")


def run_process(process, gate):
    """Fork the process; with a gate it waits until somebody writes to that."""
    pid = os.fork()
    if pid:
        return pid
    try:
        if gate:
            with open(gate, "rb") as file:
                file.read(1)
        os.chdir(process.get("cwd", "/"))
        env = dict(entry.partition("=")[::2] for entry in process.get("env", ()))
        os.closerange(3, 256)
        os.execvpe(process["args"][0], process["args"], {**env, "PATH": os.environ["PATH"]})
    except BaseException as error:
        sys.stderr.write(f"{error}\n")
    os._exit(127)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def write_pid(options, pid, faults):
    if "no-pid" in faults:
        return
    text = faults.get("garbage-pid", str(pid)) or "gar\0bage"
    with open(options["--pid-file"], "w") as file:
        file.write(text)


class Box:
    def __init__(self, root, name):
        self.path = os.path.join(root, name)
        self.gate = os.path.join(self.path, "gate")
        self.file = os.path.join(self.path, "state")

    def exists(self):
        return os.path.exists(self.file)

    def save(self, pid):
        with open(self.file + ".new", "w") as file:
            file.write(str(pid))
        os.rename(self.file + ".new", self.file)

    def pid(self):
        with open(self.file) as file:
            return int(file.read())

    def status(self):
        if not alive(self.pid()):
            return "stopped"
        return "created" if os.path.exists(self.gate) else "running"

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


def create(box, options, faults, *, gated=True):
    with open(os.path.join(options["--bundle"], "config.json")) as file:
        process = json.load(file)["process"]
    os.makedirs(box.path)
    os.mkfifo(box.gate)
    pid = run_process(process, box.gate if gated else None)
    box.save(pid)
    if not gated:
        os.unlink(box.gate)
    misbehave("create", options, faults, "-before-pid")
    write_pid(options, pid, faults)
    misbehave("create", options, faults, "-after-pid")


def start(box, options, faults):
    if box.status() != "created":
        complain(options, f"cannot start: it is {box.status()}")
    fd = os.open(box.gate, os.O_RDWR)
    os.write(fd, b"g")
    os.unlink(box.gate)
    misbehave("start", options, faults, "-after")


def delete(box, options, faults):
    if not box.exists():
        if "--force" in options:
            box.remove()  # a killed create may have come half-way
            return
        complain(options, "no such container")
    if alive(box.pid()):
        if "--force" not in options:
            complain(options, "it is not stopped")
        os.kill(box.pid(), signal.SIGKILL)
        while alive(box.pid()):
            time.sleep(0.005)
    box.remove()


def exec_(box, options, faults):
    if box.status() != "running":
        complain(options, f"cannot exec: it is {box.status()}")
    with open(options["--process"]) as file:
        process = json.load(file)
    pid = run_process(process, None)
    misbehave("exec", options, faults, "-before-pid")
    write_pid(options, pid, faults)
    misbehave("exec", options, faults, "-after-pid")


def checkpoint(box, options, faults):
    image = options["--image-path"]
    if "criu" in faults:
        with open(os.path.join(options["--work-path"], "dump.log"), "w") as file:
            file.write("(00.1) Warn  (x.c:1): hm\n(00.2) Error (criu/x.c:2): vdso: can't start\n")
        complain(options, "criu failed: type NOTIFY errno 0")
    with open(os.path.join(image, "image"), "w") as file:
        file.write("processes")
    if "--leave-running" not in options:
        os.kill(box.pid(), signal.SIGKILL)


def restore(box, options, faults):
    if not os.path.exists(os.path.join(options["--image-path"], "image")):
        complain(options, "no image there")
    with open(os.path.join(options["--work-path"], "restore-options"), "w") as file:
        file.write(" ".join(sorted(key for key in options if key in FLAGS)))
    create(box, options, faults, gated=False)


def main():
    verb, options, rest, faults = parse(sys.argv[1:])
    root = options["--root"]
    os.makedirs(root, exist_ok=True)
    misbehave(verb, options, faults)
    box = Box(root, rest[0] if rest else "")
    if verb in ("create", "restore") and box.exists():
        complain(options, "container exists")
    if verb in ("start", "state", "kill", "exec", "checkpoint") and not box.exists():
        complain(options, "container does not exist")
    if verb == "state":
        print(
            json.dumps(
                {
                    "ociVersion": "1.0.2",
                    "id": rest[0],
                    "status": box.status(),
                    "pid": box.pid(),
                }
            )
        )
    elif verb == "kill":
        os.kill(box.pid(), int(rest[1]))
    elif verb == "list":
        print(json.dumps(sorted(os.listdir(root))))
    else:
        actions = {"create": create, "start": start, "delete": delete, "exec": exec_}
        actions |= {"checkpoint": checkpoint, "restore": restore}
        actions[verb](box, options, faults)


main()
