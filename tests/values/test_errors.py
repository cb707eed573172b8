"""Errors: grouped by the party at fault, and whole sentences for people."""

from __future__ import annotations

import copy
import errno
import pickle
import re
from pathlib import Path

import pytest

import supervisor
from supervisor import (
    ContainerNotFound,
    CreateTimeout,
    Deadlines,
    DiskFull,
    InfrastructureError,
    InvalidValue,
    OutputTooLarge,
    ShimError,
    Source,
    SupervisorError,
    TooManyFiles,
    TooManyProcesses,
    UsageError,
)
from supervisor.values import raise_if_scarce

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
    """Lack of space or descriptors is an InfrastructureError and still the OSError."""
    cause = OSError(number, "want", "/a/file")
    with pytest.raises(InfrastructureError) as caught:
        raise_if_scarce(cause, container="web-1")
    error = caught.value
    assert isinstance(error, kind) and isinstance(error, OSError)
    assert (error.errno, error.filename, error.container) == (number, "/a/file", "web-1")
    assert "web-1" in str(error) and "want" in str(error)
    assert error.__cause__ is cause
    with pytest.raises(kind) as again:
        raise_if_scarce(error, container="another")
    assert again.value is error


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_no_process(number: int) -> None:
    """A lack of processes is an InfrastructureError too; the same numbers mean other things
    elsewhere."""
    error = OSError(number, "want")
    raise_if_scarce(error)
    with pytest.raises(TooManyProcesses) as caught:
        raise_if_scarce(error, spawning=True)
    assert isinstance(caught.value, InfrastructureError)
    assert caught.value.errno == number


def test_other_errors_pass() -> None:
    """Any other OSError is left to the caller."""
    raise_if_scarce(OSError(errno.EIO, "input/output error"))


def test_one_place_for_scarcity() -> None:
    """No other module tells want of space, descriptors or processes by the error's number."""
    numbers = re.compile(r"errno\.(ENOSPC|EDQUOT|EMFILE|ENFILE|EAGAIN)")
    found = {
        path.name
        for path in Path(supervisor.__file__).parent.rglob("*.py")
        if "testing" not in path.parts and numbers.search(path.read_text())
    }
    # In a launch, the kernel's ENOSPC for a user namespace means too many of those.
    assert found == {"_machine_errors.py", "_launch.py"}


def test_not_found_reads_well() -> None:
    """ContainerNotFound is a KeyError whose text isn't a repr."""
    error = ContainerNotFound("there is none under /r", container="a")
    assert isinstance(error, KeyError) and str(error) == "container 'a': there is none under /r"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "5"])
def test_deadlines_are_positive(seconds: object) -> None:
    """A deadline that isn't positive is refused by name when the `Deadlines` is made."""
    with pytest.raises(InvalidValue, match="create"):
        Deadlines(create=seconds)  # type: ignore[arg-type]


def test_deadline_says_how_long() -> None:
    """An expired deadline carries the seconds."""
    assert CreateTimeout("no process", seconds=5).seconds == 5


