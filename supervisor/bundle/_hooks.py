"""Wrap a bundle's hooks, so that they find the user's bundle, not our derived one.

Without a supervisor, a hook's working directory, and the bundle in the state that the hook reads,
is the user's bundle, with the files that the hook needs. Source: OCI runtime spec, "POSIX-platform
Hooks", "State"; the behaviour of runc and crun.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import Any, Final

from ..native import find_binary
from ..rootfs import real_path

_PROGRAM: Final = "supervisor-hook"

_ANYWHERE: Final = ("prestart", "createRuntime", "poststart", "poststop")
"""The hooks outside of the container. runc runs poststop in the working directory of the caller."""

_INSIDE: Final = "createContainer"
"""This hook runs in the container's namespaces, while the host's root is still there: in
the root filesystem with runc, in the bundle with crun. A startContainer hook isn't wrapped: it is a
program of the container.""" ""


def at_home(spec: dict[str, Any], home: str, directory: str) -> dict[str, Any]:
    """Return a spec whose hooks find the bundle ``home``, when run from ``directory``.

    The hooks get the bundle's real path: a link on the way may change.

    Raises:
        ShimNotFound: the spec has hooks, and our program for them is missing.
    """
    hooks: Mapping[str, Any] = spec.get("hooks") or {}
    if not any(hooks.get(kind) for kind in (*_ANYWHERE, _INSIDE)):
        return spec
    program = find_binary(_PROGRAM)
    home = real_path(home) or home
    wrapped = dict(hooks)
    for kind in _ANYWHERE:
        wrapped[kind] = [_wrapped(one, program, home, "") for one in hooks.get(kind) or ()]
    if not _has_ids_of_its_own(spec) or _is_for_all(program):
        inside = hooks.get(_INSIDE) or ()
        wrapped[_INSIDE] = [_wrapped(one, program, home, directory) for one in inside]
    return {**spec, "hooks": {kind: some for kind, some in wrapped.items() if some}}


def _wrapped(hook: Mapping[str, Any], program: str, home: str, only_from: str) -> dict[str, Any]:
    path = hook["path"]
    args = hook.get("args") or [path]
    return {
        **hook,
        "path": program,
        "args": [_PROGRAM, only_from, home, json.dumps(home), path, *args],
    }


def _has_ids_of_its_own(spec: Mapping[str, Any]) -> bool:
    """Whether the container's processes have other host ids than we."""
    namespaces = spec["linux"].get("namespaces") or ()
    return os.geteuid() == 0 and any(one["type"] == "user" for one in namespaces)


def _is_for_all(program: str) -> bool:
    """Whether every user may run a program: each directory above must let all users pass."""
    path = os.path.realpath(program)
    while path != "/":
        if not os.stat(path).st_mode & stat.S_IXOTH:
            return False
        path = os.path.dirname(path)
    return True
