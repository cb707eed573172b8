"""A runtime that needs no privileges, and one that goes wrong as it is told."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar, Final

import attrs

from ...runtime import Runtime
from ...state import check_id
from ...values import InvalidValue, check_kind, check_path, check_text
from .._arguments import check_one_of
from ._checks import Ability

PROGRAM: Final = Path(__file__).with_name("_host_program.py")
"""The runtime's program: run by its path, with Python's ``-I`` and ``-S``."""

VERBS: Final = (
    "create",
    "start",
    "state",
    "kill",
    "delete",
    "exec",
    "pause",
    "resume",
    "list",
    "checkpoint",
    "restore",
)
_MAKERS: Final = ("create", "exec", "restore")
_AT_ANY_TIME: Final = ("late", "hang", "die", "fail", "mute", "noisy", "tell")
_OF_MAKERS: Final = ("garbage-pid", "no-pid", "no-console")
_WHENS: Final = {"first": VERBS, "before-pid": _MAKERS, "after-pid": _MAKERS, "after": ("start",)}


@attrs.frozen(kw_only=True)
class Fault:
    """One thing that goes wrong in a `FaultyRuntime`: ``Fault(verb="create", what="hang")``.

    Attributes:
        what: ``"late"``: it waits for ``value`` seconds first. ``"hang"``: it never goes on, or
            not while there is the file ``only_while``. ``"die"``: SIGKILL. ``"fail"``: it
            complains, of ``value``, and exits with 1. ``"mute"``: it does so without a word.
            ``"noisy"``: it writes a megabyte to its standard error. ``"tell"``: it writes its pid
            into the file ``value``, and goes on. ``"garbage-pid"``: it writes ``value``, or
            rubbish, in place of the pid. ``"no-pid"``: it writes no pid file. ``"no-console"``: it
            sends no terminal. ``"criu"``: a checkpoint fails as CRIU does.
        verb: in which call: ``"create"``, ``"start"``, ...; None for every one.
        when: ``"first"``, before anything is done; in create, exec and restore also
            ``"before-pid"`` and ``"after-pid"``, when the process is there and the pid file isn't,
            or is; in start ``"after"``, when the program runs.
        value: see ``what``.
        container: only for the container of this id.
        only_while: only while there is a file at this path, which is looked for at that time.
        once: only if there is a file at this path, which is removed.

    Raises:
        InvalidValue: there can be no such fault.
    """

    what: str
    verb: str | None = None
    when: str = "first"
    value: str | float | None = None
    container: str | None = None
    only_while: str | os.PathLike[str] | None = None
    once: str | os.PathLike[str] | None = None

    def __attrs_post_init__(self) -> None:
        check_one_of(self.what, (*_AT_ANY_TIME, *_OF_MAKERS, "criu"), "what")
        if self.verb is not None:
            check_one_of(self.verb, VERBS, "verb")
        if self.container is not None:
            check_id(self.container, "container")
        for name in ("only_while", "once"):
            if getattr(self, name) is not None:
                check_path(getattr(self, name), name)
        self._check_when()
        self._check_value()
        if self.only_while is not None and self.once is not None:
            raise InvalidValue("fault: give only_while or once, not both")

    def _check_when(self) -> None:
        check_one_of(self.when, _WHENS, "when")
        if self.what not in _AT_ANY_TIME and self.when != "first":
            raise InvalidValue(f"fault: {self.what} has a time of its own; leave when out")
        if self.verb is not None and self.verb not in _WHENS[self.when]:
            raise InvalidValue(f"fault: there is no {self.when!r} in {self.verb}")
        if self.what in _OF_MAKERS and self.verb not in (None, *_MAKERS):
            raise InvalidValue(f"fault: {self.verb} makes no process, so no {self.what} either")

    def _check_value(self) -> None:
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if self.what == "late":
            if not number or not 0 <= (self.value or 0) <= sys.float_info.max:  # type: ignore[operator]
                raise InvalidValue(f"value: late by how many seconds? not {self.value!r:.100}")
        elif self.what == "tell":
            if not isinstance(self.value, str) or not self.value.startswith("/"):
                raise InvalidValue(f"value: tell needs an absolute path, not {self.value!r:.100}")
        elif self.what in ("fail", "garbage-pid"):
            if self.value is not None and not isinstance(self.value, str):
                raise InvalidValue(f"value: of {self.what} it is text, not {self.value!r:.100}")
        elif self.value is not None:
            raise InvalidValue(f"fault: {self.what} takes no value")
        if isinstance(self.value, str):
            check_text(self.value, "value")

    def to_json(self) -> dict[str, Any]:
        """Return what the program is told."""
        told = attrs.asdict(self)
        for name in ("only_while", "once"):
            told[name] = None if told[name] is None else os.path.abspath(told[name])
        return told


class HostRuntime:
    """An OCI runtime that runs processes on the host, without isolation.

    For tests on machines with no runtime and no root: ``open_supervisor(runtime=
    HostRuntime().runtime)``. Its processes have no namespaces, no root filesystem, no cgroup, no
    limits and no user of their own; their arguments, environment, directory and streams are the
    bundle's. Never run a program under it that you wouldn't run without it.

    Attributes:
        runtime: for `open_supervisor` and the like.
        abilities: what it does of what not every runtime has to; the isolation isn't among it.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.TERMINAL, Ability.PAUSE})

    def __init__(
        self, *, python: str | None = None, root: str | os.PathLike[str] | None = None
    ) -> None:
        """Compose the command line.

        Args:
            python: the path of the Python that runs it, 3.9 or later; None for ours.
            root: where it keeps its containers; None for the supervisor's root.
        """
        self.runtime: Runtime = _runtime((), python, root)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class FaultyRuntime(HostRuntime):
    """A `HostRuntime` in which something goes wrong.

    ``FaultyRuntime(Fault(verb="create", when="after-pid", what="die"))``

    Attributes:
        faults: what goes wrong, a tuple of `Fault`.
    """

    def __init__(
        self,
        *faults: Fault,
        python: str | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        """Compose the command line.

        Args:
            faults: what goes wrong.
            python, root: as for `HostRuntime`.
        """
        for fault in faults:
            check_kind(fault, Fault, "fault")
        self.faults: tuple[Fault, ...] = faults
        self.runtime: Runtime = _runtime(faults, python, root)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.faults))})"


def _runtime(
    faults: tuple[Fault, ...], python: str | None, root: str | os.PathLike[str] | None
) -> Runtime:
    words = [word for fault in faults for word in ("--fault", json.dumps(fault.to_json()))]
    return Runtime(
        path=os.path.abspath(sys.executable if python is None else check_path(python, "python")),
        args=("-IS", str(PROGRAM), *words),
        root=None if root is None else os.path.abspath(check_path(root, "root")),
    )
