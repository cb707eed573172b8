"""All names and paths below a supervisor's root. This module makes and removes no files.

::

    <root>/.runtime/                   where runtimes keep their own state
    <root>/<container id>/             ContainerLayout
    <root>/<container id>/init/        ProcessLayout of the first process
    <root>/<container id>/<exec id>/   ProcessLayout of an exec
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from os.path import basename, dirname, join

import attrs

from ..system import scarce
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

    def containers(self) -> Iterator[ContainerLayout]:
        """Iterate over the container directories that are there, sorted by id.

        Files are skipped, and so are directories whose names aren't ids (temporary ones,
        ``.runtime``). A missing root has no container directories.
        """
        return map(ContainerLayout, _directories(self.root, is_id))


@attrs.frozen
class ContainerLayout:
    """The paths in one container's directory.

    Attributes:
        path: the directory's own path. The last part is the container's id, unless the
            directory has a temporary name: before the create is done, or in a delete.
    """

    path: str

    @property
    def id(self) -> str:
        """The container's id."""
        return basename(self.path)

    @property
    def lock(self) -> str:
        """The file that the container's owner locks."""
        return f"{self.path}/lock"

    @property
    def state(self) -> str:
        """The file of the `ContainerRecord`."""
        return f"{self.path}/state.json"

    @property
    def bundle(self) -> str:
        """The directory of the bundle that is run."""
        return f"{self.path}/bundle"

    @property
    def config(self) -> str:
        """The spec that is run."""
        return f"{self.path}/bundle/config.json"

    @property
    def logs(self) -> str:
        """The directory of the logged streams."""
        return f"{self.path}/logs"

    @property
    def log_indexes(self) -> str:
        """The directory of the logs' indexes."""
        return f"{self.path}/.log-index"

    @property
    def ids(self) -> str:
        """The link to the claim on the ids of the container's own user namespace, if any."""
        return f"{self.path}/{LINK}"

    @property
    def cleanup(self) -> str:
        """The file of what the keeper does if the supervisor of a leashed container dies."""
        return f"{self.path}/cleanup"

    @property
    def init(self) -> ProcessLayout:
        """The paths of the container's first process."""
        return ProcessLayout(f"{self.path}/{INIT}")

    def process(self, id: str) -> ProcessLayout:
        """Return the paths of one process: ``"init"`` or an exec's id.

        Raises:
            InvalidValue: ``id`` can't be a process's id.
        """
        return ProcessLayout(join(self.path, id if id == INIT else check_exec_id(id)))

    def processes(self) -> Iterator[ProcessLayout]:
        """Iterate over the process directories that are there, sorted by id.

        A missing container directory has no process directories.
        """
        return map(ProcessLayout, _directories(self.path, is_process_id))

    def directories(self) -> list[str]:
        """Return the paths of all directories in the container directory, with any name."""
        return _directories(self.path, lambda name: True)

    def inner_directories(self) -> list[str]:
        """Return the paths that are reserved for directories of ours, existing or not."""
        reserved = f"{self.path}/runs"
        return [self.init.path, self.bundle, self.logs, self.log_indexes, reserved]


@attrs.frozen
class ProcessLayout:
    """The paths in one process directory, the shim's working directory.

    Attributes:
        path: the directory's own path; the last part is the process's id.
    """

    path: str

    @property
    def id(self) -> str:
        """The process's id."""
        return basename(self.path)

    @property
    def lock(self) -> str:
        """The file that the owner of an exec locks."""
        return f"{self.path}/lock"

    @property
    def record(self) -> str:
        """The file of the `ProcessRecord`."""
        return f"{self.path}/process.json"

    @property
    def program(self) -> str:
        """The file of the `ProcessRecord` that a taker wrote for a pooled container's init."""
        return f"{self.path}/program.json"

    @property
    def pid(self) -> str:
        """The file of the process's pid, written by the runtime."""
        return f"{self.path}/pid"

    @property
    def starttime(self) -> str:
        """The file of the process's start time, written by the shim."""
        return f"{self.path}/starttime"

    @property
    def shim(self) -> str:
        """The file of the shim's own pid and start time; the shim locks the file while it lives."""
        return f"{self.path}/shim"

    @property
    def exit_status(self) -> str:
        """The file of how the process ended, written by the shim."""
        return f"{self.path}/exitStatus"

    @property
    def refused(self) -> str:
        """The file of why an init couldn't run the program, written by the shim."""
        return f"{self.path}/refused"

    @property
    def copied(self) -> str:
        """The file of what became of copied streams, written by the shim."""
        return f"{self.path}/copied"

    @property
    def result(self) -> str:
        """The file of the `Result`, final once written."""
        return f"{self.path}/result.json"

    @property
    def started(self) -> str:
        """The file that exists once the process was started."""
        return f"{self.path}/started"

    @property
    def stopping(self) -> str:
        """The file of a stop in progress: the signal, since when, until when."""
        return f"{self.path}/stopping"

    @property
    def exit(self) -> str:
        """The fifo whose end of file says that the exit status is recorded."""
        return f"{self.path}/exit"

    @property
    def control(self) -> str:
        """The fifo for the shim's control lines."""
        return f"{self.path}/control"

    @property
    def stdin(self) -> str:
        """The fifo to the process's standard input."""
        return f"{self.path}/stdin"

    @property
    def stdout(self) -> str:
        """The fifo from the process's standard output."""
        return f"{self.path}/stdout"

    @property
    def stderr(self) -> str:
        """The fifo from the process's standard error."""
        return f"{self.path}/stderr"

    def output_log(self) -> str:
        """Return the log's newest file; rotated files are called ``.1``, ``.2``, ..."""
        return join(dirname(self.path), "logs", f"{self.id}.log")

    def log_index(self) -> str:
        """Return the log's index: where in the whole log each of the log's files begins."""
        return join(dirname(self.path), ".log-index", self.id)

    @property
    def terminal(self) -> str:
        """The socket for clients that attach to the terminal."""
        return f"{self.path}/terminal"

    @property
    def console(self) -> str:
        """The socket over which the runtime sends the terminal to the shim, during a create."""
        return f"{self.path}/console.sock"

    def log(self, verb: str) -> str:
        """Return the file of the runtime's own log of the call ``verb``."""
        return f"{self.path}/log-{verb}.json"

    @property
    def shim_log(self) -> str:
        """The shim's own log."""
        return f"{self.path}/shim-log.json"


def is_process_id(name: str) -> bool:
    """Whether a directory of that name is a process directory."""
    return is_id(name) and (name == INIT or name not in RESERVED)


def _directories(path: str, wanted: Callable[[str], bool]) -> list[str]:
    try:
        with scarce(), os.scandir(path) as entries:
            names = [e.name for e in entries if wanted(e.name) and e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [join(path, name) for name in sorted(names)]
