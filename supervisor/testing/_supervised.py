"""Hypothesis's examples: names of their own, and no counter-example that is the machine's fault."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar, cast

from hypothesis import note
from hypothesis.control import current_build_context, currently_in_test_context
from hypothesis.errors import FailedHealthCheck

from ..tasks import witness
from ..values import DeadlineExpired, InfrastructureError
from ._arguments import check_callable
from ._example import Example

WAITED: Final = "execute:supervisor"

Test = TypeVar("Test", bound=Callable[..., Any])
WhenBegun = Callable[[Example], None]


class InfrastructureFailed(FailedHealthCheck):
    """The machine couldn't run an example: what stops Hypothesis, and is no counter-example.

    It is raised from the `InfrastructureError` in question. Hypothesis neither shrinks it nor keeps
    it in its database.
    """


def supervised(test: Test, *, when_begun: WhenBegun | None = None) -> Test:
    """Decorate a test, below ``@given``, whose examples make containers.

    The pytest plugin does it to every Hypothesis test, state machines too; without the plugin
    it is done by hand. Each example then counts its containers' names from 1, leaves what
    they did in Hypothesis's notes if it fails, has the time of create and delete kept out of
    its deadline, and stops the test, unshrunk, if the machine is at fault.

    Args:
        test: the test: a function, sync or async.
        when_begun: called with each example.

    Raises:
        InfrastructureFailed: in place of an `InfrastructureError`, alone or in a group. A plain
            `DeadlineExpired` is the program's own, and a counter-example like any other.
    """
    check_callable(test, "test")
    if when_begun is not None:
        check_callable(when_begun, "when_begun")
    if inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def supervised_async(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            with _example(when_begun):
                return await test(*args, **kwargs)

        return cast(Test, supervised_async)

    @functools.wraps(test)
    def supervised_test(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with _example(when_begun):
            return test(*args, **kwargs)

    return cast(Test, supervised_test)


def infrastructure(error: BaseException) -> InfrastructureError | None:
    """Return the infrastructure error that an exception is, or holds, or None."""
    if isinstance(error, BaseExceptionGroup):
        found = (infrastructure(one) for one in error.exceptions)
        return next((one for one in found if one is not None), None)
    if isinstance(error, InfrastructureError) and type(error) is not DeadlineExpired:
        return error
    return None


@contextlib.contextmanager
def _example(when_begun: WhenBegun | None) -> Iterator[None]:
    __tracebackhide__ = True
    example = Example()
    if when_begun is not None:
        when_begun(example)
    token = witness.set(example)
    try:
        yield
    except BaseException as error:
        example.failed = True
        found = infrastructure(error)
        if found is not None:
            raise InfrastructureFailed(
                f"{type(found).__name__}: {found}. This is the machine's, not a counter-example"
            ) from error
        _note(example)
        raise
    finally:
        witness.reset(token)
        _keep_out_of_deadline(example.waited_seconds)


def _note(example: Example) -> None:
    """Let the failing example that Hypothesis reports in the end say what its containers did."""
    if currently_in_test_context():
        for title, text in example.told():
            note(f"{title}\n{text}")


def _keep_out_of_deadline(seconds: float) -> None:
    """Count a time among those which Hypothesis takes from an example's own.

    It has no public way to say so. A state machine's rules are timed in this table, which is taken
    from the example's time, and isn't held against the strategies as slow drawing.
    """
    if currently_in_test_context():
        current_build_context().data._stateful_run_times[WAITED] += seconds
