"""Find the native programs that were built into this package."""

from __future__ import annotations

import os
import sys

from ..values import ShimNotFound

_PACKAGE = __name__.rpartition(".")[0]


def find_binary(name: str) -> str:
    """Return the absolute path of one of our native programs.

    Looks at the disk in every call: so a reinstall while the program runs is noticed.

    Args:
        name: the program's file name, such as ``supervisor-shim``.

    Raises:
        ShimNotFound: the program is in none of the package's directories, or isn't executable.
    """
    # An editable install has two directories: the sources' and the build's.
    directories = [os.path.abspath(entry) for entry in sys.modules[_PACKAGE].__path__]
    candidates = [os.path.join(directory, name) for directory in directories]
    present = [path for path in candidates if os.path.isfile(path)]
    for path in present:
        if os.access(path, os.X_OK):
            return path
    if present:
        raise ShimNotFound(
            f"{present[0]} is not executable: use chmod +x, or reinstall trio-supervisor",
            path=present[0],
        )
    raise ShimNotFound(
        f"{name} is missing at {' and at '.join(candidates)}: the installation of trio-supervisor "
        "builds this program, so reinstall trio-supervisor (that needs a C compiler)",
        path=candidates[0] if candidates else name,
    )


def check_program(path: str) -> str:
    """Return the absolute path of a program that the caller named.

    Raises:
        ShimNotFound: the program is missing or not executable.
    """
    absolute = os.path.abspath(path)
    if not os.path.isfile(absolute):
        raise ShimNotFound(f"there is no shim at {absolute:.300}", path=absolute)
    if not os.access(absolute, os.X_OK):
        raise ShimNotFound(f"the shim {absolute} is not executable: use chmod +x", path=absolute)
    return absolute
