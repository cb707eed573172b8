"""Check the arguments of `Bundle.from_rootfs` and `from_host`, before any file is written."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from ..rootfs import Account, AccountOptions, check_account
from ..spec import (
    MAX_BYTES,
    MOUNT,
    OVERLAY,
    Fault,
    Mount,
    MountArgument,
    PrivilegeOptions,
    Privileges,
    check_privileges,
    is_bind,
)
from ..values import InvalidValue, check_flag, check_int, check_text, copy_object, picked
from ._options import BundleOptions

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_HOSTNAME = "container"

TMPFS_BYTES = 256 << 20
"""How much /tmp and /run may each hold by default."""

MAX_WORD_BYTES = 32 * os.sysconf("SC_PAGE_SIZE")
"""The kernel's limit for one argument or variable, including the NUL: MAX_ARG_STRLEN."""

MAX_STACK_BYTES = 8 << 20
"""The kernel's _STK_LIM: all arguments and variables may have three quarters of this at most."""

LEAST_WORDS_BYTES = 128 << 10
_POINTER_BYTES = 8
_SHOWN = 100

MAX_HOSTNAME = 64
MAX_CPUS = 1_000_000
CPU_PERIOD_MICROSECONDS = 100_000
MIN_QUOTA_MICROSECONDS = 1000
"""The kernel's minimum: 1 ms in each period."""


@attrs.frozen(kw_only=True)
class Arguments:
    """The checked arguments; see `BundleOptions` for their meaning.

    Attributes:
        env: the whole environment, with PATH.
        account: the user and groups that the program runs as; root by default.
        mounts: as entries of config.json.
    """

    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    account: Account
    hostname: str
    mounts: tuple[dict[str, Any], ...]
    writable: str | None
    layer_bytes: int | None
    init: bool
    memory_bytes: int | None
    pids: int | None
    cpus: float | None
    network: str
    tmpfs_bytes: int
    privileges: Privileges

    @property
    def limits(self) -> list[str]:
        """The names of the limits that are set."""
        return [
            name for name in ("memory_bytes", "pids", "cpus") if getattr(self, name) is not None
        ]


def check_arguments(args: Sequence[str], options: BundleOptions) -> Arguments:
    """Return the checked arguments: all but ``path``, ``userns`` and those of `StopOptions`.

    Raises:
        InvalidValue: an argument can't work; the message names the argument.
    """
    mounts, writable = options.get("mounts", ()), options.get("writable")
    privileges = {"oom_score_adj": 0, "seccomp": "default", **picked(options, PrivilegeOptions)}
    return Arguments(
        args=check_args(args),
        env={"PATH": DEFAULT_PATH, **check_env(options.get("env"))},
        cwd=check_absolute(options.get("cwd", "/"), "cwd"),
        account=check_account(**picked(options, AccountOptions)),
        hostname=_hostname(options.get("hostname")),
        mounts=tuple(_mount(mount, f"mounts[{n}]") for n, mount in enumerate(_each(mounts))),
        writable=_writable(writable),
        layer_bytes=_layer_bytes(options.get("layer_bytes"), writable),
        init=check_flag(options.get("init", False), "init"),
        memory_bytes=_limit(options.get("memory_bytes"), "memory_bytes"),
        pids=_limit(options.get("pids"), "pids"),
        cpus=_cpus(options.get("cpus")),
        network=_choice(options.get("network", "none"), "network", ("none", "host")),
        tmpfs_bytes=_tmpfs_bytes(options.get("tmpfs_bytes"), writable),
        privileges=check_privileges(**privileges),
    )


def check_args(args: Sequence[str]) -> tuple[str, ...]:
    """Return a program and the program's arguments.

    Raises:
        InvalidValue: the value can't be that; the message names the argument.
    """
    # A str is a sequence of str, too, but the caller meant another thing.
    if isinstance(args, str | bytes) or not isinstance(args, Sequence):
        raise InvalidValue(f"args must be a sequence of text, not {type(args).__name__}")
    checked = tuple(_word(arg, f"args[{n}]") for n, arg in enumerate(args))
    if not checked or not checked[0]:
        raise InvalidValue("args must begin with the program to run")
    return checked


def check_env(env: Mapping[str, str] | None) -> dict[str, str]:
    """Return variables of an environment; an empty dict for None.

    Raises:
        InvalidValue: the value can't be that; the message names the variable.
    """
    checked: dict[str, str] = {}
    if env is None:
        return checked
    if not isinstance(env, Mapping):
        raise InvalidValue(f"env must be a mapping of names to values, not {type(env).__name__}")
    for key, value in env.items():
        name = check_text(key, "a name in env")
        if not name or "=" in name:
            raise InvalidValue(f"env: {name!r} can't be a variable's name")
        checked[name] = check_text(value, f"env[{_shown(name)}]")
        _check_length(f"{name}={checked[name]}", f"env[{_shown(name)}]")
    return checked


