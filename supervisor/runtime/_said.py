"""The reason of a runtime's failure, for people: from the log, or from the output.

No decision depends on this text. Source: runc's and crun's ``--log-format json``; logrus, for
text logs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Final

_LAST_ERRORS: Final = 3
_TAIL_BYTES: Final = 64 * 1024
_PART_BYTES: Final = 64 * 1024
_LINE_LENGTH: Final = 1000
_FATAL: Final = ("fatal", "panic")
_WORSE: Final = ("error", *_FATAL)
_PRINTED: Final = "printed"
_MAX_FAILURES: Final = 8  # of decoding; a log with a thousand braces mustn't keep us busy
_DECODER: Final = json.JSONDecoder()

# A logrus line that a runtime prints before the runtime knows the log file; msg may be quoted.
_TEXT: Final = re.compile(
    r'time="[^"]*" level=(?P<level>[a-z]+) msg=(?P<msg>"(?:[^"\\]|\\.)*"|\S*)'
)


def reason_in(log: str | None) -> str:
    """Return the reason of a failure from a runtime's JSON log; see `reason_at`.

    Returns:
        "" if there is no such file, or the file is empty.
    """
    if log is None:
        return ""
    try:
        with open(log, "rb", buffering=0) as file:
            return reason_at(file.fileno())
    except OSError:
        return ""


def criu_said(work: str) -> str:
    """Return the last errors in the logs that CRIU left in its work directory, or ""."""
    errors: list[str] = []
    for name in ("dump.log", "restore.log"):
        try:
            with open(os.path.join(work, name), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                lines = file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
            errors += [line.strip() for line in lines if "Error" in line]
        except OSError:
            continue
    return "; ".join(errors[-_LAST_ERRORS:])


def reason_at(fd: int) -> str:
    """Return the reason of a failure from a file; see `reason_of`.

    Only the beginning and the end of a long file are read.
    """
    text = os.pread(fd, _PART_BYTES, 0)
    rest = os.fstat(fd).st_size - len(text)
    if rest > 0:
        size = min(rest, _PART_BYTES)
        text += os.pread(fd, size, len(text) + rest - size)
    return reason_of(text)


def reason_of(text: bytes) -> str:
    """Return the reason of a failure from a runtime's log or output.

    The reason is the first message of level fatal: later messages are often only consequences.
    Without one, the reason is the last error, with which a runtime ends. Without an error, the
    reason is the first and the last printed line that is no log message: so runtimes report
    failures before there is a log, and so does another program in the runtime's place.
    """
    entries = [
        entry for piece in pieces_of(text.decode(errors="replace")) for entry in _entry(piece)
    ]
    fatal = next((said for level, said in entries if level in _FATAL), None)
    if fatal is not None:
        return fatal
    error = next((said for level, said in reversed(entries) if level in _WORSE), None)
    if error is not None:
        return error
    return _ends(said for level, said in entries if level == _PRINTED)


def pieces_of(text: str) -> Iterator[str]:
    """Yield the lines of a log; an object that crun writes over several lines is one piece."""
    at = failures = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        if text[at:end].strip() == "{" and failures < _MAX_FAILURES:
            try:
                _, end = _DECODER.raw_decode(text, text.index("{", at))
            except (ValueError, RecursionError):
                failures += 1
        yield text[at:end]
        at = end + 1 if text.startswith("\n", end) else end


def _entry(line: str) -> Iterator[tuple[str, str]]:
    """Yield the level and the message of a line, if the line has any."""
    line = line.strip()
    told = _object(line)
    text = _TEXT.fullmatch(line)
    if told is not None:
        yield str(told.get("level")), _inner(str(told.get("msg", "")).strip())
    elif text is not None:
        yield text["level"], _unquoted(text["msg"])
    elif line and not _is_json(line):
        yield _PRINTED, line


def _inner(message: str) -> str:
    """Return the message of a container's init, which crun logs as JSON inside of JSON."""
    told = _object(message)
    return message if told is None or "msg" not in told else str(told["msg"]).strip()


def _object(text: str) -> dict[str, object] | None:
    if not text.startswith("{"):
        return None
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _ends(lines: Iterable[str]) -> str:
    """Return the first and the last line, cut; in a trace, one of the two gives the reason."""
    cut = [line[:_LINE_LENGTH] for line in lines]
    if len(cut) <= 2:
        return "; ".join(cut)
    return f"{cut[0]} [...] {cut[-1]}"
