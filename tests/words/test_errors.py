"""Errors: grouped by who is at fault, and whole sentences for people."""

from __future__ import annotations

import errno

import pytest

import supervisor
from supervisor import (
    ContainerNotFound,
    CreateTimeout,
    Deadlines,
    DiskFull,
    InfrastructureError,
    InvalidValue,
    ShimError,
    SupervisorError,
    TooManyFiles,
    TooManyProcesses,
    UsageError,
)
from supervisor._errors import scarcity

GROUPS = (
    UsageError,
    ShimError,
    supervisor.OCIRuntimeError,
    supervisor.StateCorrupt,
    InfrastructureError,
    supervisor.ProcessFailed,
    supervisor.OutputTooLarge,
    supervisor.GateFailed,
)


def test_one_group_each() -> None:
    """Every error has the one root, and is in exactly one group."""
    errors = [
        item
        for item in (getattr(supervisor, name) for name in supervisor.__all__)
        if isinstance(item, type) and issubclass(item, Exception)
    ]
    assert len(errors) > 20
    for error in errors:
        assert issubclass(error, SupervisorError) and error.__doc__
        if error is not SupervisorError:
            assert sum(issubclass(error, group) for group in GROUPS) == 1, error


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EMFILE, TooManyFiles),
        (errno.ENFILE, TooManyFiles),
    ],
)
def test_scarcity(number: int, kind: type[OSError]) -> None:
    """Want of space or descriptors is an InfrastructureError and the OSError that it was."""
    error = scarcity(OSError(number, "want", "/a/file"), container="web-1")
    assert isinstance(error, kind) and isinstance(error, InfrastructureError)
    assert (error.errno, error.filename, error.container) == (number, "/a/file", "web-1")
    assert "web-1" in str(error) and "want" in str(error)
    assert scarcity(error) is error


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_no_process(number: int) -> None:
    """That no process can be made is one too; the same numbers mean other things elsewhere."""
    error = OSError(number, "want")
    assert scarcity(error) is error
    made = scarcity(error, spawning=True)
    assert isinstance(made, TooManyProcesses) and isinstance(made, InfrastructureError)
    assert made.errno == number


def test_other_errors_pass() -> None:
    """Any other OSError is left as it is."""
    error = OSError(errno.EIO, "input/output error")
    assert scarcity(error) is error


def test_not_found_reads_well() -> None:
    """ContainerNotFound is a KeyError whose text isn't a repr."""
    error = ContainerNotFound("there is none under /r", container="a")
    assert isinstance(error, KeyError) and str(error) == "container 'a': there is none under /r"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "5"])
def test_deadlines_are_positive(seconds: object) -> None:
    """A deadline that can't be one is refused when it is made, by name."""
    with pytest.raises(InvalidValue, match="create"):
        Deadlines(create=seconds)  # type: ignore[arg-type]


def test_deadline_says_how_long() -> None:
    """An expired deadline carries its seconds."""
    assert CreateTimeout("no process", seconds=5).seconds == 5