def check_total(process: Mapping[str, Any]) -> None:
    """Check that the kernel takes all arguments and variables of a process object together.

    Raises:
        InvalidValue: they are too long.

    Source: man 2 execve, "Limits on size of arguments and environment".
    """
    words = [*process["args"], *(process.get("env") or ())]
    held = sum(len(word.encode()) + 1 + _POINTER_BYTES for word in words)
    limit = _most_bytes(process.get("rlimits") or ())
    if held > limit:
        raise InvalidValue(
            f"args and env are {held} bytes long together (8 more for each): the kernel takes "
            f"{limit}, a quarter of the stack that the program may have (RLIMIT_STACK)"
        )


def _most_bytes(limits: Iterable[Mapping[str, Any]]) -> int:
    stack = [one["soft"] for one in limits if one["type"] == "RLIMIT_STACK"]
    own = resource.getrlimit(resource.RLIMIT_STACK)[0]
    soft = stack[-1] if stack else (2**64 - 1 if own == resource.RLIM_INFINITY else own)
    return max(LEAST_WORDS_BYTES, min(soft // 4, MAX_STACK_BYTES // 4 * 3))


def _word(value: object, name: str) -> str:
    word = check_text(value, name)
    _check_length(word, name)
    return word


def _check_length(word: str, name: str) -> None:
    if len(word) * 4 < MAX_WORD_BYTES:
        return  # no character has more bytes in UTF-8
    size = len(word.encode()) + 1
    if size > MAX_WORD_BYTES:
        raise InvalidValue(
            f"{name} is {size - 1} bytes long: the kernel takes {MAX_WORD_BYTES - 1} for one "
            "argument or variable; pass the text in a file or on stdin"
        )


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")


def check_absolute(path: str | os.PathLike[str], name: str) -> str:
    """Return an absolute path in the container.

    Raises:
        InvalidValue: ``path`` isn't absolute.
    """
    checked = check_text(os.fspath(path) if isinstance(path, os.PathLike) else path, name)
    if not checked.startswith("/"):
        raise InvalidValue(f"{name} must be an absolute path in the container, not {checked!r}")
    return checked


def _hostname(hostname: str | None) -> str:
    checked = DEFAULT_HOSTNAME if hostname is None else check_text(hostname, "hostname")
    if not 0 < len(checked.encode()) <= MAX_HOSTNAME:
        raise InvalidValue(f"hostname must be 1 to {MAX_HOSTNAME} bytes long")
    return checked


def _each(mounts: Iterable[MountArgument]) -> Iterable[MountArgument]:
    if isinstance(mounts, str | bytes | Mapping) or not isinstance(mounts, Iterable):
        raise InvalidValue(f"mounts must be a sequence of mounts, not {type(mounts).__name__}")
    return mounts


def _mount(mount: MountArgument, name: str) -> dict[str, Any]:
    if isinstance(mount, Mount):
        if not os.path.exists(mount.source):
            raise InvalidValue(f"{name}: the source {mount.source} doesn't exist")
        return mount.to_json()
    if not isinstance(mount, Mapping):
        raise InvalidValue(
            f"{name} must be a Mount, or a mapping as in config.json, not {type(mount).__name__}"
        )
    copied = copy_object(mount, name)
    try:
        MOUNT(copied, name)
    except Fault as fault:
        raise InvalidValue(f"{fault.where} {fault.reason}") from None
    if not copied["destination"].startswith("/"):
        raise InvalidValue(f"{name}.destination must be an absolute path in the container")
    if is_bind(copied) and not str(copied.get("source")).startswith("/"):
        raise InvalidValue(f"{name}.source must be an absolute path on the host")
    return copied


def _writable(writable: str | None) -> str | None:
    if writable is None:
        return None
    if not isinstance(writable, str):
        raise InvalidValue(f"writable must be 'direct', {OVERLAY!r} or None, not {writable!r:.100}")
    return _choice(writable, "writable", ("direct", OVERLAY))


def _layer_bytes(size: int | None, writable: str | None) -> int | None:
    if size is None:
        return None
    if writable != OVERLAY:
        raise InvalidValue(f"layer_bytes: there is a layer only with writable={OVERLAY!r}")
    return check_int(size, "layer_bytes", least=1, most=MAX_BYTES)


def _tmpfs_bytes(size: int | None, writable: str | None) -> int:
    if size is None:
        return TMPFS_BYTES
    if writable is not None:
        raise InvalidValue(
            "tmpfs_bytes: /tmp and /run have tmpfs of their own only if writable=None"
        )
    return check_int(size, "tmpfs_bytes", least=1, most=MAX_BYTES)


def _limit(value: int | None, name: str) -> int | None:
    return None if value is None else check_int(value, name, least=1, most=2**63 - 1)


def _cpus(cpus: object) -> float | None:
    if cpus is None:
        return None
    if not isinstance(cpus, int | float) or isinstance(cpus, bool):
        raise InvalidValue(f"cpus must be a number, not {type(cpus).__name__}")
    least = MIN_QUOTA_MICROSECONDS / CPU_PERIOD_MICROSECONDS
    if not least <= cpus <= MAX_CPUS:  # neither is NaN
        raise InvalidValue(f"cpus must be from {least} to {MAX_CPUS}")
    return cpus


def _choice(value: str, name: str, choices: Sequence[str]) -> str:
    if check_text(value, name) not in choices:
        raise InvalidValue(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
    return value
