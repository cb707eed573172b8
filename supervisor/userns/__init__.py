"""User namespaces: ids, ranges of host ids, and which namespace a container gets."""

from ._choice import (
    AUTO,
    NONE,
    UserNamespaceArgument,
    blocks,
    check_user,
    check_userns,
    check_wish,
    choose,
    namespace_of,
    of_block,
    wish_of,
)
from ._ids import (
    IdMap,
    UserNamespace,
    container_root_ids,
    parse_id,
)
from ._rootless import (
    check_limits,
    user_namespace,
)

__all__ = [
    "AUTO",
    "NONE",
    "IdMap",
    "UserNamespace",
    "UserNamespaceArgument",
    "blocks",
    "check_limits",
    "check_user",
    "check_userns",
    "check_wish",
    "choose",
    "container_root_ids",
    "namespace_of",
    "of_block",
    "parse_id",
    "user_namespace",
    "wish_of",
]
