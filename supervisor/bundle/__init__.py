"""Bundles: directories with a config.json and a root filesystem, loaded or made."""

from ._arguments import (
    DEFAULT_PATH,
    check_absolute,
    check_args,
    check_env,
)
from ._bundle import (
    Bundle,
    content_of,
)
from ._content import (
    Content,
)
from ._gate import (
    GATE_DESTINATION,
    FileContent,
    Gate,
    frame,
    gate_path,
    with_gate,
)
from ._load import (
    read_config,
)
from ._process_object import (
    exec_process,
    init_process,
)

__all__ = [
    "DEFAULT_PATH",
    "GATE_DESTINATION",
    "Bundle",
    "Content",
    "FileContent",
    "Gate",
    "check_absolute",
    "check_args",
    "check_env",
    "content_of",
    "exec_process",
    "frame",
    "gate_path",
    "init_process",
    "read_config",
    "with_gate",
]
