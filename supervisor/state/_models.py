"""The records: the contents of ``state.json``, ``process.json`` and ``result.json``.

Each record is checked when made: so every record that exists can be written, and read back
equal. Keys that we don't know are kept in ``extra`` and written back.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import attrs

from ..values import (
    MAX_ID,
    Cause,
    ExitStatus,
    InvalidValue,
    Source,
    check_flag,
    check_int,
    check_kind,
    check_object,
    check_text,
    copy_json,
    copy_object,
)
from ._fields import (
    Kind,
    absolute,
    arguments,
    as_tuple,
    check_fields,
    copied_extra,
    copied_labels,
    copied_restart,
    environment,
    key_of,
    plain_cgroup,
)
from ._ids import check_id

VERSION = 1
"""The newest version of ``state.json`` and ``result.json`` that this library knows."""

MAX_NS = 2**63 - 1
"""The latest time, and the longest one, in nanoseconds."""

R = TypeVar("R", bound="ContainerRecord | ProcessRecord | Result")


class Intent(enum.Enum):
    """An operation that was begun; the container's next owner must finish the operation."""

    STOP = "stop"
    DELETE = "delete"


class ShimLost(enum.Enum):
    """What happens to a process that has lost the shim."""

    KILL = "kill"
    KEEP = "keep"


def check_status(values: Mapping[str, Any]) -> None:
    """Check the values of an `ExitStatus`, given by attribute: the class makes no checks.

    Raises:
        InvalidValue: a value couldn't be written and read back equal.
    """
    for name, most in (("code", 255), ("signal", 64), ("at_ns", MAX_NS)):
        if (number := values.get(name)) is not None:
            check_int(number, f"status.{name}", least=0, most=most)
    check_kind(values["cause"], Cause, "status.cause")
    check_kind(values["source"], Source, "status.source")
    for name in ("core_dumped", "oom_killed"):
        check_flag(values.get(name, False), f"status.{name}")
    if (why := values.get("why")) is not None:
        check_text(why, "status.why")


def _unknown(record: object, _: str, extra: Mapping[str, Any]) -> None:
    for key in sorted(_KNOWN[type(record)] & extra.keys()):
        raise InvalidValue(f"extra holds {key!r}, which has a field of its own")


def _container_id(_: object, name: str, value: str) -> None:
    check_id(value)


def _status(_: object, name: str, status: ExitStatus) -> None:
    check_status({key: getattr(status, key) for key in STATUS_KEYS})


_TEXT = Kind(str).on()
_OPTIONAL_TEXT = Kind(str, optional=True).on()
_PATH = Kind(str, rule=absolute).on()
_TEXTS = Kind(tuple).on()
_ARGUMENTS = Kind(tuple, rule=arguments).on()
_ENVIRONMENT = Kind(tuple, rule=environment).on()
_FLAG = Kind(bool).on()
_COUNT = Kind(int, most=2**63 - 1).on()
_OPTIONAL_COUNT = Kind(int, optional=True, most=2**63 - 1).on()
_SIGNAL = Kind(int, optional=True, least=1, most=64).on()
_VERSION = Kind(int, least=1, most=VERSION).on()
_EXTRA = Kind(dict, rule=_unknown).on()


@attrs.frozen(kw_only=True)
class ContainerRecord:
    """One container: ``state.json``.

    Attributes:
        id: the container's id.
        root: absolute path of the supervisor's root.
        bundle: absolute path of the user's bundle.
        runtime: absolute path of the OCI runtime.
        runtime_args: the runtime's global arguments, before the verb.
        runtime_root: the directory where the runtime keeps the runtime's own state.
        shim: path of the shim's program.
        no_pivot_root: whether create and restore get ``--no-pivot``.
        timeout_ns: the deadline of create, > 0.
        created_ns: CLOCK_REALTIME when the container was made.
        cgroup: the explicit ``linux.cgroupsPath``; None for a rootless container without a cgroup.
        boot_id: the kernel's boot id when the container was made.
        labels: the caller's labels.
        restart: the restart policy; None for none.
        intent: the operation that was begun and must be finished.
        leash: whether the container dies with the supervisor.
        on_shim_lost: what happens to a process that has lost the shim.
        stop_signal: number of the signal that asks the container to end; None for SIGTERM.
        stop_grace_ns: how long the container then has, `MAX_NS` for no limit; None for the
            default.
        shim_options: the shim's options for a root filesystem that the shim puts together: the
            layer, and the id mapping.
        restore_options: the runtime's options for CRIU, for a restored container.
        version: the version of the format.
        extra: keys that we don't know.
    """

    id: str = attrs.field(metadata=Kind(object, rule=_container_id).on())
    root: str = attrs.field(metadata=_PATH)
    bundle: str = attrs.field(metadata=_PATH)
    runtime: str = attrs.field(metadata=_PATH)
    runtime_args: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, metadata=_TEXTS)
    runtime_root: str = attrs.field(metadata=_TEXT)
    shim: str = attrs.field(metadata=_TEXT)
    no_pivot_root: bool = attrs.field(default=False, metadata=_FLAG)
    timeout_ns: int = attrs.field(metadata=Kind(int, least=1, most=MAX_NS).on("timeout"))
    created_ns: int = attrs.field(metadata=Kind(int, most=MAX_NS).on("created"))
    cgroup: str | None = attrs.field(metadata=Kind(str, optional=True, rule=plain_cgroup).on())
    boot_id: str = attrs.field(metadata=_TEXT)
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=copied_labels)
    restart: Mapping[str, Any] | None = attrs.field(default=None, converter=copied_restart)
    intent: Intent | None = attrs.field(default=None, metadata=Kind(Intent, optional=True).on())
    leash: bool = attrs.field(default=False, metadata=_FLAG)
    on_shim_lost: ShimLost = attrs.field(default=ShimLost.KILL, metadata=Kind(ShimLost).on())
    stop_signal: int | None = attrs.field(default=None, metadata=_SIGNAL)
    stop_grace_ns: int | None = attrs.field(
        default=None, metadata=Kind(int, optional=True, most=MAX_NS).on("stopGrace")
    )
    shim_options: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, metadata=_TEXTS)
    restore_options: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, metadata=_TEXTS)
    version: int = attrs.field(default=VERSION, metadata=_VERSION)
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=copied_extra, metadata=_EXTRA)

    def __attrs_post_init__(self) -> None:
        check_fields(self, attrs.fields(type(self)))


