"""The system calls that a container may make: by our profile, the caller's, or all.

Our profile is ``seccomp.json`` beside this module: OCI's ``linux.seccomp``, with docker's
additions, which say for which capabilities and architectures an entry applies. A caller's profile
may have either form.

Source: OCI runtime spec, "Seccomp"; seccomp(2); docker's documentation of its profile format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Set
from functools import cache
from typing import Any

from ..system import read_bytes
from ..values import InvalidValue, StateCorrupt, check_text, copy_object, raise_if_scarce
from ._check import Fault
from ._mounts import kernel_version
from ._schema import SECCOMP

SeccompArgument = str | os.PathLike[str] | Mapping[str, Any]

DEFAULT = "default"
UNCONFINED = "unconfined"

_PROFILE = os.path.join(os.path.dirname(__file__), "seccomp.json")

_MACHINES = {  # uname's machine: the names in docker's profiles and in OCI's
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("386", "SCMP_ARCH_X86"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
}
_OWN = ("comment", "includes", "excludes")
"""Docker's keys in an entry, which runtimes don't know."""


def check_seccomp(value: SeccompArgument) -> str | dict[str, Any]:
    """Return ``"default"``, ``"unconfined"``, or a whole profile.

    Args:
        value: one of these words, the path of a profile, or a profile.

    Raises:
        InvalidValue: the value is none of these; says what is wrong, and where.
    """
    if isinstance(value, Mapping):
        profile = copy_object(value, "seccomp")
        where = "seccomp"
    else:
        path = check_text(os.fspath(value) if isinstance(value, os.PathLike) else value, "seccomp")
        if path in (DEFAULT, UNCONFINED):
            return path
        profile = _read(path)
        where = f"seccomp: {path}:"
    try:
        SECCOMP(profile, "profile")
    except Fault as fault:
        raise InvalidValue(f"{where} {fault.where} {fault.reason}") from None
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidValue(f"{where} architectures and archMap don't go together")
    return profile


def seccomp_section(
    wanted: str | Mapping[str, Any], capabilities: Iterable[str]
) -> dict[str, Any] | None:
    """Return the ``linux.seccomp`` for a result of `check_seccomp`.

    Args:
        wanted: that result.
        capabilities: the container's capabilities: with more of them a profile may allow more.

    Returns:
        None for no filter at all.
    """
    if wanted == UNCONFINED:
        return None
    if isinstance(wanted, str):
        return default_profile(frozenset(capabilities))
    return resolve(wanted, frozenset(capabilities), os.uname())


@cache
def default_profile(capabilities: frozenset[str]) -> dict[str, Any]:
    """Return our profile for a container with these capabilities. Don't change it."""
    with open(_PROFILE, encoding="utf-8") as file:
        return resolve(json.load(file), capabilities, os.uname())


def resolve(
    profile: Mapping[str, Any], capabilities: frozenset[str], host: os.uname_result
) -> dict[str, Any]:
    """Return a profile in the form for runtimes, without the entries that docker's additions
    exclude.
    """
    goarch, native = _MACHINES.get(host.machine, (host.machine, ""))
    resolved = {key: value for key, value in profile.items() if key not in ("archMap", "syscalls")}
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == native:
            resolved["architectures"] = [native, *(entry.get("subArchitectures") or ())]
    known: dict[str, Set[str]] = {"arches": {goarch}, "caps": capabilities}
    resolved["syscalls"] = [
        {key: value for key, value in entry.items() if key not in _OWN and value is not None}
        for entry in profile.get("syscalls") or ()
        if _included(entry.get("includes") or {}, known, host.release)
        and not _excluded(entry.get("excludes") or {}, known)
    ]
    return resolved


def _included(condition: Mapping[str, Any], known: Mapping[str, Set[str]], release: str) -> bool:
    """Whether an entry applies: all capabilities are there, and one of the architectures."""
    arches, least = condition.get("arches"), condition.get("minKernel")
    return (
        set(condition.get("caps") or ()) <= known["caps"]
        and (not arches or not known["arches"].isdisjoint(arches))
        and (not least or kernel_version(release) >= kernel_version(least))
    )


def _excluded(condition: Mapping[str, Any], known: Mapping[str, Set[str]]) -> bool:
    return any(not known[key].isdisjoint(condition.get(key) or ()) for key in known)


def _read(path: str) -> dict[str, Any]:
    try:
        value = json.loads(read_bytes(os.path.abspath(path)).decode())
    except (OSError, StateCorrupt) as error:
        if isinstance(error, OSError):
            raise_if_scarce(error)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidValue(
            f"seccomp: {path!r} is neither {DEFAULT!r} nor {UNCONFINED!r}, and can't be read as a "
            f"file: {reason}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"seccomp: {path} is not JSON: {error}") from error
    return copy_object(value, f"seccomp: {path}")
