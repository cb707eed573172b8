"""The runtime's command lines, composed by pure functions.

Every path in them is absolute: runtimes change directory before they write (docs/shim-protocol.md).
Source: the OCI runtime command-line interface, and the manual pages of runc and crun.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from ._runtime import is_crun

_CRUNS_FILE: Final = "file:"


@attrs.frozen(kw_only=True)
class Caller:
    """What all command lines for one container have in common.

    Attributes:
        runtime: absolute path of the runtime.
        root: its ``--root`` directory.
        args: extra global arguments.
        no_pivot: whether create and restore get ``--no-pivot``.
    """

    runtime: str
    root: str
    args: tuple[str, ...] = ()
    no_pivot: bool = False

    def _head(self, verb: str, log: str | None) -> list[str]:
        logging = [] if log is None else ["--log", _logged(self.runtime, log)]
        logging += ["--log-format", "json"] if logging else []
        return [self.runtime, *self.args, "--root", self.root, *logging, verb]

    def _pivot(self) -> list[str]:
        return ["--no-pivot"] if self.no_pivot else []

    def create(
        self,
        container: str,
        *,
        bundle: str,
        pid_file: str,
        console_socket: str | None = None,
        preserve_fds: int = 0,
        log: str | None = None,
    ) -> list[str]:
        """Make the container and its init, which waits to be started.

        Its init gets ``preserve_fds`` descriptors of the runtime's, from 3 on.
        """
        preserved = ["--preserve-fds", str(preserve_fds)] if preserve_fds else []
        console = [] if console_socket is None else ["--console-socket", console_socket]
        return [
            *self._head("create", log),
            "--bundle",
            bundle,
            "--pid-file",
            pid_file,
            *console,
            *preserved,
            *self._pivot(),
            container,
        ]

    def start(self, container: str, *, log: str | None = None) -> list[str]:
        """Let the init of a created container run the user's program."""
        return [*self._head("start", log), container]

    def state(self, container: str, *, log: str | None = None) -> list[str]:
        """Print the container's state as JSON (OCI runtime spec, "State")."""
        return [*self._head("state", log), container]

    def kill(
        self,
        container: str,
        signal: int,
        *,
        all_processes: bool = False,
        log: str | None = None,
    ) -> list[str]:
        """Send a signal to the container's init, or to all of its processes."""
        everyone = ["--all"] if all_processes else []
        return [*self._head("kill", log), *everyone, container, str(int(signal))]

    def delete(self, container: str, *, force: bool = False, log: str | None = None) -> list[str]:
        """Forget the container; ``force`` kills it first and accepts one that is not there."""
        return [*self._head("delete", log), *(["--force"] if force else []), container]

    def exec(
        self,
        container: str,
        *,
        process: str,
        pid_file: str,
        console_socket: str | None = None,
        log: str | None = None,
    ) -> list[str]:
        """Start a further process, described by the file ``process``, and return at once."""
        console = [] if console_socket is None else ["--console-socket", console_socket]
        return [
            *self._head("exec", log),
            "--detach",
            "--process",
            process,
            "--pid-file",
            pid_file,
            *console,
            container,
        ]

    def pause(self, container: str, *, log: str | None = None) -> list[str]:
        """Freeze all processes of the container."""
        return [*self._head("pause", log), container]

    def resume(self, container: str, *, log: str | None = None) -> list[str]:
        """Thaw them."""
        return [*self._head("resume", log), container]

    def list_all(self, *, log: str | None = None) -> list[str]:
        """Print all containers below ``--root`` as a JSON array."""
        return [*self._head("list", log), "--format", "json"]

    def restore(
        self,
        container: str,
        *,
        bundle: str,
        pid_file: str,
        image: str,
        work: str,
        options: Iterable[str] = (),
        console_socket: str | None = None,
        log: str | None = None,
    ) -> list[str]:
        """Make the container from a checkpoint in ``image``; it runs at once."""
        console = [] if console_socket is None else ["--console-socket", console_socket]
        return [
            *self._head("restore", log),
            "--detach",
            "--bundle",
            bundle,
            "--pid-file",
            pid_file,
            "--image-path",
            image,
            "--work-path",
            work,
            *options,
            *console,
            *self._pivot(),
            container,
        ]

    def checkpoint(
        self,
        container: str,
        *,
        image: str,
        work: str,
        options: Iterable[str] = (),
        log: str | None = None,
    ) -> list[str]:
        """Write the container's processes to ``image``; they end unless told otherwise."""
        return [
            *self._head("checkpoint", log),
            "--image-path",
            image,
            "--work-path",
            work,
            *options,
            container,
        ]


def log_of(command: Sequence[str]) -> str | None:
    """Return the path of the log that a command line names, or None."""
    if "--log" not in command:
        return None
    return command[command.index("--log") + 1].removeprefix(_CRUNS_FILE)


def words_of(command: Sequence[str]) -> tuple[str, str]:
    """Return the runtime's root and the container's id, which a command line names."""
    return command[command.index("--root") + 1], command[-1]


def _logged(runtime: str, log: str) -> str:
    """Return the value of ``--log``: crun reads it as TYPE:PATH if there is a colon in it."""
    return f"{_CRUNS_FILE}{log}" if ":" in log and is_crun(runtime) else log


def checkpoint_options(
    *,
    tcp_established: bool = False,
    external_unix_sockets: bool = False,
    shell_job: bool = False,
    file_locks: bool = False,
    leave_running: bool = False,
    empty_namespaces: Iterable[str] = (),
) -> list[str]:
    """Return the options of checkpoint and restore (man runc-checkpoint, runc-restore)."""
    flags = {
        "--tcp-established": tcp_established,
        "--ext-unix-sk": external_unix_sockets,
        "--shell-job": shell_job,
        "--file-locks": file_locks,
        "--leave-running": leave_running,
    }
    chosen = [flag for flag, wanted in flags.items() if wanted]
    return [
        *chosen,
        *(word for name in empty_namespaces for word in ("--empty-ns", name)),
    ]
