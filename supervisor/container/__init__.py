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
    UnderWay,
    end_under_way,
)
from ._create import (
    Draft,
    Order,
    Site,
    claimed_ids,
    draft,
    launch_init,
    presumed_record,
    user_of,
)
from ._directories import (
    make_container,
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
from ._proof import (
    is_shared,
    proof,
    require_empty,
    require_free,
)
from ._start import (
    hidden_gate,
)

__all__ = [
    "CheckpointOptions",
    "Container",
    "Core",
    "Draft",
    "Estate",
    "Order",
    "Site",
    "Stopped",
    "UnderWay",
    "adopt_exec",
    "claimed_ids",
    "core_of",
    "delete",
    "dispose",
    "draft",
    "end_under_way",
    "end_unreported",
    "finish_stop",
    "hidden_gate",
    "incomplete",
    "is_shared",
    "launch_init",
    "make_container",
    "presumed_record",
    "proof",
    "remove_directory",
    "require_empty",
    "require_free",
    "sweep",
    "user_of",
]
