"""Privileges of a container's processes: capabilities, resource limits, OOM score, seccomp.

None of them is inherited from the supervisor.

Source: capabilities(7), getrlimit(2), proc_pid_oom_score_adj(5).
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypedDict

import attrs

from ..values import InvalidValue, check_int, check_text, raise_if_scarce
from ._seccomp import SeccompArgument, check_seccomp, default_profile, seccomp_section

Limit = tuple[int, int]
RlimitArgument = int | tuple[int, int]

CAPABILITIES: Final = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")

_NAMES: Final = """
    AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
    DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN
    MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID
    SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE
    SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
"""
_ALL_CAPABILITIES: Final = frozenset(f"CAP_{name}" for name in _NAMES.split())

INFINITY: Final = 2**64 - 1
_MIB: Final = 1 << 20

RLIMITS: Final[Mapping[str, Limit]] = {
    "RLIMIT_AS": (INFINITY, INFINITY),
    "RLIMIT_CORE": (0, 0),
    "RLIMIT_CPU": (INFINITY, INFINITY),
    "RLIMIT_DATA": (INFINITY, INFINITY),
    "RLIMIT_FSIZE": (INFINITY, INFINITY),
    "RLIMIT_LOCKS": (INFINITY, INFINITY),
    "RLIMIT_MEMLOCK": (8 * _MIB, 8 * _MIB),
    "RLIMIT_MSGQUEUE": (819_200, 819_200),
    "RLIMIT_NICE": (0, 0),
    # The kernel's own defaults. A supervisor's raised limits aren't inherited: they break programs
    # that use select(), and slow down those that close all possible descriptors.
    "RLIMIT_NOFILE": (1024, 4096),
    "RLIMIT_NPROC": (INFINITY, INFINITY),  # counts a user's processes on the whole host: use `pids`
    "RLIMIT_RSS": (INFINITY, INFINITY),
    "RLIMIT_RTPRIO": (0, 0),
    "RLIMIT_RTTIME": (INFINITY, INFINITY),
    "RLIMIT_SIGPENDING": (16_384, 16_384),
    "RLIMIT_STACK": (8 * _MIB, INFINITY),
}
"""Soft and hard limit of every kind, so that no limit is inherited."""

_NUMBERS: Final = {kind: getattr(resource, kind, 10) for kind in RLIMITS}
"""Python's module has no name for RLIMIT_LOCKS, which is 10."""

_NR_OPEN: Final = "/proc/sys/fs/nr_open"

_CRUNS_SECCOMP: Final = "run.oci.seccomp"  # man crun, "EXTENSIONS TO OCI"

_CAP_SYS_RESOURCE: Final = 1 << 24
_ALL_IDS: Final = [b"0", b"0", b"4294967295"]


class PrivilegeOptions(TypedDict, total=False):
    """What a program may do.

    Attributes:
        capabilities: the only capabilities of the program, such as ``"NET_RAW"`` or
            ``"CAP_NET_RAW"``; by default CAP_AUDIT_WRITE, CAP_KILL and CAP_NET_BIND_SERVICE. If
            given here, a ``user`` that isn't root has them as well.
        rlimits: limits of the processes by name (``"NOFILE"``, ``"RLIMIT_NOFILE"``): a number, or a
            soft and a hard one, in the units of getrlimit(2), -1 for unlimited. All others have
            defaults (docs/api.md): none is inherited. Without CAP_SYS_RESOURCE, a default is no
            higher than this process's own limit.
        oom_score_adj: how likely the kernel kills the program when the host's memory is used up:
            -1000 (never) to 1000. Without CAP_SYS_RESOURCE, no less than this process's own.
        seccomp: which system calls the program may make: ``"default"``, ``"unconfined"`` for all,
            or a profile in the format of OCI's ``linux.seccomp`` or docker's, as a mapping or the
            path of a JSON file. With more ``capabilities``, the default profile allows the system
            calls that these need.
    """

    capabilities: Iterable[str] | None
    rlimits: Mapping[str, RlimitArgument] | None
    oom_score_adj: int | None
    seccomp: SeccompArgument | None


@attrs.frozen(kw_only=True)
class Privileges:
    """What a caller wants for a container's processes; None for what isn't given."""

    capabilities: tuple[str, ...] | None = None
    rlimits: Mapping[str, Limit] | None = None
    oom_score_adj: int | None = None
    seccomp: str | Mapping[str, Any] | None = None


