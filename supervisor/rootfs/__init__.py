"""Root filesystems: users, paths and programs in them, and a view of the host as one."""

from ._host_view import (
    HostView,
    build_view,
    view_host,
)
from ._paths import (
    real_path,
)
from ._program import (
    Obstacle,
    obstacle,
)
from ._submounts import (
    MountTable,
    seal_submounts,
)
from ._tree import (
    LiveTree,
    PlannedTree,
)
from ._users import (
    Account,
    AccountOptions,
    GroupArgument,
    GroupsArgument,
    UserArgument,
    check_account,
    find_account,
)

__all__ = [
    "Account",
    "AccountOptions",
    "GroupArgument",
    "GroupsArgument",
    "HostView",
    "LiveTree",
    "MountTable",
    "Obstacle",
    "PlannedTree",
    "UserArgument",
    "build_view",
    "check_account",
    "find_account",
    "obstacle",
    "real_path",
    "seal_submounts",
    "view_host",
]
