"""`Tail`: find the last lines of a log by a first reading, and show them in a second.

A line may be as long as the log, so no line is held in memory between the readings.
"""

from __future__ import annotations

from collections import deque

import attrs

from ._log_files import LogFiles
from ._log_index import Cursor
from ._records import LogRecord


@attrs.frozen
class _Begin:
    """Where a line begins: the number of records before that, and the last one's cursor."""

    number: int = 0
    cursor: str = ""


class Tail:
    """The choice of the records that belong to the last lines, or come later.

    A line consists of the records of one stream, up to the record that ends the line. A line
    that hasn't ended yet counts, too. The lines are in the order of their last records.

    Args:
        count: how many lines.
        after: the cursor after which the first reading begins, or None.
    """

    def __init__(self, count: int, after: str | None) -> None:
        self._count = count
        self._here = _Begin(cursor=after or "")
        self._ended: deque[tuple[str, _Begin]] = deque(maxlen=count)
        self._unended: dict[str, _Begin] = {}
        self._hidden: dict[str, str] = {}  # by stream: the record after which records are shown
        self._gaps = 0

    def note(self, record: LogRecord, *, wanted: bool) -> None:
        """Note a record of the first reading."""
        if wanted:
            begin = self._unended.pop(record.stream, self._here)
            if record.partial:
                self._unended[record.stream] = begin
            else:
                self._ended.append((record.stream, begin))
        self._here = _Begin(self._here.number + 1, record.cursor)

    def turn(self, files: LogFiles) -> None:
        """Go back to where the last lines begin, for the second reading."""
        lines = [*self._ended, *self._unended.items()]
        begins: dict[str, _Begin] = {}
        for stream, begin in lines[len(lines) - min(self._count, len(lines)) :]:
            begins.setdefault(stream, begin)
        first = min(begins.values(), key=lambda begin: begin.number, default=self._here)
        shown = {stream for stream, begin in begins.items() if begin == first}
        self._hidden = {
            stream: begins.get(stream, self._here).cursor
            for stream in {"stdout", "stderr"} - shown
            if first != self._here
        }
        files.seek(Cursor.parse(first.cursor) if first.cursor else None)
        self._gaps = files.gaps

    def shows(self, record: LogRecord, files: LogFiles) -> bool:
        """Whether a record of the second reading belongs to these lines, or comes later."""
        if files.gaps != self._gaps:  # the record at a line's beginning may be lost
            self._hidden.clear()
        shown = record.stream not in self._hidden
        for stream, cursor in tuple(self._hidden.items()):
            if cursor == record.cursor:
                del self._hidden[stream]
        return shown