def check_privileges(
    *,
    capabilities: Iterable[str] | None = None,
    rlimits: Mapping[str, RlimitArgument] | None = None,
    oom_score_adj: int | None = None,
    seccomp: SeccompArgument | None = None,
) -> Privileges:
    """Return the arguments in one form.

    Raises:
        InvalidValue: an argument is invalid; names the argument.
    """
    return Privileges(
        capabilities=None if capabilities is None else _capabilities(capabilities),
        rlimits=None if rlimits is None else _rlimits(rlimits),
        oom_score_adj=None
        if oom_score_adj is None
        else check_int(oom_score_adj, "oom_score_adj", least=-1000, most=1000),
        seccomp=None if seccomp is None else check_seccomp(seccomp),
    )


def process_privileges(wanted: Privileges, *, uid: int) -> dict[str, Any]:
    """Return the entries of a new process object; what isn't given gets the default."""
    unbounded = may_raise_limits()
    ordinary = {} if unbounded else {kind: _clamped(kind) for kind in RLIMITS}
    limits = {**RLIMITS, **ordinary, **(wanted.rlimits or {})}
    return {
        "capabilities": _sets(wanted.capabilities, uid=uid),
        "rlimits": _entries(limits),
        "oomScoreAdj": _oom_score_adj(wanted.oom_score_adj or 0, unbounded=unbounded),
    }


def attainable(process: dict[str, Any]) -> dict[str, Any]:
    """Return a process object with the default limits that this program can set now.

    This program's limits may have been lowered since the bundle was made, or the container created:
    without CAP_SYS_RESOURCE, each create and exec would fail. Limits that aren't defaults stay as
    their author wrote them.
    """
    before = process.get("rlimits") or ()
    if not any(_is_default(one) for one in _out_of_reach(process)) or may_raise_limits():
        return process
    above = list(_out_of_reach(process))
    lowered = [
        _entry(one["type"], _clamped(one["type"])) if one in above and _is_default(one) else one
        for one in before
    ]
    return {**process, "rlimits": lowered}


def check_attainable(process: Mapping[str, Any]) -> None:
    """Refuse limits that the runtime couldn't set.

    Raises:
        InvalidValue: a limit is above our own, and we may not raise ours; or above the kernel's.
    """
    above = list(_out_of_reach(process))
    if above and not may_raise_limits():
        kind = above[0]["type"]
        raise InvalidValue(_too_high(kind, above[0]["hard"], _own_hard(kind)))
    for entry in above:
        _check_highest(entry)


