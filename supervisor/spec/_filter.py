"""Give crun our seccomp profile compiled: it installs it as it is, and needs no libseccomp for it.

Every create would take 8 ms or more otherwise. crun keeps what it is given in its state
directory, and puts it on each exec too.

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
"""What stands in place of the profile: a runtime that doesn't know the annotation lets the
container make no system call at all, instead of every one."""

_BUILT_WITH = b"+SECCOMP"


def for_runtime(spec: Mapping[str, Any], runtime: str) -> dict[str, Any]:
    """Return the spec for one runtime, with the compiled filter if that can take it.

    Raises:
        InvalidValue: the runtime would run it without the filter, and not say so.
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
        return  # whoever runs it says so
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if not _knows_seccomp(path, identity):
        raise InvalidValue(
            f"seccomp: {path} was built without it, and would run the container with no filter "
            'at all: install another crun, or runc, or say seccomp="unconfined"'
        )


@cache
def _knows_seccomp(path: str, identity: tuple[int, ...]) -> bool:
    """Whether what ``crun --version`` prints says so; a script in its place can't be read."""
    with open(path, "rb") as file:
        content = file.read()
    return _BUILT_WITH in content or not content.startswith(b"\x7fELF")
