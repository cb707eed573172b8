"""What is on disk for a container: records and their JSON, marks, names and paths.

The disk is the truth: the next supervisor can read all that a supervisor knows.
"""

from ._codec import (
    dump,
    load,
)
from ._id_claims import (
    Block,
    Claim,
    Ranges,
    give_back,
    note,
    take,
)
from ._ids import (
    INIT,
    check_exec_id,
    check_id,
)
from ._layout import (
    ContainerLayout,
    ProcessLayout,
    RootLayout,
    is_process_id,
)
from ._marks import (
    Asked,
    Copied,
    read_asked,
    read_copied,
    read_exit_status,
    read_pid,
    read_refused,
    read_shim,
    read_starttime,
    write_asked,
)
from ._models import (
    MAX_NS,
    ContainerRecord,
    Intent,
    ProcessRecord,
    Result,
    ShimLost,
    changed,
    known_keys,
    process_object,
)

__all__ = [
    "INIT",
    "MAX_NS",
    "Asked",
    "Block",
    "Claim",
    "ContainerLayout",
    "ContainerRecord",
    "Copied",
    "Intent",
    "ProcessLayout",
    "ProcessRecord",
    "Ranges",
    "Result",
    "RootLayout",
    "ShimLost",
    "changed",
    "check_exec_id",
    "check_id",
    "dump",
    "give_back",
    "is_process_id",
    "known_keys",
    "load",
    "note",
    "process_object",
    "read_asked",
    "read_copied",
    "read_exit_status",
    "read_pid",
    "read_refused",
    "read_shim",
    "read_starttime",
    "take",
    "write_asked",
]
