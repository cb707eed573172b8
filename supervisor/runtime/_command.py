"""The runtime's command lines: one call as a value, and the options of a checkpoint.

Every path is absolute: runtimes change directory before they write (docs/shim-protocol.md).
Source: the OCI runtime command-line interface, and the manual pages of runc and crun.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

import attrs

from ._runtime import is_crun
from ._sealed import SealedPrograms

_CRUNS_FILE: Final = "file:"


@attrs.frozen(kw_only=True)
class Head:
    """What all calls for one container have in common.

    Attributes:
        path: absolute path of the runtime.
        root: the ``--root`` directory.
        args: extra global arguments.
        container: the container's id.
        programs: the sealed copies of runtimes, of which calls run one; None for the file at
            ``path``.
        tether: the path of ``supervisor-tether``, which kills a call when the supervisor dies;
            None lets the call finish.
    """

    path: str
    root: str
    args: tuple[str, ...] = ()
    container: str
    programs: SealedPrograms | None = None
    tether: str | None = None

    @property
    def name(self) -> str:
        """The runtime's file name."""
        return os.path.basename(self.path)

    @property
    def place(self) -> str:
        """The path below which the runtime keeps the container's state."""
        return os.path.join(self.root, self.container)

    def program(self) -> int | None:
        """Return the descriptor of the sealed program; None if the file is run."""
        return None if self.programs is None else self.programs.open(self.path)


@attrs.frozen(kw_only=True)
class Call:
    """One call of the runtime. ``str()`` gives the name of the call for people: ``runc start``.

    Attributes:
        head: what all calls for the container have in common.
        verb: the runtime's command: ``"start"``.
        options: the options of that command.
        process: the file that describes the process of an exec, or None.
        log: the file named by ``--log``, or None.
        lock: a descriptor of the container's lock, which the call holds until it ends; None for a
            call that a shim makes.
    """

    head: Head
    verb: str
    options: tuple[str, ...] = ()
    process: str | None = None
    log: str | None = None
    lock: int | None = None

    def __str__(self) -> str:
        return f"{self.head.name} {self.verb}"

    @property
    def words(self) -> list[str]:
        """The whole command line."""
        head = self.head
        logging = [] if self.log is None else ["--log", _logged(head.path, self.log)]
        logging += ["--log-format", "json"] if logging else []
        process = [] if self.process is None else ["--process", self.process]
        return [
            *(head.path, *head.args, "--root", head.root),
            *(*logging, self.verb, *process, *self.options, head.container),
        ]


def _logged(runtime: str, log: str) -> str:
    """Return the value of ``--log``: crun takes a value with a colon for TYPE:PATH."""
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
