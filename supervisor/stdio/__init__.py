"""Standard streams: what the caller asks for, the fifos, and Trio's streams over them."""

from ._plan import DEVNULL, PIPE, STDOUT, Stdio, StdioArgument, plan, prepare
from ._streams import InputStream, open_output

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "InputStream",
    "Stdio",
    "StdioArgument",
    "open_output",
    "plan",
    "prepare",
]
