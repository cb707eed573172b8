"""The Python side of the shim's protocol (docs/shim-protocol.md): launch, report, control, exit."""

from ._fifos import (
    CLOSE_STDERR,
    CLOSE_STDIN,
    CLOSE_STDOUT,
    RELEASE,
    TOLD,
    Control,
    ExitFifo,
    make_fifos,
    resize_line,
    send_line,
    signal_line,
)
from ._launch import (
    KeeperFds,
    Leash,
    Shim,
    launch,
    launch_keeper,
    read_report,
)
from ._report import (
    Made,
    Refused,
)

__all__ = [
    "CLOSE_STDERR",
    "CLOSE_STDIN",
    "CLOSE_STDOUT",
    "RELEASE",
    "TOLD",
    "Control",
    "ExitFifo",
    "KeeperFds",
    "Leash",
    "Made",
    "Refused",
    "Shim",
    "launch",
    "launch_keeper",
    "make_fifos",
    "read_report",
    "resize_line",
    "send_line",
    "signal_line",
]
