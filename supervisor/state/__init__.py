"""What is on disk: records and their JSON, whole files, locks, names and paths.

Layers, each importing only from those above it::

    _scarcity     no space, no descriptor
    _text         text and JSON values that can be written and handed on
    _ids          ids of containers and processes
    _fields       the checks of a record's fields
    _models       ContainerRecord, ProcessRecord, Result
    _owner        whose a directory or file is
    _weak         sets of what others keep
    _descriptors  descriptors that forked children close, and their numbers
    _files        files written whole or not at all
    _codec        dump, load
    _marks        exitStatus, copied, refused, pid, starttime, shim
    _lock         Lock, held
    _claims       which ids of the host are taken
    _layout       names and paths below a root
    _procfs       boot id, start times, parents, arguments

The disk is the truth: nothing here keeps anything in memory that the next process couldn't
read again.
"""

from ._claims import LINK, Block, Claim, Ranges, give_back, note, take
from ._codec import dump, load, loads
from ._descriptors import Blank, Descriptor, close_in_children, lifted, lifted_pipe
from ._files import Original, kind_of, make_fifo, oddity, write_new, write_whole
from ._ids import RESERVED, check_exec_id, check_id
from ._layout import ContainerLayout, ProcessLayout, RootLayout, is_process_id
from ._lock import Lock, held
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
    VERSION,
    ContainerRecord,
    Intent,
    ProcessRecord,
    Result,
    ShimLost,
    known_keys,
    process_object,
)
from ._owner import distrust, distrust_directory, distrust_way
from ._procfs import HIDDEN, Stat, boot_id, is_argument, is_child, look_at, start_time
from ._scarcity import lenient, scarce
from ._text import (
    check_flag,
    check_int,
    check_kind,
    check_path,
    check_seconds,
    check_text,
    spoilt,
)
from ._weak import WeakSet

__all__ = [
    "HIDDEN",
    "LINK",
    "MAX_NS",
    "RESERVED",
    "VERSION",
    "Asked",
    "Blank",
    "Block",
    "Claim",
    "ContainerLayout",
    "ContainerRecord",
    "Copied",
    "Descriptor",
    "Intent",
    "Lock",
    "Original",
    "ProcessLayout",
    "ProcessRecord",
    "Ranges",
    "Result",
    "RootLayout",
    "ShimLost",
    "Stat",
    "WeakSet",
    "boot_id",
    "check_exec_id",
    "check_flag",
    "check_id",
    "check_int",
    "check_kind",
    "check_path",
    "check_seconds",
    "check_text",
    "close_in_children",
    "distrust",
    "distrust_directory",
    "distrust_way",
    "dump",
    "give_back",
    "held",
    "is_argument",
    "is_child",
    "is_process_id",
    "kind_of",
    "known_keys",
    "lenient",
    "lifted",
    "lifted_pipe",
    "load",
    "loads",
    "look_at",
    "make_fifo",
    "note",
    "oddity",
    "process_object",
    "read_asked",
    "read_copied",
    "read_exit_status",
    "read_pid",
    "read_refused",
    "read_shim",
    "read_starttime",
    "scarce",
    "spoilt",
    "start_time",
    "take",
    "write_asked",
    "write_new",
    "write_whole",
]
