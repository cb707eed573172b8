"""`LogRecord`: a record of a log, and how to parse the CRI format.

Source: kubernetes/design-proposals-archive, kubelet-cri-logging.md.
"""

from __future__ import annotations

import calendar
import re
import time
from datetime import datetime

import attrs

from ..values import moment

_LINE = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z (stdout|stderr) ([PF])(?::\S*)? (.*)",
    re.DOTALL,
)


@attrs.frozen
class LogRecord:
    """One record of a log: a line, or a part of one.

    Attributes:
        at_ns: when the record was written, CLOCK_REALTIME in nanoseconds.
        stream: ``"stdout"`` or ``"stderr"``.
        partial: whether the line goes on in the stream's next record, or was never ended.
        data: what the program wrote, without a newline.
        cursor: the record's position in the log, for ``after`` of `Process.logs`: text without
            spaces. A cursor stays valid after rotations, and for later supervisors.
    """

    at_ns: int
    stream: str
    partial: bool
    data: bytes
    cursor: str = ""

    @property
    def at(self) -> datetime:
        """When the record was written, in UTC, to the microsecond; ``at_ns`` has the rest."""
        return moment(self.at_ns)

    @property
    def written(self) -> bytes:
        """The bytes exactly as the program wrote them: with the newline, unless partial."""
        return self.data if self.partial else self.data + b"\n"


def parse_record(line: bytes, cursor: str = "") -> LogRecord | None:
    """Return the record in a line of a log, or None for any other line.

    Args:
        line: the line without the newline.
        cursor: the record's cursor.
    """
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    stamp, fraction, stream, tag, data = found.groups()
    try:
        seconds = calendar.timegm(time.strptime(stamp.decode(), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
    at_ns = seconds * 1_000_000_000 + int((fraction or b"0").ljust(9, b"0"))
    return LogRecord(at_ns, stream.decode(), tag == b"P", data, cursor)
