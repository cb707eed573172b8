"""All kinds of values for an argument, and how a call must refuse each."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import ProgramNotFound, RuntimeNotFound, ShimNotFound, UsageError

STRANGE: list[Any] = [
    "",
    "a",
    "/proc/no/such/x",
    "A=B",
    "a\0b",
    "\ud800",
    "x" * 200_000,
    b"",
    b"a",
    0,
    -1,
    1,
    2**70,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    True,
    False,
    [],
    ["x"],
    [""],
    ["a\0b"],
    ["\ud800"],
    ["x" * 200_000],
    [b"x"],
    [None],
    [1],
    (),
    (1, 2, 3),
    {},
    {"x": 1},
    {1: "x"},
    {"ls": None},
    {"x": "\ud800"},
    {"x"},
    object(),
    None,
]


# Arguments that errors call by another name, or that another error may name.
_SAID_AS = {
    "grace": ("grace", "seconds"),
    "name": ("runtime",),
    "bundle": ("bundle", "config.json", "directory", "path"),
    "path": ("path", "directory", "config.json"),
    "runtime": ("runtime",),
    "shim": ("shim",),
    "id": ("id", "none under", "no broken"),
    "root": ("root",),
    "checkpoint_options": ("checkpoint_options", "options"),
    "first": ("first", "longest"),
    "args": ("args", "the program"),
    "cwd": ("cwd", "working directory"),
    "leave_running": ("leave_running", "path"),
}


def parameters(function: Callable[..., Any]) -> list[str]:
    """Return the names of all arguments that a user gives."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names: list[str] = []
    for argument in inspect.signature(function).parameters.values():
        options = options_of(function, argument)
        names += options or ([] if argument.kind in variable else [argument.name])
    return [name for name in names if name not in ("self", "task_status")]


def options_of(function: Callable[..., Any], argument: inspect.Parameter) -> dict[str, str]:
    """Return the keywords that ``**options: Unpack[...]`` stands for, each with the keyword's
    type."""
    annotation = str(argument.annotation)
    if not annotation.startswith("Unpack["):
        return {}
    plain: Any = inspect.unwrap(function)
    plain = inspect.unwrap(plain.__init__) if inspect.isclass(plain) else plain
    kind = plain.__globals__[annotation.removeprefix("Unpack[").removesuffix("]")]
    return {
        name: getattr(hint, "__forward_arg__", hint) for name, hint in kind.__annotations__.items()
    }


def parameter(function: Callable[..., Any], name: str) -> inspect.Parameter:
    """Return one argument, also one that is an option."""
    found = inspect.signature(function).parameters
    if name in found:
        return found[name]
    *_, last = found.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, annotation=options_of(function, last)[name])


class Table:
    """The list of arguments that were refused in another way than they should be."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def judge(self, where: str, name: str, value: object, error: BaseException) -> None:
        """Look whether an error is one that a caller understands."""
        what = f"{where}({name}={value!r:.40})"
        told = _SAID_AS.get(name, (name,))
        kinds = UsageError | RuntimeNotFound | ShimNotFound | ProgramNotFound
        if isinstance(error, BaseExceptionGroup) or not isinstance(error, kinds):
            self.wrong.append(
                f"{where}({name}={value!r:.40}): {type(error).__name__}: {error!s:.100}"
            )
        elif not any(word in str(error) for word in told):
            self.wrong.append(f"{what} doesn't name it: {error!s:.120}")
        elif len(str(error)) > 2000:
            self.wrong.append(f"{what} says {len(str(error))} characters")

    def accept(self, where: str, function: Callable[..., Any], name: str, value: object) -> None:
        """Look whether what was taken is of the argument's kind: numbers are no flags."""
        if where == "IdMap":  # the function that takes an IdMap checks the values
            return
        argument = parameter(function, name)
        told = argument.default
        numbers = isinstance(told, int | float) and not isinstance(told, bool)
        flag = isinstance(told, bool) or argument.annotation == "bool"
        numbers = numbers or argument.annotation in ("int", "int | None", "float", "float | None")
        if (flag and type(value) in (int, float)) or (numbers and isinstance(value, bool)):
            self.wrong.append(f"{where}({name}={value!r:.40}) was taken")

    def call(self, where: str, function: Callable[..., Any], **good: Any) -> None:
        """Call a function with each strange value for each argument."""
        for name in parameters(function):
            for value in STRANGE:
                try:
                    function(**{**good, name: value})
                except Exception as error:
                    self.judge(where, name, value, error)
                else:
                    self.accept(where, function, name, value)

    async def await_each(
        self,
        where: str,
        function: Callable[..., Any],
        attempt: Callable[..., Awaitable[object]],
        untouched: Callable[[], object] = lambda: None,
        skip: tuple[str, ...] = (),
    ) -> None:
        """The same for ``attempt``, which takes the arguments of ``function``."""
        before = untouched()
        for name in parameters(function):
            for value in () if name in skip else STRANGE:
                with trio.move_on_after(20) as scope:
                    try:
                        await attempt(**{name: value})
                    except Exception as error:
                        self.judge(where, name, value, error)
                        if untouched() != before:
                            self.wrong.append(f"{where}({name}={value!r:.40}) left {untouched()}")
                            before = untouched()
                    else:
                        self.accept(where, function, name, value)
                if scope.cancelled_caught:
                    self.wrong.append(f"{where}({name}={value!r:.40}) took too long")


class Named:
    """A bound method with the signature of the underlying function."""

    def __init__(self, function: Callable[..., Any], bound: Callable[..., Any]) -> None:
        self.__signature__ = inspect.signature(function)
        self.__wrapped__ = function
        self._bound = bound

    def __call__(self, **given: Any) -> Any:
        return self._bound(**given)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> Iterator[Table]:
    """The table of wrong refusals, which fails the test at the end if there are any."""
    monkeypatch.chdir(workdir)  # relative paths are made there
    made = Table()
    yield made
    assert not made.wrong, "\n".join(["", *made.wrong])
