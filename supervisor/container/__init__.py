"""One container: its directory and state, and its operations, one a module."""

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
)
from ._dispose import (
    Estate,
    dispose,
    incomplete,
    remove_directory,
    sweep,
)
from ._end import (
    Stopped,
    delete,
    finish_stop,
)
from ._exec import (
    adopt_exec,
    end_unreported,
)
from ._plan import (
    presumed_record,
)
from ._request import (
    CreateRequest,
)
from ._start import (
    hidden_gate,
)
from ._under_way import (
    Operations,
    end_under_way,
)

__all__ = [
    "CheckpointOptions",
    "Container",
    "Core",
    "CreateRequest",
    "Estate",
    "Operations",
    "Stopped",
    "adopt_exec",
    "core_of",
    "create",
    "delete",
    "dispose",
    "end_under_way",
    "end_unreported",
    "finish_stop",
    "hidden_gate",
    "incomplete",
    "presumed_record",
    "remove_directory",
    "sweep",
]
