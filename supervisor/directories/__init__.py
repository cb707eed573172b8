"""Our directories: the root, temporary ones, and what is left in either."""

from ._abandoned import (
    PREFIX,
    mounted_below,
)
from ._remains import (
    remains,
    still_there,
    tell,
)
from ._root import (
    Root,
    cgroup_stem,
    durable_root,
    root_to_read,
    shared_runtime_root,
)
from ._temporary import (
    Temporary,
    paths,
    places,
    unmade,
)

__all__ = [
    "PREFIX",
    "Root",
    "Temporary",
    "cgroup_stem",
    "durable_root",
    "mounted_below",
    "paths",
    "places",
    "remains",
    "root_to_read",
    "shared_runtime_root",
    "still_there",
    "tell",
    "unmade",
]
