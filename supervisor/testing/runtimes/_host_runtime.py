"""`HostRuntime`, which needs no privileges, and `FaultyRuntime`, which fails on request."""

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
"""The runtime's program, which Python runs by path, with ``-I`` and ``-S``."""

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
        what: what the runtime does. ``"late"``: waits for ``value`` seconds. ``"hang"``: never goes
            on, or goes on when the file ``only_while`` has gone. ``"die"``: dies by SIGKILL.
            ``"fail"``: logs the error ``value``, and exits with 1. ``"mute"``: exits with 1,
            without a message. ``"noisy"``: writes a megabyte to stderr. ``"tell"``: writes its own
            pid into the file ``value``, and goes on. ``"garbage-pid"``: writes ``value``, or
            rubbish, in place of the pid. ``"no-pid"``: writes no pid file. ``"no-console"``: sends
            no terminal. ``"criu"``: a checkpoint fails as with CRIU.
        verb: the call in which the fault happens: ``"create"``, ``"start"``, ...; None for every
            call.
        when: ``"first"``: before everything else. In create, exec and restore also
            ``"before-pid"`` and ``"after-pid"``: when the process exists, before or after the
            runtime writes the pid file. In start also ``"after"``: when the program runs.
        value: see ``what``.
        container: only for the container of this id.
        only_while: only while there is a file at this path, at the time of the fault.
        once: only if there is a file at this path; the runtime removes the file.

    Raises:
        InvalidValue: such a fault can't exist.
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
            raise InvalidValue(f"fault: {self.what} takes no when; leave when out")
        if self.verb is not None and self.verb not in _WHENS[self.when]:
            raise InvalidValue(f"fault: there is no {self.when!r} in {self.verb}")
        if self.what in _OF_MAKERS and self.verb not in (None, *_MAKERS):
            raise InvalidValue(f"fault: {self.verb} makes no process: {self.what} can't happen")

    def _check_value(self) -> None:
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if self.what == "late":
            if not number or not 0 <= (self.value or 0) <= sys.float_info.max:  # type: ignore[operator]
                raise InvalidValue(f"value: late needs seconds, 0 or more, not {self.value!r:.100}")
        elif self.what == "tell":
            if not isinstance(self.value, str) or not self.value.startswith("/"):
                raise InvalidValue(f"value: tell needs an absolute path, not {self.value!r:.100}")
        elif self.what in ("fail", "garbage-pid"):
            if self.value is not None and not isinstance(self.value, str):
                raise InvalidValue(f"value: {self.what} needs text, not {self.value!r:.100}")
        elif self.value is not None:
            raise InvalidValue(f"fault: {self.what} takes no value")
        if isinstance(self.value, str):
            check_text(self.value, "value")

    def to_json(self) -> dict[str, Any]:
        """Return the fault as JSON values, for the program's command line."""
        told = attrs.asdict(self)
        for name in ("only_while", "once"):
            told[name] = None if told[name] is None else os.path.abspath(told[name])
        return told


class HostRuntime:
    """An OCI runtime that runs processes on the host, without isolation.

    For tests on machines without a runtime and without root: ``open_supervisor(runtime=
    HostRuntime().runtime)``. The processes have no namespaces, no root filesystem, no cgroup, no
    limits and no user of their own. Their arguments, environment, directory and streams are the
    bundle's. Run only programs that you would also run directly on the host.

    Attributes:
        runtime: for `open_supervisor` and other functions that take a runtime.
        abilities: the abilities that this runtime has; none of them isolates.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.TERMINAL, Ability.PAUSE})

    def __init__(
        self, *, python: str | None = None, root: str | os.PathLike[str] | None = None
    ) -> None:
        """Compose the command line.

        Args:
            python: the path of the Python that runs the program, 3.9 or later; None for ours.
            root: the runtime's own root; None for one below the supervisor's root.
        """
        self.runtime: Runtime = _runtime((), python, root)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class FaultyRuntime(HostRuntime):
    """A `HostRuntime` with faults.

    ``FaultyRuntime(Fault(verb="create", when="after-pid", what="die"))``

    Attributes:
        faults: the faults, a tuple of `Fault`.
    """

    def __init__(
        self,
        *faults: Fault,
        python: str | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        """Compose the command line.

        Args:
            faults: the faults.
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
