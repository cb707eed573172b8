"""Strategies: process objects, id mappings, specs and bundles."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from ...bundle import DEFAULT_PATH, Bundle
from ...runtime import Runtime
from ...spec import system_mounts
from ...userns import user_namespace
from ...values import (
    MAX_ID,
)
from ..runtimes import PROGRAM
from ._basic import absolute_paths, texts


def arguments() -> st.SearchStrategy[list[str]]:
    """Return command lines."""
    return st.lists(texts(), min_size=1, max_size=4)


def environments() -> st.SearchStrategy[list[str]]:
    """Return environments: lists of ``NAME=value``."""
    characters = st.characters(codec="utf-8", exclude_characters="\0=")
    names = st.text(characters, min_size=1, max_size=10)
    return st.lists(st.builds("{}={}".format, names, texts()), max_size=4)


def process_objects(*, runtime: Runtime | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """Return OCI process objects as the runtime spec describes them.

    Args:
        runtime: if given, the program is ``true``, and this runtime accepts everything else.
    """
    return _any_process() if runtime is None else _accepted_process(_is_host(runtime))


def _any_process() -> st.SearchStrategy[dict[str, Any]]:
    ids = st.integers(0, MAX_ID)
    user = st.fixed_dictionaries(
        {"uid": ids, "gid": ids},
        optional={
            "umask": st.integers(0, 0o777),
            "additionalGids": st.lists(ids, max_size=3),
        },
    )
    capabilities = st.lists(st.sampled_from(["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"]), unique=True)
    sets = ("bounding", "effective", "inheritable", "permitted", "ambient")
    limits = st.integers(0, 2**64 - 1)
    rlimit = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["RLIMIT_NOFILE", "RLIMIT_CORE"]),
            "soft": limits,
            "hard": limits,
        }
    )
    size = st.fixed_dictionaries({"width": st.integers(0, 65535), "height": st.integers(0, 65535)})
    return st.fixed_dictionaries(
        {"args": arguments(), "cwd": absolute_paths()},
        optional={
            "terminal": st.booleans(),
            "env": environments(),
            "user": user,
            "capabilities": st.fixed_dictionaries({}, optional=dict.fromkeys(sets, capabilities)),
            "rlimits": st.lists(rlimit, max_size=2),
            "noNewPrivileges": st.booleans(),
            "consoleSize": size,
            "apparmorProfile": texts(),
            "selinuxLabel": texts(),
            "oomScoreAdj": st.integers(-1000, 1000),
        },
    )


def _is_host(runtime: Runtime) -> bool:
    return str(PROGRAM) in runtime.args


def _accepted_process(on_host: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Return processes that run ``true``, with ids, limits and capabilities that exist here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = st.integers(16, max(16, min(most, 1 << 20)))
    user = st.fixed_dictionaries({"uid": _users(), "gid": _users()})
    held = st.lists(st.sampled_from(["CAP_KILL", "CAP_NET_BIND_SERVICE"]), unique=True)
    optional: dict[str, st.SearchStrategy[Any]] = {
        "user": user,
        "noNewPrivileges": st.booleans(),
        "capabilities": held.map(
            lambda some: dict.fromkeys(("bounding", "effective", "permitted"), some)
        ),
        "rlimits": limits.map(lambda most: [{"type": "RLIMIT_NOFILE", "soft": most, "hard": most}]),
    }
    names = st.from_regex("[A-Z_][A-Z0-9_]{0,9}", fullmatch=True).filter(lambda n: n != "PATH")
    variables = st.lists(
        st.builds("{}={}".format, names, texts()), max_size=4, unique_by=lambda e: e.split("=")[0]
    )
    return st.fixed_dictionaries(
        {
            "args": st.lists(texts(), max_size=3).map(lambda more: ["true", *more]),
            "cwd": st.sampled_from(["/", "/tmp", "/usr"] if on_host else ["/", "/tmp", "/made"]),
            "env": variables.map(lambda some: [f"PATH={DEFAULT_PATH}", *some]),
        },
        optional=optional,
    )


def _users() -> st.SearchStrategy[int]:
    """Return ids that a container of ours can have: without root, only the id 0."""
    return st.just(0) if user_namespace() is not None else st.integers(0, 60_000)


def id_mappings(
    *, map_root: bool = True, max_size: int = 4
) -> st.SearchStrategy[list[dict[str, int]]]:
    """Return values of ``linux.uidMappings``: no two overlap, inside or outside.

    Args:
        map_root: whether to map the container's root always, as this library requires.
        max_size: how many entries there may be.
    """
    parts = st.tuples(st.integers(0, 1000), st.integers(1, 1000), st.integers(0, 100_000))

    def place(gaps: list[tuple[int, int, int]]) -> list[dict[str, int]]:
        inside = outside = 0
        found = []
        for number, (gap, size, above) in enumerate(gaps):
            inside += 0 if map_root and number == 0 else gap
            outside += above
            found.append({"containerID": inside, "hostID": outside, "size": size})
            inside += size
            outside += size
        return found

    return st.lists(parts, min_size=int(map_root), max_size=max_size).map(place)


def specs(*, runtime: Runtime | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """Return whole config.json objects that `Bundle.load` accepts.

    Args:
        runtime: if given, the specs run ``true`` in the root filesystem ``rootfs`` beside the
            config.json, and this runtime accepts them.
    """
    if runtime is not None:
        return st.builds(_accepted_spec, _accepted_process(_is_host(runtime)), _hostnames())
    linux = st.fixed_dictionaries(
        {},
        optional={
            "namespaces": st.lists(
                st.sampled_from(["pid", "mount", "ipc", "uts", "network"]), unique=True
            ).map(lambda kinds: [{"type": kind} for kind in kinds]),
            "sysctl": st.dictionaries(texts(min_size=1), texts(), max_size=2),
        },
    )
    return st.fixed_dictionaries(
        {
            "ociVersion": st.sampled_from(["1.0.2", "1.1.0", "1.2.0"]),
            "process": _any_process(),
            "root": st.just({"path": "rootfs"}),
            "linux": linux,
        },
        optional={
            "hostname": _hostnames(),
            "annotations": st.dictionaries(texts(min_size=1), texts(), max_size=2),
        },
    )


def _hostnames() -> st.SearchStrategy[str]:
    return st.from_regex("[a-z][a-z0-9-]{0,20}", fullmatch=True)


def _accepted_spec(process: dict[str, Any], hostname: str) -> dict[str, Any]:
    namespace = user_namespace()
    kinds = ["pid", "mount", "ipc", "uts", "network"] + (["user"] if namespace else [])
    linux: dict[str, Any] = {"namespaces": [{"type": kind} for kind in kinds]}
    if namespace is not None:
        linux["uidMappings"] = [entry.to_json() for entry in namespace.uids]
        linux["gidMappings"] = [entry.to_json() for entry in namespace.gids]
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs", "readonly": False},
        "hostname": hostname,
        "mounts": system_mounts(
            tty_group=namespace is None, own_sysfs=True, cgroup=namespace is None
        ),
        "linux": linux,
    }


def bundle_options(*, runtime: Runtime | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """Return keyword arguments for `Bundle.from_rootfs` and `Bundle.from_host`.

    Args:
        runtime: if given, only options that this runtime accepts for a small program.
    """
    bare = user_namespace() is not None  # an ordinary user may have no limits
    some = 16 if runtime is not None else 1
    limits: dict[str, st.SearchStrategy[Any]] = {
        "memory_bytes": st.integers(some << 20, 1 << 40),
        "pids": st.integers(some, 1 << 20),
        "cpus": st.sampled_from([0.05, 0.5, 1, 2]),
    }
    names = st.from_regex("[A-Z_][A-Z0-9_]{0,9}", fullmatch=True).filter(lambda n: n != "PATH")
    return st.fixed_dictionaries(
        {},
        optional={
            "env": st.dictionaries(names, texts(), max_size=3),
            "cwd": st.sampled_from(["/", "/tmp"]),
            "hostname": _hostnames(),
            "user": _users(),
            "init": st.booleans(),
            **({} if bare else limits),
        },
    )


def bundles(
    args: Sequence[str] = ("true",),
    *,
    rootfs: str | os.PathLike[str] | None = None,
    runtime: Runtime | None = None,
) -> st.SearchStrategy[Bundle]:
    """Return temporary bundles that run a program; a bundle's files go with the `Bundle`.

    Args:
        args: the program and the program's arguments.
        rootfs: the root filesystem; None for the host's programs.
        runtime: the runtime that must accept the bundles; None for a real runtime.
    """

    def make(options: dict[str, Any]) -> Bundle:
        if rootfs is None:
            return Bundle.from_host(list(args), **options)
        return Bundle.from_rootfs(rootfs, list(args), **options)

    # What a runtime refuses depends on the machine, so all values stay far from the limits.
    options = bundle_options(runtime=runtime or Runtime(path="/"))
    if runtime is not None and _is_host(runtime):  # no pid namespace, so no init
        options = options.map(lambda some: {k: v for k, v in some.items() if k != "init"})
    return options.map(make)
