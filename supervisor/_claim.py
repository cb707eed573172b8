"""Whether what a runtime knows under an id is ours: several supervisors may share its ``--root``.

In the ``.runtime`` below our own root it is: nobody else makes containers there. In a directory
that the user has named (``Runtime(root=...)``) the same id may be another supervisor's, podman's or
somebody's by hand. What is ours there names our own bundle, which nobody else's does.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from typing import Final

from ._errors import ContainerExists
from ._host import Host
from .oci import Caller, ask_bundle
from .state import ContainerLayout, ContainerRecord, Lock, RootLayout

logger: Final = logging.getLogger("supervisor")

# Where runtimes keep what they know of a container, below DIRECTORY/ID: runc and youki; crun; and
# crun's copy of the spec, which is there before the rest.
_STATE_FILES: Final = ("state.json", "status", "config.json")


def is_shared(record: ContainerRecord) -> bool:
    """Whether others may have containers in its runtime's ``--root``."""
    own = RootLayout(record.root).runtime_root
    if record.runtime_root == own:
        return False
    return os.path.realpath(record.runtime_root) != os.path.realpath(own)


def require_free(record: ContainerRecord) -> None:
    """Refuse an id that the runtime knows already: before anything is made.

    Raises:
        ContainerExists: it does.
    """
    path = _place(record)
    if is_shared(record) and os.path.lexists(path):
        raise ContainerExists(
            f"the runtime's root {record.runtime_root} has a container of that id, which isn't "
            f"ours: choose another id, or remove that one ({path})",
            container=record.id,
        )


async def is_ours(host: Host, layout: ContainerLayout, record: ContainerRecord, lock: Lock) -> bool:
    """Whether the runtime may be told to delete what it knows under the container's id.

    Raises: as `ask_bundle`.
    """
    if not is_shared(record):
        return True
    if not os.path.lexists(_place(record)):
        return False
    told = await ask_bundle(
        Caller(runtime=record.runtime, root=record.runtime_root, args=record.runtime_args),
        record.id,
        seconds=host.deadlines.call,
        inherit=[lock.fd],
        tether=host.tether if record.leash else None,
    )
    if told is not None:
        return os.path.realpath(told) == os.path.realpath(layout.bundle)
    if _is_mentioned(record, layout):  # a create that was cut short has left it
        return True
    logger.warning(
        "container %s: %s may be somebody else's, who shares the runtime's root: it is left there",
        record.id,
        _place(record),
    )
    return False


def proof(record: ContainerRecord) -> Sequence[str]:
    """Return by what a keeper knows ours: a directory, and what a file in it must have in it."""
    return [_place(record), _words(RootLayout(record.root).container(record.id))]


def _place(record: ContainerRecord) -> str:
    return os.path.join(record.runtime_root, record.id)


def _words(layout: ContainerLayout) -> str:
    """Return how the path of our bundle, or of what is in it, begins in JSON."""
    return layout.bundle


def _is_mentioned(record: ContainerRecord, layout: ContainerLayout) -> bool:
    words = os.fsencode(_words(layout))
    for name in _STATE_FILES:
        with contextlib.suppress(OSError), open(os.path.join(_place(record), name), "rb") as file:
            content = file.read()
            if any(words + end in content for end in (b'"', b"/")):
                return True
    return False
