"""One container: the directory, the state and the operations, one operation a module."""

from ._checkpoint import (
    CheckpointOptions,
)
from ._container import (
    Container,
    core_of,
)
from ._core import (
    Core,
)
from ._create import (
    create,
    show,
)
from ._delete import (
    delete,
    delete_broken,
    finish_delete,
)
from ._exec import (
    adopt_exec,
    discard_exec,
)
from ._plan import (
    presumed_record,
)
from ._removal import (
    sweep,
)
from ._request import (
    CreateOptions,
    CreateRequest,
)
from ._start import (
    hidden_gate,
)
from ._stop import (
    Stopped,
    finish_stop,
)
from ._under_way import (
    Operations,
    end_under_way,
)

__all__ = [
    "CheckpointOptions",
    "Container",
    "Core",
    "CreateOptions",
    "CreateRequest",
    "Operations",
    "Stopped",
    "adopt_exec",
    "core_of",
    "create",
    "delete",
    "delete_broken",
    "discard_exec",
    "end_under_way",
    "finish_delete",
    "finish_stop",
    "hidden_gate",
    "presumed_record",
    "show",
    "sweep",
]
