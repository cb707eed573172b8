"""Standard streams: what the caller asks for, and the Trio side of it.

::

    _kinds       what a stream may be: LogFile, Fifo, TerminalSize, ...
    _null        the null device that containers get
    _plan        from the caller's words to the shim's options
    _theirs      what is the caller's: opened, and handed to the shim
    _ends        our end of a fifo, and how it is given up
    _streams     fifos as Trio streams
    _console     the socket over which a runtime sends a terminal
    _terminal    attaching to a terminal
    _records     the records of a log
    _log_index   where they stand in the whole of it
    _log_files   its files, in order, across rotation
"""

from ._console import Console, attached_pair, console
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
    terminal_size,
)
from ._log_files import LogFiles
from ._log_index import Cursor, LogIndex, open_own
from ._null import NullDevice
from ._plan import Stdio, check_outputs, plan, prepare
from ._records import LogRecord, parse_record
from ._streams import Ends, InputStream, OutputStream, Streams
from ._terminal import Terminal, TerminalStream
from ._theirs import files_made, opened

__all__ = [
    "DEVNULL",
    "LOG",
    "PIPE",
    "STDOUT",
    "Console",
    "Cursor",
    "Ends",
    "Fifo",
    "InputStream",
    "LogFile",
    "LogFiles",
    "LogIndex",
    "LogRecord",
    "NullDevice",
    "OutputStream",
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
    "open_own",
    "opened",
    "parse_record",
    "plan",
    "prepare",
    "terminal_size",
]
