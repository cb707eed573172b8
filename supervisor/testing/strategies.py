"""Hypothesis strategies for the library's values: specs, bundles, records, statuses, operations.

Each one makes only what its type admits, and shrinks to something short and readable. Where a
``runtime`` can be given, only what that runtime accepts here is made; the default, None, stands
for everything that the OCI runtime specification and our types admit.

Needs Hypothesis, an optional dependency: ``pip install trio-supervisor[testing]``.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from ..bundle import DEFAULT_PATH, Bundle
from ..container import CheckpointOptions, Stopped
from ..process import Completed
from ..runtime import Runtime
from ..spec import Mount, system_mounts
from ..state import ContainerRecord, Intent, ProcessRecord, Result, ShimLost, known_keys
from ..stdio import LogFile, LogRecord, TerminalSize
from ..userns import user_namespace
from ..values import MAX_ID, Cause, Deadlines, ExitStatus, IllegalTransition, Source, State, unknown
from .machine import VERBS, Operation
from .runtimes import PROGRAM

try:
    from hypothesis import strategies as st
except ImportError as _missing:
    raise ImportError(
        "supervisor.testing.strategies needs Hypothesis: pip install 'trio-supervisor[testing]'"
    ) from _missing

_MAX_NS = 2**63 - 1

_OCI_KEYS = """
    apparmorProfile args capabilities commandLine consoleSize cwd env execCPUAffinity
    ioPriority noNewPrivileges oomScoreAdj rlimits scheduler selinuxLabel terminal user
"""
_FOLDED_OCI_KEYS = frozenset(_OCI_KEYS.casefold().split())

# ---- text and JSON ---------------------------------------------------------------


def json_texts() -> st.SearchStrategy[str]:
    """Return text that JSON carries: no surrogates."""
    return st.text(st.characters(codec="utf-8"), max_size=20)


def texts(*, min_size: int = 0) -> st.SearchStrategy[str]:
    """Return text that a C string carries: no surrogates, no NULs."""
    characters = st.characters(codec="utf-8", exclude_characters="\0")
    return st.text(characters, min_size=min_size, max_size=20)


def json_scalars() -> st.SearchStrategy[Any]:
    """Return JSON values without parts, integers far beyond 64 bits among them."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**2047), 2**2047),
        st.floats(allow_nan=False, allow_infinity=False),
        json_texts(),
    )


def json_values() -> st.SearchStrategy[Any]:
    """Return any JSON values."""
    return st.recursive(
        json_scalars(),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(json_texts(), inner, max_size=4)
        ),
        max_leaves=8,
    )


def json_objects() -> st.SearchStrategy[dict[str, Any]]:
    """Return any JSON objects."""
    return st.dictionaries(json_texts(), json_values(), max_size=4)


# ---- names and paths -------------------------------------------------------------


def ids() -> st.SearchStrategy[str]:
    """Return ids of containers."""
    return st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}", fullmatch=True)


def absolute_paths() -> st.SearchStrategy[str]:
    """Return absolute paths, odd ones too."""
    return texts().map(lambda text: "/" + text)


def cgroup_paths() -> st.SearchStrategy[str]:
    """Return paths below the root cgroup."""
    characters = st.characters(codec="utf-8", exclude_characters="\0/")
    parts = st.text(characters, min_size=1, max_size=10).filter(
        lambda part: part not in (".", "..")
    )
    return st.lists(parts, min_size=1, max_size=4).map(lambda some: "/" + "/".join(some))


# ---- the OCI process object ------------------------------------------------------


def arguments() -> st.SearchStrategy[list[str]]:
    """Return command lines."""
    return st.lists(texts(), min_size=1, max_size=4)


def environments() -> st.SearchStrategy[list[str]]:
    """Return environments, ``NAME=value`` each."""
    characters = st.characters(codec="utf-8", exclude_characters="\0=")
    names = st.text(characters, min_size=1, max_size=10)
    return st.lists(st.builds("{}={}".format, names, texts()), max_size=4)


