"""Playing with a machine: `run_machine`, and what all plays share."""

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
    """Make what all plays share; nothing of it is left afterwards."""
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
    """Remove the parent of the containers' cgroups: what is still in it was told as a leak."""
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
    """Play with a machine until a play fails, or enough of them were good.

    To be called from a plain test, not from Trio code.

    Args:
        machine: `SupervisorMachine`, or a subclass.
        runtime: what makes the containers. Apart from a `HostRuntime`'s, they need cgroups.
        bundle: what they are made of: there must be a ``/bin/sh`` in it; None for the host's
            programs.
        settings: Hypothesis's; by default 20 plays of 20 steps, without a deadline.

    Raises:
        AssertionError: a supervisor showed something else than the model, or something was left.
            Hypothesis prints the steps of the shortest play that it has found.
        Whatever a rule or an invariant raises.
    """
    if not isinstance(machine, type) or not issubclass(machine, SupervisorMachine):
        raise InvalidValue(f"machine must be a subclass of SupervisorMachine, not {machine!r:.100}")
    check_kind(runtime, Runtime, "runtime")
    if bundle is not None:
        check_kind(bundle, Bundle, "bundle")
    if settings is not None:
        check_kind(settings, type(_default_settings()), "settings")
    with open_setting(runtime, bundle, actor=machine.actor) as setting:
        factory: Any = lambda: machine(setting)  # noqa: E731  (it need not be a class)
        run_state_machine_as_test(factory, settings=settings or _default_settings())


def _default_settings() -> settings:
    return settings(
        max_examples=20,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
    )


async def _kernel_tells() -> bool:
    """Whether the kernel tells how a process ended when that has been reaped (Linux 6.15)."""
    process = PidFd.spawn(["/bin/sh", "-c", "exit 7"])
    with contextlib.closing(process):
        await process.wait_ended()
        process.reap()
        return process.wait_status() == 7 << 8