_PLAIN_OCI_KEYS = ("terminal", "args", "env", "cwd")
_OTHER_OCI_KEYS = (
    "apparmorProfile",
    "capabilities",
    "commandLine",
    "consoleSize",
    "execCPUAffinity",
    "ioPriority",
    "noNewPrivileges",
    "oomScoreAdj",
    "rlimits",
    "scheduler",
    "selinuxLabel",
    "user",
)
_FOLDED = {key.casefold(): key for key in (*_PLAIN_OCI_KEYS, *_OTHER_OCI_KEYS)}


def _copied_process_extra(value: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the other keys; refuse keys and texts that a runtime would read in another way.

    A runtime written in Go ignores the case of keys, and would read ``Args`` as ``args``. A
    runtime written in C ends text at a NUL.
    """
    known, unknown = {}, {}
    for key, item in check_object(value, "extra").items():
        meant = _FOLDED.get(key.casefold()) if isinstance(key, str) else None
        if meant is None:
            unknown[key] = item
            continue
        if key != meant:
            raise InvalidValue(f"extra holds {key!r}, which a runtime may take for {meant!r}")
        known[meant] = item
    return copy_object(known, "extra", nul=False) | copy_object(unknown, "extra")


@attrs.frozen(kw_only=True)
class ProcessRecord:
    """One process: ``process.json``, the OCI process object and our own keys.

    Attributes:
        exec: whether the process is an exec, not the container's first process.
        root_uid: host uid of the container's root, who owns the fifos of standard streams.
        root_gid: host gid of the container's root.
        checkpoint: the checkpoint for a restore; None for a create.
        no_pivot_root: whether create and restore get ``--no-pivot``.
        init_tells: whether the first program is our init, which reports a signal to the shim.
        runtime_args: the runtime's global arguments, before the verb.
        root: the runtime's root.
        stdin: where standard input comes from, as in the shim's option.
        stdout: where standard output goes.
        stderr: where standard error goes.
        log_bytes: how large a file of the log may become; None without a log.
        log_files: how many files the log may have.
        terminal: whether the process has a terminal. (This and the next three are keys of the OCI
            process object.)
        args: the program and the program's arguments; at least one.
        env: the environment, ``NAME=value`` each.
        cwd: the working directory, absolute.
        extra: the process object's other keys, and keys that we don't know.
    """

    exec: bool = attrs.field(metadata=_FLAG)
    root_uid: int = attrs.field(metadata=Kind(int, most=MAX_ID).on("rootUID"))
    root_gid: int = attrs.field(metadata=Kind(int, most=MAX_ID).on("rootGID"))
    checkpoint: str | None = attrs.field(default=None, metadata=_OPTIONAL_TEXT)
    no_pivot_root: bool = attrs.field(default=False, metadata=_FLAG)
    init_tells: bool = attrs.field(default=False, metadata=_FLAG)
    runtime_args: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, metadata=_TEXTS)
    root: str | None = attrs.field(default=None, metadata=_OPTIONAL_TEXT)
    stdin: str | None = attrs.field(default=None, metadata=_OPTIONAL_TEXT)
    stdout: str | None = attrs.field(default=None, metadata=_OPTIONAL_TEXT)
    stderr: str | None = attrs.field(default=None, metadata=_OPTIONAL_TEXT)
    log_bytes: int | None = attrs.field(default=None, metadata=_OPTIONAL_COUNT)
    log_files: int | None = attrs.field(default=None, metadata=_OPTIONAL_COUNT)
    terminal: bool = attrs.field(default=False, metadata=_FLAG)
    args: tuple[str, ...] = attrs.field(converter=as_tuple, metadata=_ARGUMENTS)
    env: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, metadata=_ENVIRONMENT)
    cwd: str = attrs.field(default="/", metadata=_PATH)
    extra: Mapping[str, Any] = attrs.field(
        factory=dict, converter=_copied_process_extra, metadata=_EXTRA
    )

    def __attrs_post_init__(self) -> None:
        check_fields(self, attrs.fields(type(self)))

    @classmethod
    def from_process(
        cls,
        process: Mapping[str, Any],
        *,
        exec: bool,
        root_uid: int,
        root_gid: int,
        checkpoint: str | None = None,
        no_pivot_root: bool = False,
        init_tells: bool = False,
        runtime_args: Sequence[str] = (),
        root: str | None = None,
        stdin: str | None = None,
        stdout: str | None = None,
        stderr: str | None = None,
        log_bytes: int | None = None,
        log_files: int | None = None,
    ) -> ProcessRecord:
        """Return the record of an OCI process object.

        Args:
            process: the process object of a spec, or of `process_object`.

        Raises:
            InvalidValue: a value can't be written or can't work, or the object has one of our
                own keys.
        """
        rest = dict(process)
        if "args" not in rest:
            raise InvalidValue("the process object has no args")
        own = {key: rest.pop(key) for key in _PLAIN_OCI_KEYS if key in rest}
        return cls(
            exec=exec,
            root_uid=root_uid,
            root_gid=root_gid,
            checkpoint=checkpoint,
            no_pivot_root=no_pivot_root,
            init_tells=init_tells,
            runtime_args=tuple(runtime_args),
            root=root,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            log_bytes=log_bytes,
            log_files=log_files,
            extra=rest,
            **own,
        )


def process_object(record: ProcessRecord) -> dict[str, Any]:
    """Return a copy of the OCI process object in ``record``: all keys except our own.

    Unknown keys are included: they may belong to a newer spec.
    """
    process: dict[str, Any] = copy_json(record.extra, "extra")
    process["terminal"] = record.terminal
    process["args"] = list(record.args)
    process["env"] = list(record.env)
    process["cwd"] = record.cwd
    return process


@attrs.frozen(kw_only=True)
class Result:
    """The settled exit status: ``result.json``, with the status's keys at the top level.

    Attributes:
        status: how the process ended.
        oom_kills: for an init, how many processes of the container the kernel's OOM killer had
            killed by then.
        version: the version of the format.
        extra: keys that we don't know.
    """

    status: ExitStatus = attrs.field(metadata=Kind(ExitStatus, rule=_status).on())
    oom_kills: int = attrs.field(default=0, metadata=_COUNT)
    version: int = attrs.field(default=VERSION, metadata=_VERSION)
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=copied_extra, metadata=_EXTRA)

    def __attrs_post_init__(self) -> None:
        check_fields(self, attrs.fields(type(self)))


STATUS_KEYS = {
    "cause": "cause",
    "source": "source",
    "code": "code",
    "signal": "signal",
    "core_dumped": "coreDumped",
    "oom_killed": "oomKilled",
    "at_ns": "at",
    "why": "why",
}
"""The attributes of an `ExitStatus`, and the key of each in ``result.json``."""


def known_keys(cls: type[Any]) -> frozenset[str]:
    """Return the keys in a record's file that have a field; ``extra`` can't hold these keys."""
    return _KNOWN[cls]


def changed(record: R, **values: Any) -> R:
    """Return a copy of ``record`` with new values in some fields; only these are checked.

    Raises:
        InvalidValue: a value isn't valid for the field.
    """
    new = copy.copy(record)
    for name, value in values.items():
        field: attrs.Attribute[Any] = getattr(attrs.fields(type(record)), name)
        fit = value if field.converter is None else field.converter(value)  # type: ignore[operator]
        object.__setattr__(new, name, fit)  # frozen, but the caller doesn't have the copy yet
        check_fields(new, [field])
    return new


FIELDS: dict[type[Any], Mapping[str, attrs.Attribute[Any]]] = {
    cls: {
        key_of(field): field for field in attrs.fields(cls) if field.name not in ("extra", "status")
    }
    for cls in (ContainerRecord, ProcessRecord, Result)
}
FIELDS[ExitStatus] = {STATUS_KEYS[field.name]: field for field in attrs.fields(ExitStatus)}
_KNOWN = {cls: frozenset(fields) for cls, fields in FIELDS.items()}
_KNOWN[Result] |= _KNOWN[ExitStatus]
