"""Read and check a bundle's config.json; the errors name each fault's place."""

from __future__ import annotations

import json
import os
import stat
from typing import Any, NoReturn

from ..spec import CONFIG, Fault, carriable, check_layer, kind
from ..system import read_bytes
from ..userns import check_wish, container_root_ids
from ..values import BundleInvalid, StateCorrupt, raise_if_scarce


def read_config(directory: str) -> dict[str, Any]:
    """Return the content of the config.json in ``directory``, unchecked.

    Raises:
        BundleInvalid: the file is missing, can't be read, or isn't a JSON object.
        TooManyFiles: no descriptor is left.
    """
    path = os.path.join(directory, "config.json")
    try:
        data = read_bytes(path)
    except StateCorrupt as error:
        raise BundleInvalid(f"is {error.reason}", path=path) from error
    except OSError as error:
        raise_if_scarce(error)
        raise _unreadable(directory, path, error) from error
    value = _parse(data, path)
    if not isinstance(value, dict):
        raise BundleInvalid(f"must hold a JSON object, not {kind(value)}", path=path)
    return value


def check_spec(spec: dict[str, Any], directory: str) -> None:
    """Check a config.json and the root filesystem.

    Raises:
        BundleInvalid: a value is wrong; names the value's place, and what should be there.
    """
    path = os.path.join(directory, "config.json")
    try:
        carriable(spec)
        CONFIG(spec, "")
    except Fault as fault:
        raise BundleInvalid(fault.reason, path=path, where=fault.where or None) from None
    if not _joins_user_namespace(spec):
        container_root_ids(spec, path=path)
    check_layer(spec, path)
    check_wish(spec, path)
    _check_root(spec["root"]["path"], directory, path)


def _unreadable(directory: str, path: str, error: OSError) -> BundleInvalid:
    """Return the error that says why config.json can't be read."""
    if isinstance(error, FileNotFoundError) and os.path.isdir(directory):
        return BundleInvalid(
            "is missing: a bundle is a directory with a config.json (`runc spec` writes one)",
            path=path,
        )
    if isinstance(error, FileNotFoundError):
        return BundleInvalid("there is no such directory", path=directory)
    if isinstance(error, NotADirectoryError):
        return BundleInvalid(
            "is not a directory: give the directory that holds config.json",
            path=directory,
        )
    return BundleInvalid(f"can't be read: {error.strerror}", path=path)


def _parse(data: bytes, path: str) -> Any:
    try:
        return json.loads(data.decode(), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BundleInvalid(
            f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}",
            path=path,
        ) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BundleInvalid(f"is not UTF-8: line {line}, byte {error.start}", path=path) from error
    except RecursionError as error:
        raise BundleInvalid("is nested too deep", path=path) from error
    except ValueError as error:  # a constant, or an integer of thousands of digits
        raise BundleInvalid(f"is not JSON: {error}", path=path) from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _joins_user_namespace(spec: dict[str, Any]) -> bool:
    """Whether the container joins an existing user namespace, which may not exist yet."""
    namespaces = spec["linux"].get("namespaces") or ()
    return any(entry["type"] == "user" and entry.get("path") for entry in namespaces)


def _check_root(root: str, directory: str, path: str) -> None:
    where = "root.path"
    rootfs = os.path.join(directory, root)
    try:
        mode = os.stat(rootfs).st_mode
    except FileNotFoundError:
        raise BundleInvalid(
            f"there is no directory {rootfs}: put the root filesystem there",
            path=path,
            where=where,
        ) from None
    except OSError as error:
        raise BundleInvalid(
            f"{rootfs} can't be reached: {error.strerror}", path=path, where=where
        ) from error
    if not stat.S_ISDIR(mode):
        raise BundleInvalid(f"{rootfs} is not a directory", path=path, where=where)
