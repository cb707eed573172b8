"""The parts of a config.json (OCI runtime spec): their checks, defaults and annotations."""

from ._check import (
    Fault,
    carriable,
    kind,
)
from ._filter import (
    for_runtime,
)
from ._init import (
    INIT_ARGS,
    INIT_DESTINATION,
    behind_init,
    can_tell,
    init_path,
    is_ours,
    static_path,
    status_fd,
    telling,
)
from ._layer import (
    MAX_BYTES,
    OVERLAY,
    Layer,
    check_layer,
    inside,
    layer_annotations,
    layer_size,
    surrounding_namespace,
    wants_layer,
)
from ._mounts import (
    Mount,
    MountArgument,
    absolute_sources,
    is_bind,
    system_mounts,
    tmpfs,
)
from ._privileges import (
    PrivilegeOptions,
    Privileges,
    RlimitArgument,
    attainable,
    check_attainable,
    check_privileges,
    process_privileges,
    with_privileges,
)
from ._schema import (
    CONFIG,
    MOUNT,
)
from ._seccomp import (
    SeccompArgument,
    seccomp_section,
)
from ._stop import (
    SignalArgument,
    StopOptions,
    StopWish,
    check_stop,
    check_stop_signal,
    is_grace,
    stop_of,
)
from ._swap import (
    counts_swap,
)

__all__ = [
    "CONFIG",
    "INIT_ARGS",
    "INIT_DESTINATION",
    "MAX_BYTES",
    "MOUNT",
    "OVERLAY",
    "Fault",
    "Layer",
    "Mount",
    "MountArgument",
    "PrivilegeOptions",
    "Privileges",
    "RlimitArgument",
    "SeccompArgument",
    "SignalArgument",
    "StopOptions",
    "StopWish",
    "absolute_sources",
    "attainable",
    "behind_init",
    "can_tell",
    "carriable",
    "check_attainable",
    "check_layer",
    "check_privileges",
    "check_stop",
    "check_stop_signal",
    "counts_swap",
    "for_runtime",
    "init_path",
    "inside",
    "is_bind",
    "is_grace",
    "is_ours",
    "kind",
    "layer_annotations",
    "layer_size",
    "process_privileges",
    "seccomp_section",
    "static_path",
    "status_fd",
    "stop_of",
    "surrounding_namespace",
    "system_mounts",
    "telling",
    "tmpfs",
    "wants_layer",
    "with_privileges",
]
