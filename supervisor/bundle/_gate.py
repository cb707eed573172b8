"""The gate of a pooled container: our first program there, which later runs the taker's program.

The message to the gate is in docs/shim-protocol.md; the program is ``supervisor/native/gate.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ..spec import Mount, static_path
from ..values import InvalidValue, check_int
from ._arguments import check_absolute

GATE_DESTINATION = "/dev/gate"
"""The gate's path in the container: in the tmpfs on /dev, like the init's."""

DEFAULT_MODE = 0o644
MAX_TEXT_BYTES = 8 << 20
MAX_PATH_BYTES = 4095

_MAGIC = b"TSG2"
_HEAD = struct.Struct(">4sIIIII")
_FILE = struct.Struct(">IIQ")

Content = bytes | bytearray | memoryview
FileContent = Content | tuple[Content, int]
"""A file's content; or the content and the mode, if the mode isn't 0644."""


@attrs.frozen
class Gate:
    """The gate that runs in a container before the program.

    Attributes:
        path: the gate's program on the host.
        report_fd: the writing end of the pipe for the gate's report.
    """

    path: str
    report_fd: int


def gate_path() -> str:
    """Return the absolute path of ``supervisor-gate``.

    Raises:
        ShimNotFound: the program is missing, isn't executable, or isn't static.
    """
    return static_path("supervisor-gate")


def with_gate(spec: Mapping[str, Any], gate: Gate) -> dict[str, Any]:
    """Return the spec with the gate in place of the program; all else is shared."""
    mount = Mount(gate.path, GATE_DESTINATION).to_json()
    return {
        **spec,
        "process": {**spec["process"], "args": [GATE_DESTINATION]},
        "mounts": [*spec.get("mounts", ()), mount],
    }


def frame(
    *,
    args: Sequence[str],
    env: Mapping[str, str],
    cwd: str | None,
    files: Mapping[str, FileContent] | None,
    hand_on: bool = False,
) -> bytes:
    """Return the message to a gate.

    Args:
        args: the program and the program's arguments.
        env: variables, added to the gate's or in their place.
        cwd: the working directory; None for the gate's.
        files: the files to write, by absolute path.
        hand_on: whether the program is our init, which continues the gate's report.

    Raises:
        InvalidValue: an argument can't work.
    """
    words = [cwd or "", *args, *(f"{name}={value}" for name, value in env.items())]
    text = b"".join(word.encode() + b"\0" for word in words)
    if len(text) > MAX_TEXT_BYTES:
        raise InvalidValue("args and env are too long: the kernel takes 6 MB of both together")
    written = _files(files)
    counts = len(args), len(env), len(written) // 2
    head = _HEAD.pack(_MAGIC, *counts, len(text), hand_on)
    return b"".join([head, text, *written])


def _files(files: Mapping[str, FileContent] | None) -> list[bytes]:
    """Return the header and the content of each file."""
    if files is None:
        return []
    if not isinstance(files, Mapping):
        raise InvalidValue(f"files must be a mapping of paths, not {type(files).__name__}")
    parts: list[bytes] = []
    for path, value in files.items():
        raw = check_absolute(path, "a path in files").encode()
        if len(raw) > MAX_PATH_BYTES:
            raise InvalidValue(f"files: a path is longer than {MAX_PATH_BYTES} bytes")
        content, mode = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
        if not isinstance(content, bytes | bytearray | memoryview):
            raise InvalidValue(f"files[{path!r}] must be bytes, or bytes and a mode")
        mode = DEFAULT_MODE if mode is None else check_int(mode, "a mode", least=0, most=0o7777)
        whole = bytes(content)
        parts += [_FILE.pack(len(raw), mode, len(whole)) + raw, whole]
    return parts
