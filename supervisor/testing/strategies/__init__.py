"""Hypothesis strategies for the library's values: specs, bundles, records, statuses, operations.

Each strategy makes only values that the type allows, and shrinks to short, readable values. Some
strategies take a ``runtime``, and then make only values that this runtime accepts on this machine.
The default, None, makes everything that the OCI runtime specification and our types allow.

Needs Hypothesis, an optional dependency: ``pip install trio-supervisor[testing]``.
"""

try:
    import hypothesis as hypothesis
except ImportError as _missing:
    raise ImportError(
        "supervisor.testing.strategies needs Hypothesis: pip install 'trio-supervisor[testing]'"
    ) from _missing

from ._basic import (
    absolute_paths,
    cgroup_paths,
    ids,
    json_objects,
    json_scalars,
    json_texts,
    json_values,
    texts,
)
from ._given import (
    checkpoint_options,
    completions,
    deadlines,
    log_files,
    log_records,
    mounts,
    runtimes,
    stops,
    terminal_sizes,
)
from ._of_types import (
    STRATEGIES,
)
from ._operations import (
    operations,
    sequences_of_operations,
)
from ._records import (
    container_records,
    exit_statuses,
    process_records,
    records,
    results,
    unknown_objects,
)
from ._specs import (
    arguments,
    bundle_options,
    bundles,
    environments,
    id_mappings,
    process_objects,
    specs,
)

__all__ = [
    "STRATEGIES",
    "absolute_paths",
    "arguments",
    "bundle_options",
    "bundles",
    "cgroup_paths",
    "checkpoint_options",
    "completions",
    "container_records",
    "deadlines",
    "environments",
    "exit_statuses",
    "id_mappings",
    "ids",
    "json_objects",
    "json_scalars",
    "json_texts",
    "json_values",
    "log_files",
    "log_records",
    "mounts",
    "operations",
    "process_objects",
    "process_records",
    "records",
    "results",
    "runtimes",
    "sequences_of_operations",
    "specs",
    "stops",
    "terminal_sizes",
    "texts",
    "unknown_objects",
]