def _out_of_reach(process: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the limits that are above our own."""
    for entry in process.get("rlimits") or ():
        own = resource.getrlimit(_NUMBERS[entry["type"]])[1] if entry["type"] in _NUMBERS else -1
        if 0 <= own < entry["hard"]:
            yield entry


def _is_default(entry: Mapping[str, Any]) -> bool:
    """Whether a limit is a default, or was once the nearest possible one: then it is lower."""
    soft, hard = RLIMITS[entry["type"]]
    return bool(entry["hard"] <= hard and entry["soft"] == min(soft, entry["hard"]))


def _check_highest(entry: Mapping[str, Any]) -> None:
    """Refuse more open files than the kernel allows to any process."""
    if entry["type"] != "RLIMIT_NOFILE":
        return
    most = int(_read(_NR_OPEN))
    if entry["hard"] > most:
        raise InvalidValue(
            f"rlimits: the hard RLIMIT_NOFILE can't be {_shown(entry['hard'])}: this machine's "
            f"highest is {most} ({_NR_OPEN})"
        )


def _too_high(kind: str, hard: int, ceiling: int) -> str:
    return (
        f"rlimits: the hard {kind} can't be {_shown(hard)}: this process has {ceiling}, and "
        "may not raise that (CAP_SYS_RESOURCE)"
    )


def with_privileges(spec: dict[str, Any], wanted: Privileges) -> dict[str, Any]:
    """Return a spec with the privileges that create's caller gives; the rest is shared."""
    process, linux = dict(spec["process"]), dict(spec["linux"])
    before = _bounding(process)
    if wanted.capabilities is not None:
        uid = (process.get("user") or {}).get("uid") or 0
        process["capabilities"] = _sets(wanted.capabilities, uid=uid)
    if wanted.rlimits is not None:
        old = {one["type"]: (one["soft"], one["hard"]) for one in process.get("rlimits") or ()}
        process["rlimits"] = _entries({**old, **wanted.rlimits})
    if wanted.oom_score_adj is not None:
        unbounded = may_raise_limits()
        process["oomScoreAdj"] = _oom_score_adj(wanted.oom_score_adj, unbounded=unbounded)
    seccomp = wanted.seccomp
    if seccomp is None and before != _bounding(process):
        # Our own profile depends on the capabilities. Another profile stays as its author wrote it.
        seccomp = "default" if linux.get("seccomp") == default_profile(before) else None
    if seccomp is not None:
        linux["seccomp"] = seccomp_section(seccomp, _bounding(process))
        if linux["seccomp"] is None:
            del linux["seccomp"]
        spec = _without_filter(spec)
    return {**spec, "process": process, "linux": linux}


def _without_filter(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec without the annotations by which crun would change the filter."""
    kept = {
        name: value
        for name, value in (spec.get("annotations") or {}).items()
        if not name.startswith(_CRUNS_SECCOMP)
    }
    return {**spec, "annotations": kept} if "annotations" in spec else spec


def _bounding(process: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((process.get("capabilities") or {}).get("bounding") or ())


def _sets(capabilities: Sequence[str] | None, *, uid: int) -> dict[str, list[str]]:
    """Return the capability sets of a process.

    At exec, an ordinary user's process loses all but the ambient capabilities. Capabilities that
    the caller asks for are made ambient, default ones aren't, as with docker.
    """
    few = list(CAPABILITIES if capabilities is None else capabilities)
    kinds = ["bounding", "effective", "permitted"]
    if capabilities is not None and uid != 0:
        kinds += ["inheritable", "ambient"]
    return {kind: list(few) for kind in kinds}


def _entries(limits: Mapping[str, Limit]) -> list[dict[str, Any]]:
    return [_entry(kind, limit) for kind, limit in sorted(limits.items())]


def _entry(kind: str, limit: Limit) -> dict[str, Any]:
    return {"type": kind, "soft": limit[0], "hard": limit[1]}


def _capabilities(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
        raise InvalidValue(f"capabilities must be names, not {type(names).__name__}")
    checked = set()
    for name in names:
        upper = check_text(name, "a name in capabilities").upper()
        full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if full not in _ALL_CAPABILITIES:
            raise InvalidValue(f"capabilities: there is no capability {name!r}")
        checked.add(full)
    return tuple(sorted(checked))


def _rlimits(limits: Mapping[str, RlimitArgument]) -> dict[str, Limit]:
    if not isinstance(limits, Mapping):
        raise InvalidValue(
            f"rlimits must be a mapping of names to limits, not {type(limits).__name__}"
        )
    checked = {}
    for name, value in limits.items():
        upper = check_text(name, "a name in rlimits").upper()
        kind = upper if upper.startswith("RLIMIT_") else f"RLIMIT_{upper}"
        if kind not in RLIMITS:
            raise InvalidValue(f"rlimits: there is no limit {name!r}")
        checked[kind] = _limit(value, kind)
    return checked


def _limit(value: RlimitArgument, kind: str) -> Limit:
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2:
        raise InvalidValue(f"rlimits: {kind} must be a number, or a soft and a hard one")
    soft, hard = [
        INFINITY if one == resource.RLIM_INFINITY and not isinstance(one, bool) else one
        for one in pair
    ]
    check_int(soft, f"the soft {kind}", least=0, most=INFINITY)
    check_int(hard, f"the hard {kind}", least=0, most=INFINITY)
    if soft > hard:
        raise InvalidValue(f"rlimits: the soft {kind} is above the hard one")
    ceiling = hard if may_raise_limits() else _own_hard(kind)
    if hard > ceiling:
        raise InvalidValue(_too_high(kind, hard, ceiling))
    return soft, hard


def _shown(limit: int) -> str:
    return "unlimited" if limit == INFINITY else str(limit)


def _clamped(kind: str) -> Limit:
    """Return a default limit that this process can set: not above the process's hard limit."""
    soft, hard = RLIMITS[kind]
    ceiling = _own_hard(kind)
    return min(soft, ceiling), min(hard, ceiling)


def _own_hard(kind: str) -> int:
    hard = resource.getrlimit(_NUMBERS[kind])[1]
    return INFINITY if hard == resource.RLIM_INFINITY else hard


def _oom_score_adj(wanted: int, *, unbounded: bool) -> int:
    """Return the nearest score that this process can set: not below the process's own."""
    if unbounded:
        return wanted
    return max(wanted, int(_read("/proc/self/oom_score_adj")))


def may_raise_limits() -> bool:
    """Whether this process has CAP_SYS_RESOURCE on the host, where the kernel asks for that."""
    if _read("/proc/self/uid_map").split() != _ALL_IDS:
        return False
    effective = _read("/proc/self/status").partition(b"\nCapEff:")[2].split(maxsplit=1)[0]
    return bool(int(effective, 16) & _CAP_SYS_RESOURCE)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise_if_scarce(error)
        raise
