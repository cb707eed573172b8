"""Checkpoints: write a running container to disk, and the options that make one from it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import attrs

from ..bundle import read_config
from ..runtime import checkpoint_options, criu_said
from ..spec import wants_layer
from ..tasks import within
from ..userns import wish_of
from ..values import Event, InvalidValue, RuntimeFailed, check_flag, check_text, misplaced
from ._core import Core

_MODE = 0o700


def _flag(_: object, attribute: attrs.Attribute[bool], value: bool) -> None:
    check_flag(value, attribute.name)


def _words(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
        raise InvalidValue(f"empty_namespaces must be names, not {type(names).__name__}")
    return tuple(check_text(name, "a name in empty_namespaces") for name in names)


@attrs.frozen(kw_only=True)
class CheckpointOptions:
    """The options for CRIU, at the checkpoint or the restore of a container.

    The same ones are needed for both. Source: man runc-checkpoint, runc-restore.

    Attributes:
        tcp_established: allow open TCP connections.
        external_unix_sockets: allow unix sockets whose other end is outside.
        shell_job: allow a process whose session leader is outside.
        file_locks: keep file locks.
        empty_namespaces: namespaces that are made, but not restored (``"network"``).
    """

    tcp_established: bool = attrs.field(default=False, validator=_flag)
    external_unix_sockets: bool = attrs.field(default=False, validator=_flag)
    shell_job: bool = attrs.field(default=False, validator=_flag)
    file_locks: bool = attrs.field(default=False, validator=_flag)
    empty_namespaces: tuple[str, ...] = attrs.field(default=(), converter=_words)

    def _words(self, *, leave_running: bool = False) -> list[str]:
        """Return the runtime's options."""
        return checkpoint_options(leave_running=leave_running, **attrs.asdict(self))


async def checkpoint(
    core: Core, path: str, options: CheckpointOptions, *, leave_running: bool
) -> None:
    """Write a checkpoint; see `Container.checkpoint`."""
    core.require_own("checkpoint")
    core.check(Event.CHECKPOINT)
    spec = read_config(core.layout.bundle)
    if wish_of(spec) is not None:
        raise InvalidValue(
            'a checkpoint can\'t be restored with other ids: use userns="none" for what is to be '
            "checkpointed",
            container=core.record.id,
        )
    if wants_layer(spec):
        raise InvalidValue(
            'a checkpoint doesn\'t hold the layer of a bundle with writable="overlay": use '
            '"direct" for what is to be checkpointed',
            container=core.record.id,
        )
    image = _directory(path)
    with core.operating():
        try:
            await core.runtime.checkpoint(
                image=image,
                work=image,
                options=options._words(leave_running=leave_running),
                log=core.layout.init.log("checkpoint"),
            )
        except RuntimeFailed as error:
            raise with_criu(error, image) from error
        if not leave_running:
            with within(core.shared.deadlines.kill):
                await core.init.wait()


def with_criu(error: RuntimeFailed, work: str) -> RuntimeFailed:
    """Return the runtime's error with CRIU's own last words added."""
    said = criu_said(work)
    if not said:
        return error
    return RuntimeFailed(
        f"{error.message}; CRIU said: {said}",
        command=error.command,
        returncode=error.returncode,
        reason=f"{error.reason}; CRIU said: {said}",
        container=error.container,
    )


def _directory(path: str) -> str:
    """Return the directory that an image is written to, made if missing."""
    image = os.path.abspath(path)
    try:
        if not os.path.isdir(image):
            os.makedirs(image, mode=_MODE, exist_ok=True)
            os.chmod(image, _MODE)  # a umask may take even our own bits
        elif os.listdir(image):
            raise InvalidValue(f"the checkpoint's directory {image} is not empty")
    except OSError as error:
        raise misplaced(error, "path: a checkpoint can't be written there") from error
    return os.path.realpath(image)
