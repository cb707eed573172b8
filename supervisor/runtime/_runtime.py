"""The choice of the OCI runtime: by name, by path, or the first on PATH that can run here."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ..values import (
    InvalidValue,
    RuntimeNotFound,
    check_flag,
    check_path,
    check_text,
    raise_if_scarce,
)

logger = logging.getLogger("supervisor")

CANDIDATES = ("crun", "runc", "youki")
_PACKAGES = ("crun", "runc")  # of Debian


def _tuple(items: Iterable[str]) -> tuple[str, ...]:
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise InvalidValue(f"the args of a runtime must be words, not {type(items).__name__}")
    return tuple(items)


def _strings(
    _: object, attribute: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]
) -> None:
    for number, item in enumerate(value):
        check_text(item, f"{attribute.name}[{number}] of a runtime")


def _place(_: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None or attribute.name == "path":
        check_path(value, f"the {attribute.name} of a runtime")


def _flag(_: object, attribute: attrs.Attribute[bool], value: bool) -> None:
    check_flag(value, f"{attribute.name} of a runtime")


@attrs.frozen(kw_only=True)
class Runtime:
    """An OCI command-line runtime and how to call it.

    Attributes:
        path: absolute path of the program.
        args: extra global arguments, put before ``--root``.
        root: the ``--root`` directory; None for ``<supervisor's root>/.runtime``.
        no_pivot: whether create and restore get ``--no-pivot``.
    """

    path: str = attrs.field(validator=_place)
    args: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=_strings)
    root: str | None = attrs.field(default=None, validator=_place)
    no_pivot: bool = attrs.field(default=False, validator=_flag)

    @classmethod
    def find(cls, name: str | os.PathLike[str] | Runtime | None = None) -> Runtime:
        """Return the runtime that ``name`` stands for.

        Args:
            name: a name on PATH, a path, a `Runtime` (returned unchanged), or None for the
                first of crun, runc and youki that is installed and can run here.

        Raises:
            RuntimeNotFound: the runtime doesn't exist or isn't executable, or no runtime can run
                here.
        """
        if isinstance(name, Runtime):
            return name
        if name is None:
            return cls(path=_first_able())
        return cls(path=_locate(check_path(name, "the runtime")))

    @property
    def name(self) -> str:
        """The program's file name."""
        return os.path.basename(self.path)


def _locate(name: str) -> str:
    path = shutil.which(name)
    if path is not None:
        return os.path.abspath(path)
    if os.path.exists(name):
        raise RuntimeNotFound(f"the runtime {name} is not executable: run chmod +x", name=name)
    package = os.path.basename(name)
    how = f" (Debian: apt-get install {package})" if package in _PACKAGES else ""
    raise RuntimeNotFound(
        f"there is no runtime {name!r:.300} here: install it{how} or give the path", name=name
    )


def _first_able() -> str:
    reasons: list[str] = []
    for name in CANDIDATES:
        path = shutil.which(name)
        obstacle = "not on PATH" if path is None else why_not(name)
        if path is not None and obstacle is None:
            skipped = f" ({'; '.join(reasons)})" if reasons else ""
            logger.info("using the runtime %s%s", path, skipped)
            return os.path.abspath(path)
        reasons.append(f"{name}: {obstacle}")
    raise RuntimeNotFound(
        f"no OCI runtime can run here: {'; '.join(reasons)}. "
        "Install one (Debian: apt-get install runc)",
        name=", ".join(CANDIDATES),
    )


def why_not(name: str, *, cgroup_root: str = "/sys/fs/cgroup") -> str | None:
    """Return why the runtime ``name`` can't run on this machine; None if no reason is seen.

    crun refuses hybrid cgroups: version 1 hierarchies beside a version 2 hierarchy with
    controllers.
    """
    if name != "crun":
        return None
    hybrid = False
    controllers = os.path.join(cgroup_root, "unified", "cgroup.controllers")
    try:
        with open(controllers, encoding="utf-8") as file:
            hybrid = file.read().strip() != ""
    except OSError as error:  # there is no such mount
        raise_if_scarce(error)
    if hybrid and not os.path.exists(os.path.join(cgroup_root, "cgroup.controllers")):
        return "refuses hybrid cgroups (a cgroup2 mount with controllers at /sys/fs/cgroup/unified)"
    return None


def is_crun(path: str) -> bool:
    """Whether a runtime is crun, by the file's name, or by the name of the file a link leads to."""
    names = (os.path.basename(path), os.path.basename(os.path.realpath(path)))
    return any("crun" in name for name in names)