def every_kind() -> list[SupervisorError]:
    """Return an error of each kind, with all possible attributes."""
    status = supervisor.ExitStatus(cause=supervisor.Cause.EXITED, source=Source.SHIM, code=3)
    said = {"stdout": b"out", "stderr": None}
    special: dict[str, SupervisorError] = {
        "BundleInvalid": supervisor.BundleInvalid("wrong", path="/b", where="root.path"),
        "GateFailed": supervisor.GateFailed("no", what="cwd", errno=2, name="/x", container="a"),
        "ProgramNotFound": supervisor.ProgramNotFound("no", what="cwd", errno=2, name="/x"),
        "ProgramNotExecutable": supervisor.ProgramNotExecutable(
            "no", what="program", errno=8, name="x", container="a"
        ),
        "IllegalTransition": supervisor.IllegalTransition("no", state="a", event="b"),
        "NotFifo": supervisor.NotFifo("no", path="/f"),
        "OutputTooLarge": OutputTooLarge(
            "more", stream="stdout", limit=3, container="a", stdout=b"out", stderr=None
        ),
        "ProcessFailed": supervisor.ProcessFailed("no", command=["a"], status=status, **said),
        "RuntimeFailed": supervisor.RuntimeFailed("no", command=["a"], returncode=1, reason="x"),
        "RuntimeNotFound": supervisor.RuntimeNotFound("no", name="runc"),
        "ShimNotFound": supervisor.ShimNotFound("no", path="/s"),
        "StreamFailed": supervisor.StreamFailed(
            "no", stream="stdin", errno=errno.EIO, status=status, container="a", **said
        ),
        "StreamFull": supervisor.StreamFull(
            "no", stream="stdout", errno=errno.ENOSPC, status=status, container="a", **said
        ),
        "StateCorrupt": supervisor.StateCorrupt("/p", "why"),
    }
    kinds = [getattr(supervisor, name) for name in supervisor.__all__]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, SupervisorError):
            if issubclass(kind, supervisor.DeadlineExpired):
                special[kind.__name__] = kind("late", seconds=5, container="a", stdout=b"x")
            elif kind.__name__ not in special:
                special[kind.__name__] = kind("why", container="a")
    with pytest.raises(DiskFull) as full:
        raise_if_scarce(OSError(errno.ENOSPC, "no space", "/a/file"), container="web")
    return [*special.values(), full.value]


@pytest.mark.parametrize("error", every_kind(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", ["copy", "deepcopy", "pickle"])
def test_copies(error: SupervisorError, way: str) -> None:
    """An error can go to another process, and be copied, with all attributes.

    Unpickling once failed for an error that needs more than a message.
    """
    error.add_note("a note")
    error.__cause__ = InvalidValue("why", container="b")
    ways = {"copy": copy.copy, "deepcopy": copy.deepcopy}
    made: SupervisorError = ways.get(way, lambda it: pickle.loads(pickle.dumps(it)))(error)
    assert made is not error and type(made) is type(error)
    assert (str(made), repr(made), made.args) == (str(error), repr(error), error.args)
    assert made.__dict__ == error.__dict__
    assert isinstance(made.__cause__, InvalidValue) and str(made.__cause__) == str(error.__cause__)
    if isinstance(error, OSError) and isinstance(made, OSError):
        told = (made.errno, made.strerror, made.filename)
        assert told == (error.errno, error.strerror, error.filename)


def test_how_they_print() -> None:
    """A traceback has an error's public name; once the private module was there, too."""
    for error in every_kind():
        assert type(error).__module__ == "supervisor"
        assert getattr(supervisor, type(error).__qualname__) is type(error)


def test_no_group_is_broken_by_it() -> None:
    """A cause that can't be pickled is left out, because a process pool would break."""
    error = InvalidValue("no")
    error.__cause__ = RuntimeError(lambda: None)
    assert pickle.loads(pickle.dumps(error)).__cause__ is None


VALUES = [
    supervisor.ExitStatus(cause=supervisor.Cause.EXITED, source=Source.SHIM, code=3, at_ns=5),
    supervisor.Completed(
        args=("a",),
        status=supervisor.ExitStatus(cause=supervisor.Cause.EXITED, source=Source.SHIM, code=0),
        stdout=b"x",
        stderr=None,
        held=(supervisor.Holder("stdout", 1, "sleep"),),
    ),
    supervisor.State.RUNNING,
    Deadlines(create=5),
    supervisor.Backoff(first=1),
    supervisor.Mount("/usr", "/x"),
    supervisor.UserNamespace(
        uids=[supervisor.IdMap(0, 1000, 1)], gids=[supervisor.IdMap(0, 1000, 1)]
    ),
    supervisor.Runtime(path="/bin/true", args=("a",)),
    supervisor.LOG,
    supervisor.Fifo("/x"),
    supervisor.TerminalSize(),
    supervisor.CheckpointOptions(file_locks=True),
    supervisor.Broken(id="a", path="/a", reason="x"),
    supervisor.Change(5, "create", supervisor.State.CREATING),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_travel(value: object) -> None:
    """Values that callers give or get can be copied and pickled too."""
    for made in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert made == value and type(made) is type(value)
