"""Strategies: exit statuses, and the records on disk."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ...state import ContainerRecord, Intent, ProcessRecord, Result, ShimLost, known_keys
from ...values import (
    MAX_ID,
    Cause,
    ExitStatus,
    Source,
    unknown,
)
from ._basic import absolute_paths, cgroup_paths, ids, json_objects, json_texts, json_values, texts
from ._specs import process_objects

_MAX_NS = 2**63 - 1

_OCI_KEYS = """
    apparmorProfile args capabilities commandLine consoleSize cwd env execCPUAffinity
    ioPriority noNewPrivileges oomScoreAdj rlimits scheduler selinuxLabel terminal user
"""
_FOLDED_OCI_KEYS = frozenset(_OCI_KEYS.casefold().split())


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


def unknown_objects(
    cls: type[ContainerRecord | ProcessRecord | Result],
) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with keys that ``cls`` doesn't know, and that no runtime confuses with one."""
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