def process_objects(*, runtime: Runtime | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """Return OCI process objects as the runtime spec describes them.

    Args:
        runtime: then its program is ``true``, and all the rest what this runtime accepts.
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
    """Return what runs ``true``: with ids, limits and capabilities that exist here."""
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
    """Return ids that a container of ours can have: an ordinary user's has its own root only."""
    return st.just(0) if user_namespace() is not None else st.integers(0, 60_000)


# ---- id mappings -----------------------------------------------------------------


def id_mappings(
    *, map_root: bool = True, max_size: int = 4
) -> st.SearchStrategy[list[dict[str, int]]]:
    """Return values of ``linux.uidMappings``: no two overlap, inside or outside.

    Args:
        map_root: whether the container's root is always mapped, as it has to be for us.
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


# ---- bundles ---------------------------------------------------------------------


def specs(*, runtime: Runtime | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """Return whole config.json objects that `Bundle.load` accepts.

    Args:
        runtime: then they run ``true`` in the root filesystem ``rootfs`` beside them, and this
            runtime accepts them.
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
        runtime: then only what this runtime accepts for a program that needs little.
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
    """Return temporary bundles that run a program; each is removed with its value.

    Args:
        args: the program and its arguments.
        rootfs: its root filesystem; None for the host's programs.
        runtime: which is to accept them; None for a real one.
    """

    def make(options: dict[str, Any]) -> Bundle:
        if rootfs is None:
            return Bundle.from_host(list(args), **options)
        return Bundle.from_rootfs(rootfs, list(args), **options)

    # A runtime's own refusals depend on the machine, so nothing goes to the edge of what it can.
    options = bundle_options(runtime=runtime or Runtime(path="/"))
    if runtime is not None and _is_host(runtime):  # there is no init where there is no container
        options = options.map(lambda some: {k: v for k, v in some.items() if k != "init"})
    return options.map(make)


# ---- how a process ended ---------------------------------------------------------


def exit_statuses() -> st.SearchStrategy[ExitStatus]:
    """Return statuses of every cause and source."""
    at_ns = st.none() | st.integers(0, _MAX_NS)
    sources = st.sampled_from(Source)
    exited = st.builds(
        ExitStatus,
        cause=st.just(Cause.EXITED),
        source=sources,
        code=st.integers(0, 255),
        oom_killed=st.booleans(),
        at_ns=at_ns,
    )
    signalled = st.builds(
        ExitStatus,
        cause=st.sampled_from([Cause.SIGNALLED, Cause.OUT_OF_MEMORY]),
        source=sources,
        signal=st.integers(1, 64),
        core_dumped=st.booleans(),
        oom_killed=st.booleans(),
        at_ns=at_ns,
    )
    return exited | signalled | st.builds(unknown, texts(), at_ns=at_ns)


# ---- records ---------------------------------------------------------------------


def unknown_objects(
    cls: type[ContainerRecord | ProcessRecord | Result],
) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects of keys that ``cls`` doesn't know, nor a runtime takes for one it knows."""
    known = known_keys(cls)

    def is_unknown(key: str) -> bool:
        folded = cls is ProcessRecord and key.casefold() in _FOLDED_OCI_KEYS
        return key not in known and not folded

    return st.dictionaries(json_texts().filter(is_unknown), json_values(), max_size=4)


def container_records() -> st.SearchStrategy[ContainerRecord]:
    """Return records of containers."""
    return st.builds(
        ContainerRecord,
        id=ids(),
        root=absolute_paths(),
        bundle=absolute_paths(),
        runtime=absolute_paths(),
        runtime_args=st.lists(texts(), max_size=3).map(tuple),
        runtime_root=absolute_paths(),
        shim=absolute_paths(),
        no_pivot_root=st.booleans(),
        timeout_ns=st.integers(1, _MAX_NS),
        created_ns=st.integers(0, _MAX_NS),
        cgroup=st.none() | cgroup_paths(),
        boot_id=texts(),
        labels=st.dictionaries(texts(), texts(), max_size=3),
        restart=st.none() | json_objects(),
        intent=st.none() | st.sampled_from(Intent),
        on_shim_lost=st.sampled_from(ShimLost),
        stop_signal=st.none() | st.integers(1, 64),
        stop_grace_ns=st.none() | st.integers(0, _MAX_NS),
        leash=st.booleans(),
        extra=unknown_objects(ContainerRecord),
    )


def process_records() -> st.SearchStrategy[ProcessRecord]:
    """Return records of processes, inits and execs."""
    optional_texts = st.none() | texts()
    processes = st.builds(
        lambda process, more: {**more, **process},
        process_objects(),
        unknown_objects(ProcessRecord),
    )
    return st.builds(
        ProcessRecord.from_process,
        processes,
        exec=st.booleans(),
        root_uid=st.integers(0, MAX_ID),
        root_gid=st.integers(0, MAX_ID),
        checkpoint=optional_texts,
        no_pivot_root=st.booleans(),
        init_tells=st.booleans(),
        runtime_args=st.lists(texts(), max_size=3),
        root=optional_texts,
        stdin=optional_texts,
        stdout=optional_texts,
        stderr=optional_texts,
    )


def results() -> st.SearchStrategy[Result]:
    """Return settled results."""
    return st.builds(
        Result,
        status=exit_statuses(),
        oom_kills=st.integers(0, 2**63 - 1),
        extra=unknown_objects(Result),
    )


def records() -> st.SearchStrategy[ContainerRecord | ProcessRecord | Result]:
    """Return records of every kind."""
    return st.one_of(container_records(), process_records(), results())


# ---- what users give and get -----------------------------------------------------


def mounts() -> st.SearchStrategy[Mount]:
    """Return mounts of paths that mostly aren't there."""
    return st.builds(Mount, absolute_paths(), absolute_paths(), read_only=st.booleans())


def runtimes() -> st.SearchStrategy[Runtime]:
    """Return runtimes that mostly aren't there."""
    return st.builds(
        Runtime,
        path=absolute_paths(),
        args=st.lists(texts(), max_size=3),
        root=st.none() | absolute_paths(),
        no_pivot=st.booleans(),
    )


def deadlines() -> st.SearchStrategy[Deadlines]:
    """Return deadlines."""
    seconds = st.floats(0, 3600, exclude_min=True, allow_subnormal=False)
    names = [field.name for field in attrs.fields(Deadlines)]
    return st.builds(Deadlines, **dict.fromkeys(names, seconds))


def terminal_sizes() -> st.SearchStrategy[TerminalSize]:
    """Return sizes of terminals."""
    return st.builds(TerminalSize, st.integers(1, 65535), st.integers(1, 65535))


def log_files() -> st.SearchStrategy[LogFile]:
    """Return bounds of logs."""
    return st.builds(LogFile, max_bytes=st.integers(32 * 1024, 1 << 60), files=st.integers(1, 1000))


def log_records() -> st.SearchStrategy[LogRecord]:
    """Return records of logs."""
    lines = st.binary(max_size=20).map(lambda data: data.replace(b"\n", b""))
    streams = st.sampled_from(["stdout", "stderr"])
    return st.builds(LogRecord, st.integers(0, _MAX_NS), streams, st.booleans(), lines)


def checkpoint_options() -> st.SearchStrategy[CheckpointOptions]:
    """Return what CRIU has to be told."""
    flags = ("tcp_established", "external_unix_sockets", "shell_job", "file_locks")
    kept = st.sampled_from([(), ("network",)])
    told: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(flags, st.booleans())
    return st.builds(CheckpointOptions, **told, empty_namespaces=kept)


def stops() -> st.SearchStrategy[Stopped]:
    """Return what `Container.stop` returns."""
    return st.builds(Stopped, status=exit_statuses(), escalated=st.booleans())


def completions() -> st.SearchStrategy[Completed]:
    """Return what `run_container` returns."""
    output = st.none() | st.binary(max_size=20)
    return st.builds(
        Completed,
        args=arguments().map(tuple),
        status=exit_statuses(),
        stdout=output,
        stderr=output,
    )


# ---- operations ------------------------------------------------------------------


def operations(*, containers: Sequence[str] = ("a", "b", "c")) -> st.SearchStrategy[Operation]:
    """Return single operations, on any of the containers."""
    chosen = st.sampled_from(list(containers))
    others = st.builds(
        Operation, st.sampled_from([verb for verb in VERBS if verb != "signal"]), chosen
    )
    return others | st.builds(Operation, st.just("signal"), chosen, st.sampled_from([15, 9]))


def sequences_of_operations(
    *, containers: Sequence[str] = ("a", "b", "c"), max_size: int = 12, legal: bool = True
) -> st.SearchStrategy[list[Operation]]:
    """Return what is done one after the other.

    Args:
        containers: the ids of the containers.
        max_size: how many operations there may be.
        legal: whether each may be done when its turn comes; else many must be refused.
    """
    if not legal:
        return st.lists(operations(containers=containers), max_size=max_size)
    choices = st.tuples(
        st.sampled_from(list(containers)), st.integers(0, 11), st.sampled_from([15, 9])
    )
    return st.lists(choices, max_size=max_size).map(_legal)


def _legal(choices: list[tuple[str, int, int]]) -> list[Operation]:
    """Return an operation for each choice: by its number among those that may be done then."""
    states: dict[str, State | None] = {}
    done: list[Operation] = []
    for container, number, what in choices:
        state = states.get(container)
        possible = list(_possible(container, state, what))
        operation, states[container] = possible[number % len(possible)]
        done.append(operation)
    return done


def _possible(
    container: str, state: State | None, what: int
) -> Iterator[tuple[Operation, State | None]]:
    for verb in VERBS:
        operation = Operation(verb, container, what if verb == "signal" else None)
        with contextlib.suppress(IllegalTransition):
            yield operation, operation.after(state)


STRATEGIES: dict[type, Callable[[], st.SearchStrategy[Any]]] = {
    CheckpointOptions: checkpoint_options,
    Completed: completions,
    ContainerRecord: container_records,
    Deadlines: deadlines,
    ExitStatus: exit_statuses,
    LogFile: log_files,
    LogRecord: log_records,
    Mount: mounts,
    Operation: operations,
    ProcessRecord: process_records,
    Result: results,
    Runtime: runtimes,
    Stopped: stops,
    TerminalSize: terminal_sizes,
}
"""The strategy of each value: ``st.register_type_strategy(cls, make())`` for `st.from_type`."""
