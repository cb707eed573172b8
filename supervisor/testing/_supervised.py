"""Hypothesis's examples: own names, time and reports; the machine's faults aren't counted."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar, cast

from hypothesis import note
from hypothesis.control import current_build_context, currently_in_test_context
from hypothesis.errors import FailedHealthCheck

from ..observers import witness
from ..values import DeadlineExpired, InfrastructureError
from ._arguments import check_callable
from ._example import Example

WAITED: Final = "execute:supervisor"

Test = TypeVar("Test", bound=Callable[..., Any])
WhenBegun = Callable[[Example], None]


class InfrastructureFailed(FailedHealthCheck):
    """The machine couldn't run an example: Hypothesis stops, and there is no counter-example.

    Raised from the `InfrastructureError` in question. Hypothesis doesn't shrink such an example,
    nor keep the example in the database.
    """


def supervised(test: Test, *, when_begun: WhenBegun | None = None) -> Test:
    """Decorate a test, below ``@given``, whose examples make containers.

    The pytest plugin decorates every Hypothesis test, state machines too; without the plugin do so
    by hand. In each example the containers' names are then numbered from 1, and the time of create
    and delete doesn't count for the example's deadline. A failed example says in Hypothesis's notes
    what the containers did. If the machine is at fault, the test stops, and nothing is shrunk.

    Args:
        test: the test: a function, sync or async.
        when_begun: called with each example.

    Raises:
        InfrastructureFailed: in place of an `InfrastructureError`, alone or in a group. A plain
            `DeadlineExpired` comes from the program, and is a counter-example like any other.
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
    """Return an exception that is an infrastructure error, or the first one in a group; or None."""
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
                f"{type(found).__name__}: {found}. The machine is at fault: no counter-example"
            ) from error
        _note(example)
        raise
    finally:
        witness.reset(token)
        _keep_out_of_deadline(example.waited_seconds)


def _note(example: Example) -> None:
    """Note what the containers did, for the failing example that Hypothesis reports."""
    if currently_in_test_context():
        for title, text in example.told():
            note(f"{title}\n{text}")


def _keep_out_of_deadline(seconds: float) -> None:
    """Have Hypothesis subtract these seconds from the example's time.

    Hypothesis has no public way to do so. This table holds the times of a state machine's rules.
    Hypothesis subtracts them from the example's time, and doesn't count them as slow drawing.
    """
    if currently_in_test_context():
        current_build_context().data._stateful_run_times[WAITED] += seconds
