"""The shim: our C program beside every process, and the Python side of its protocol.

::

    *.c                      the programs: shim (and its parts), keeper, tether, init, gate
    _binary                  where they are
    _report                  what the shim says, once
    _fifos                   exit and control
    _launch                  launch, adopt, wait
"""

from ._binary import check_program, find_binary
from ._fifos import (
    CLOSE_STDIN,
    RELEASE,
    TOLD,
    Control,
    ExitFifo,
    close_output_line,
    make_fifos,
    resize_line,
    send_line,
    signal_line,
)
from ._launch import KeeperFds, Leash, Shim, apart, launch, launch_keeper, read_report
from ._report import Made, Refused, parse_report

__all__ = [
    "CLOSE_STDIN",
    "RELEASE",
    "TOLD",
    "Control",
    "ExitFifo",
    "KeeperFds",
    "Leash",
    "Made",
    "Refused",
    "Shim",
    "apart",
    "check_program",
    "close_output_line",
    "find_binary",
    "launch",
    "launch_keeper",
    "make_fifos",
    "parse_report",
    "read_report",
    "resize_line",
    "send_line",
    "signal_line",
]
