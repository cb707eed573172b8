"""Hypothesis strategies for what the library keeps: JSON, records, statuses.

Each one makes everything that its type admits, and nothing else.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from supervisor._status import Cause, ExitStatus, Source, unknown
from supervisor.state import ContainerRecord, Intent, ProcessRecord, Result, known_keys

_MAX_NS = 2**63 - 1
_MAX_ID = 2**32 - 2

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


def process_objects() -> st.SearchStrategy[dict[str, Any]]:
    """Return OCI process objects as the runtime spec describes them."""
    ids = st.integers(0, _MAX_ID)
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
        root_uid=st.integers(0, _MAX_ID),
        root_gid=st.integers(0, _MAX_ID),
        checkpoint=optional_texts,
        no_pivot_root=st.booleans(),
        runtime_args=st.lists(texts(), max_size=3),
        root=optional_texts,
        stdin=optional_texts,
        stdout=optional_texts,
        stderr=optional_texts,
    )


def results() -> st.SearchStrategy[Result]:
    """Return settled results."""
    return st.builds(Result, status=exit_statuses(), extra=unknown_objects(Result))


def records() -> st.SearchStrategy[ContainerRecord | ProcessRecord | Result]:
    """Return records of every kind."""
    return st.one_of(container_records(), process_records(), results())
