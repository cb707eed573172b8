"""Standard streams, terminals and logs: the caller's arguments, and the Trio streams."""

from ._caller import (
    files_made,
    opened,
)
from ._console import (
    Console,
    attached_pair,
    console,
)
from ._kinds import (
    DEVNULL,
    LOG,
    PIPE,
    STDOUT,
    Fifo,
    LogFile,
    StdioArgument,
    TerminalArgument,
    TerminalSize,
)
from ._log_index import (
    LogIndex,
)
from ._logs import (
    Logs,
    Since,
    log_tail,
)
from ._null import (
    NullDevice,
)
from ._pipes import (
    Ends,
    InputStream,
    OutputStream,
)
from ._plan import (
    Stdio,
    check_outputs,
    plan,
    prepare,
    recorded,
)
from ._records import (
    LogRecord,
)
from ._streams import (
    Streams,
)
from ._terminal import (
    Terminal,
    TerminalStream,
)

__all__ = [
    "DEVNULL",
    "LOG",
    "PIPE",
    "STDOUT",
    "Console",
    "Ends",
    "Fifo",
    "InputStream",
    "LogFile",
    "LogIndex",
    "LogRecord",
    "Logs",
    "NullDevice",
    "OutputStream",
    "Since",
    "Stdio",
    "StdioArgument",
    "Streams",
    "Terminal",
    "TerminalArgument",
    "TerminalSize",
    "TerminalStream",
    "attached_pair",
    "check_outputs",
    "console",
    "files_made",
    "log_tail",
    "opened",
    "plan",
    "prepare",
    "recorded",
]
