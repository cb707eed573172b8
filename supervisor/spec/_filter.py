"""Our seccomp profile, compiled for crun, which then needs no libseccomp for the profile.

Otherwise every create would take at least 8 ms more. crun keeps the filter in its state directory,
and uses it for each exec too.

Source: man crun, "run.oci.seccomp_bpf_data".
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from ..values import InvalidValue
from ._bpf import compile_filter
from ._seccomp import default_profile

ANNOTATION = "run.oci.seccomp_bpf_data"  # since crun 0.17

_NOTHING = {"defaultAction": "SCMP_ACT_ERRNO"}
"""Replaces the profile: with a runtime that doesn't know the annotation, the container can make no
system call at all, instead of every one."""

_BUILT_WITH = b"+SECCOMP"


def for_runtime(spec: Mapping[str, Any], runtime: str) -> dict[str, Any]:
    """Return the spec for one runtime, with the compiled filter if the runtime takes one.

    Raises:
        InvalidValue: the runtime would silently run the container without a filter.
    """
    profile = spec["linux"].get("seccomp")
    if profile is None or os.path.basename(runtime) != "crun":
        return dict(spec)
    _check_crun(runtime)
    bounding = (spec["process"].get("capabilities") or {}).get("bounding") or ()
    capabilities = frozenset(bounding)
    known = default_profile(capabilities)
    compiled = _compiled(capabilities) if profile is known or profile == known else None
    if compiled is None:
        return dict(spec)
    annotations = {**(spec.get("annotations") or {}), ANNOTATION: compiled}
    return {
        **spec,
        "annotations": annotations,
        "linux": {**spec["linux"], "seccomp": _NOTHING},
    }


@cache
def _compiled(capabilities: frozenset[str]) -> str | None:
    code = compile_filter(default_profile(capabilities))
    return None if code is None else base64.b64encode(code).decode()


def _check_crun(path: str) -> None:
    try:
        status = os.stat(path)
    except OSError:
        return  # running crun will report that
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if not _knows_seccomp(path, identity):
        raise InvalidValue(
            f"seccomp: {path} was built without seccomp, and would run the container without a "
            'filter: install another crun, or runc, or pass seccomp="unconfined"'
        )


@cache
def _knows_seccomp(path: str, identity: tuple[int, ...]) -> bool:
    """Whether crun was built with seccomp, by the text of ``crun --version``; True for a script."""
    with open(path, "rb") as file:
        content = file.read()
    return _BUILT_WITH in content or not content.startswith(b"\x7fELF")
