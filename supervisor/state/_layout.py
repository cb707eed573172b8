"""All names and paths below a supervisor's root. This module makes and removes no files.

::

    <root>/.runtime/                   where runtimes keep their own state
    <root>/<container id>/             ContainerLayout
    <root>/<container id>/init/        ProcessLayout of the first process
    <root>/<container id>/<exec id>/   ProcessLayout of an exec
"""

from __future__ import annotations

import os
from collections.abc import Callable
from os.path import basename, dirname, join
from typing import Final

import attrs

from ..values import raise_if_scarce
from ._id_claims import LINK
from ._ids import INIT, RESERVED, check_exec_id, check_id, is_id


@attrs.frozen
class RootLayout:
    """The paths in a supervisor's root.

    Attributes:
        root: the root's own path.
    """

    root: str

    @property
    def runtime_root(self) -> str:
        """Where runtimes keep their state, unless the user names another place."""
        return join(self.root, ".runtime")

    def container(self, id: str) -> ContainerLayout:
        """Return the paths of one container.

        Raises:
            InvalidValue: ``id`` can't be a container's id.
        """
        return ContainerLayout(join(self.root, check_id(id)))

    def containers(self) -> list[ContainerLayout]:
        """Return the container directories that are there, sorted by id.

        Files are skipped, and so are directories whose names aren't ids (temporary ones,
        ``.runtime``). A missing root has no container directories.
        """
        return [ContainerLayout(path) for path in _directories(self.root, is_id)]


class _Paths:
    path: str

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)


class ContainerLayout(_Paths):
    """The paths in one container's directory.

    Attributes:
        path: the directory's own path. The last part is the container's id, unless the
            directory has a temporary name: before the create is done, or in a delete.
        id: the container's id.
        lock: the file that the container's owner locks.
        state: the file of the `ContainerRecord`.
        bundle: the directory of the bundle that is run.
        config: the spec that is run.
        logs: the directory of the logged streams.
        log_indexes: the directory of the logs' indexes.
        ids: the link to the claim on the ids of the container's own user namespace, if any.
        cleanup: the file of what the keeper does if the supervisor of a leashed container dies.
        init: the paths of the container's first process.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.id: Final = basename(path)
        self.lock: Final = f"{path}/lock"
        self.state: Final = f"{path}/state.json"
        self.bundle: Final = f"{path}/bundle"
        self.config: Final = f"{path}/bundle/config.json"
        self.logs: Final = f"{path}/logs"
        self.log_indexes: Final = f"{path}/.log-index"
        self.ids: Final = f"{path}/{LINK}"
        self.cleanup: Final = f"{path}/cleanup"
        self.init: Final = ProcessLayout(f"{path}/{INIT}")

    def process(self, id: str) -> ProcessLayout:
        """Return the paths of one process: ``"init"`` or an exec's id.

        Raises:
            InvalidValue: ``id`` can't be a process's id.
        """
        return ProcessLayout(join(self.path, id if id == INIT else check_exec_id(id)))

    def processes(self) -> list[ProcessLayout]:
        """Return the process directories that are there, sorted by id.

        A missing container directory has no process directories.
        """
        return [ProcessLayout(path) for path in _directories(self.path, is_process_id)]

    def directories(self) -> list[str]:
        """Return the paths of all directories in the container directory, with any name."""
        return _directories(self.path, lambda name: True)

    def inner_directories(self) -> list[str]:
        """Return the paths that are reserved for directories of ours, existing or not."""
        reserved = f"{self.path}/runs"
        return [self.init.path, self.bundle, self.logs, self.log_indexes, reserved]


class ProcessLayout(_Paths):
    """The paths in one process directory, the shim's working directory.

    Attributes:
        path: the directory's own path; the last part is the process's id.
        id: the process's id.
        lock: the file that the owner of an exec locks.
        record: the file of the `ProcessRecord`.
        program: the file of the `ProcessRecord` that a taker wrote for a pooled container's init.
        pid: the file of the process's pid, written by the runtime.
        starttime: the file of the process's start time, written by the shim.
        shim: the file of the shim's own pid and start time; the shim locks the file while it
            lives.
        exit_status: the file of how the process ended, written by the shim.
        refused: the file of why an init couldn't run the program, written by the shim.
        copied: the file of what became of copied streams, written by the shim.
        result: the file of the `Result`, final once written.
        started: the file that exists once the process was started.
        stopping: the file of a stop in progress: the signal, since when, until when.
        exit: the fifo whose end of file says that the exit status is recorded.
        control: the fifo for the shim's control lines.
        stdin: the fifo to the process's standard input.
        stdout: the fifo from the process's standard output.
        stderr: the fifo from the process's standard error.
        output_log: the log's newest file; rotated files are called ``.1``, ``.2``, ...
        log_index: the log's index: where in the whole log each of the log's files begins.
        terminal: the socket for clients that attach to the terminal.
        console: the socket over which the runtime sends the terminal to the shim, during a create.
        shim_log: the shim's own log.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.id: Final = basename(path)
        self.lock: Final = f"{path}/lock"
        self.record: Final = f"{path}/process.json"
        self.program: Final = f"{path}/program.json"
        self.pid: Final = f"{path}/pid"
        self.starttime: Final = f"{path}/starttime"
        self.shim: Final = f"{path}/shim"
        self.exit_status: Final = f"{path}/exitStatus"
        self.refused: Final = f"{path}/refused"
        self.copied: Final = f"{path}/copied"
        self.result: Final = f"{path}/result.json"
        self.started: Final = f"{path}/started"
        self.stopping: Final = f"{path}/stopping"
        self.exit: Final = f"{path}/exit"
        self.control: Final = f"{path}/control"
        self.stdin: Final = f"{path}/stdin"
        self.stdout: Final = f"{path}/stdout"
        self.stderr: Final = f"{path}/stderr"
        container = dirname(path)
        self.output_log: Final = f"{container}/logs/{self.id}.log"
        self.log_index: Final = f"{container}/.log-index/{self.id}"
        self.terminal: Final = f"{path}/terminal"
        self.console: Final = f"{path}/console.sock"
        self.shim_log: Final = f"{path}/shim-log.json"

    def log(self, verb: str) -> str:
        """Return the file of the runtime's own log of the call ``verb``."""
        return f"{self.path}/log-{verb}.json"


def is_process_id(name: str) -> bool:
    """Whether a directory of that name is a process directory."""
    return name == INIT or (name not in RESERVED and is_id(name))


def _directories(path: str, wanted: Callable[[str], bool]) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(
                [e.path for e in entries if e.is_dir(follow_symlinks=False) and wanted(e.name)]
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise_if_scarce(error)
        raise
