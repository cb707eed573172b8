"""Linux: system calls, descriptors, files, locks, /proc. Nothing here knows Trio or containers."""

from ._descriptors import (
    Blank,
    Descriptor,
    close_in_children,
    lifted,
    lifted_pipe,
)
from ._files import (
    MAX_BYTES,
    PASSABLE,
    Original,
    kind_of,
    make_fifo,
    read_bytes,
    read_found,
    read_own,
    write_new,
    write_whole,
)
from ._lock import (
    Lock,
    held,
)
from ._mountinfo import (
    unescaped,
)
from ._owner import (
    distrust,
    distrust_directory,
    distrust_way,
)
from ._pid1 import (
    Identity,
    is_copy,
    is_pid_1,
    program_of,
    would_act_on,
)
from ._procfs import (
    HIDDEN,
    boot_id,
    is_argument,
    is_child,
    look_at,
    start_time,
)
from ._real_time import (
    RealTime,
    real_time,
)
from ._reserve import (
    Reserve,
)
from ._scarcity import (
    require_descriptor,
)
from ._syscall import (
    MOUNT_SETATTR,
    OPEN_TREE,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    detach_mount,
    is_subreaper,
    openat2,
    syscall,
)
from ._weak import (
    WeakSet,
)

__all__ = [
    "HIDDEN",
    "MAX_BYTES",
    "MOUNT_SETATTR",
    "OPEN_TREE",
    "PASSABLE",
    "RESOLVE_BENEATH",
    "RESOLVE_IN_ROOT",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_SYMLINKS",
    "RESOLVE_NO_XDEV",
    "Blank",
    "Descriptor",
    "Identity",
    "Lock",
    "Original",
    "RealTime",
    "Reserve",
    "WeakSet",
    "boot_id",
    "close_in_children",
    "detach_mount",
    "distrust",
    "distrust_directory",
    "distrust_way",
    "held",
    "is_argument",
    "is_child",
    "is_copy",
    "is_pid_1",
    "is_subreaper",
    "kind_of",
    "lifted",
    "lifted_pipe",
    "look_at",
    "make_fifo",
    "openat2",
    "program_of",
    "read_bytes",
    "read_found",
    "read_own",
    "real_time",
    "require_descriptor",
    "start_time",
    "syscall",
    "unescaped",
    "would_act_on",
    "write_new",
    "write_whole",
]
