"""`run_machine`: run plays of a state machine, in a setting that all plays share."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from ...bundle import Bundle
from ...cgroups import Hierarchies
from ...children import PidFd
from ...runtime import Runtime
from ...values import InvalidValue, check_kind
from .._leaks import leak_check
from ..runtimes import PROGRAM, Ability, HostRuntime
from ._actor import Actor
from ._cradle import Cradle
from ._machine import SupervisorMachine
from ._stage import Setting

try:
    from hypothesis import HealthCheck, settings
    from hypothesis.stateful import run_state_machine_as_test
except ImportError as _missing:
    raise ImportError(
        "SupervisorMachine needs Hypothesis: pip install 'trio-supervisor[testing]'"
    ) from _missing


@contextlib.contextmanager
def open_setting(
    runtime: Runtime, bundle: Bundle | None = None, *, actor: type[Actor] = Actor
) -> Iterator[Setting]:
    """Make the setting that all plays share, and check that nothing is left afterwards."""
    host = str(PROGRAM) in runtime.args
    abilities = HostRuntime.abilities if host else frozenset(Ability)
    parent = f"/trio-supervisor-machine-{os.getpid()}-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(leak_check(cgroup_parent=None, temporary=False))
        stack.callback(_remove_empty, parent)
        workdir = stack.enter_context(tempfile.TemporaryDirectory(prefix="trio-supervisor-"))
        os.chmod(workdir, 0o711)  # a user namespace's root passes through
        if bundle is None:
            bundle = Bundle.from_host(["/bin/sh"], path=f"{workdir}/bundle")
        yield Setting(
            cradle=stack.enter_context(Cradle()),
            runtime=runtime,
            namespaces=Ability.NAMESPACES in abilities,
            kernel_tells=trio.run(_kernel_tells),
            place=Path(workdir),
            bundle=bundle.path,
            cgroup_parent=parent,
            actor=actor,
        )


def _remove_empty(cgroup: str) -> None:
    """Remove the parent of the containers' cgroups, if empty.

    The plays have reported any cgroup that is still inside.
    """
    for path in Hierarchies.discover().directories(cgroup):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def run_machine(
    machine: type[SupervisorMachine],
    *,
    runtime: Runtime,
    bundle: Bundle | None = None,
    settings: settings | None = None,
) -> None:
    """Run plays of a machine until a play fails, or all plays were good.

    Call this from a plain test, not from Trio code.

    Args:
        machine: `SupervisorMachine`, or a subclass.
        runtime: the runtime of the containers. Containers of a real runtime need cgroups.
        bundle: the containers' bundle, which must contain ``/bin/sh``; None for the host's
            programs.
        settings: Hypothesis's settings; by default 20 plays of 20 steps, without a deadline.

    Raises:
        AssertionError: a supervisor differed from the model, or something was left behind.
            Hypothesis prints the steps of the shortest failing play.
        Any exception of a rule or an invariant.
    """
    if not isinstance(machine, type) or not issubclass(machine, SupervisorMachine):
        raise InvalidValue(f"machine must be a subclass of SupervisorMachine, not {machine!r:.100}")
    check_kind(runtime, Runtime, "runtime")
    if bundle is not None:
        check_kind(bundle, Bundle, "bundle")
    if settings is not None:
        check_kind(settings, type(_default_settings()), "settings")
    with open_setting(runtime, bundle, actor=machine.actor) as setting:
        factory: Any = lambda: machine(setting)  # noqa: E731  (Hypothesis takes any callable)
        run_state_machine_as_test(factory, settings=settings or _default_settings())


def _default_settings() -> settings:
    return settings(
        max_examples=20,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
    )


async def _kernel_tells() -> bool:
    """Whether the kernel reports the exit status of a reaped process (Linux 6.15)."""
    process = PidFd.spawn(["/bin/sh", "-c", "exit 7"])
    with contextlib.closing(process):
        await process.wait_ended()
        process.reap()
        return process.wait_status() == 7 << 8
