"""The arguments of `Supervisor.create`: the public options, and the checked request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from ..bundle import Content, Gate
from ..rootfs import (
    Account,
    GroupArgument,
    GroupsArgument,
    UserArgument,
    check_account,
    find_account,
)
from ..running import InitOptions
from ..spec import (
    Privileges,
    RlimitArgument,
    SeccompArgument,
    SignalArgument,
    StopWish,
    check_privileges,
    check_stop,
)
from ..state import ProcessLayout
from ..stdio import Stdio, StdioArgument, TerminalArgument, plan
from ..tasks import in_thread
from ..userns import check_user, namespace_of
from ..values import check_kind
from ._checkpoint import CheckpointOptions


def _kind(kind: type) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is not None:
            check_kind(value, kind, field.name)

    return check


class CreateOptions(InitOptions, total=False):
    """The keyword arguments of `Supervisor.create`.

    For the program, the bundle's values are the defaults. ``user``, ``group``, ``extra_groups``,
    ``umask``, ``capabilities``, ``rlimits``, ``oom_score_adj``, ``seccomp``, ``stop_signal`` and
    ``stop_grace`` are as for `Bundle.from_rootfs`: another user has none of the bundle's groups;
    limits are added to the bundle's, or replace them; a loaded bundle without privileges gets no
    limits from us.

    Attributes:
        stdin: DEVNULL (the default), PIPE, a path, an open file, a `Fifo`. The shim copies from
            or to a file: the container never has the file itself.
        stdout: the same; also LOG or a `LogFile`. Output is appended.
        stderr: as ``stdout``; also STDOUT.
        terminal: whether these three streams are a terminal instead: True, or the initial
            ``(columns, rows)``.
        labels: text that is kept with the container, for the caller.
        on_shim_lost: what happens to a process whose shim is killed: ``"kill"``, or ``"keep"``,
            watched by a pidfd. With ``"keep"`` the supervisor holds the fifos open, too. Not with
            a terminal or a log.
        checkpoint: the directory of a checkpoint to restore; the restored program runs at once.
        checkpoint_options: the options for CRIU, the same as at the checkpoint.
        gate: the gate in front of the program; only `ContainerPool` needs this.
    """

    stdin: StdioArgument
    stdout: StdioArgument
    stderr: StdioArgument
    terminal: TerminalArgument
    labels: Mapping[str, str] | None
    on_shim_lost: str
    checkpoint: str | os.PathLike[str] | None
    checkpoint_options: CheckpointOptions | None
    gate: Gate | None


@attrs.frozen(kw_only=True)
class CreateRequest:
    """The arguments of `Supervisor.create`, as the caller gave them, by the same names.

    Everything that can be checked without the bundle is checked when a request is made.

    Attributes:
        privileges: capabilities, limits, OOM score and seccomp, checked.
        stop: the stop signal and grace, checked.
        account: user, groups and umask, checked; names aren't looked up yet. None if none of
            them is given.
    """

    stdin: StdioArgument = None
    stdout: StdioArgument = None
    stderr: StdioArgument = None
    terminal: TerminalArgument = False
    args: Sequence[str] | None = None
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    labels: Mapping[str, str] | None = None
    on_shim_lost: str = "kill"
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_options: CheckpointOptions | None = attrs.field(
        default=None, validator=_kind(CheckpointOptions)
    )
    user: UserArgument = None
    group: GroupArgument = None
    extra_groups: GroupsArgument = None
    umask: int | None = None
    gate: Gate | None = attrs.field(default=None, validator=_kind(Gate))
    capabilities: Iterable[str] | None = None
    rlimits: Mapping[str, RlimitArgument] | None = None
    oom_score_adj: int | None = None
    seccomp: SeccompArgument | None = None
    stop_signal: SignalArgument | None = None
    stop_grace: float | None = None
    privileges: Privileges = attrs.field(init=False)
    stop: StopWish = attrs.field(init=False)
    account: Account | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        privileges = check_privileges(
            capabilities=self.capabilities,
            rlimits=self.rlimits,
            oom_score_adj=self.oom_score_adj,
            seccomp=self.seccomp,
        )
        stop = check_stop(self.stop_signal, self.stop_grace)
        account = check_account(
            user=self.user, group=self.group, extra_groups=self.extra_groups, umask=self.umask
        )
        object.__setattr__(self, "privileges", privileges)
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "account", account if account.says_anything else None)

    def stdio(self, init: ProcessLayout) -> Stdio:
        """Return the requested streams; see `stdio.plan`."""
        return plan(
            init,
            stdin=self.stdin,
            stdout=self.stdout,
            stderr=self.stderr,
            terminal=self.terminal,
        )

    async def user_in(self, content: Content) -> dict[str, Any] | None:
        """Return the user that the account stands for in a bundle; None without an account.

        Raises:
            InvalidValue: a name isn't listed there, or an id isn't in the bundle's user namespace.
        """
        account = self.account
        if account is None:
            return None
        before = (content.spec.get("process") or {}).get("user")
        find = partial(find_account, account, content.lists, before=before)
        user = await in_thread(find) if account.needs_lists else find()
        if content.wish is not None and content.spec["linux"].get("uidMappings"):
            check_user(namespace_of(content.spec), user)
        return user
