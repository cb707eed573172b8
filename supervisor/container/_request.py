"""What a caller of `Supervisor.create` asks for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from ..bundle import Bundle, Gate
from ..rootfs import (
    Account,
    GroupArgument,
    GroupsArgument,
    UserArgument,
    check_account,
    find_account,
)
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
from ..userns import check_user, namespace_of, wish_of
from ..values import check_kind
from ._checkpoint import CheckpointOptions


def _kind(kind: type) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is not None:
            check_kind(value, kind, field.name)

    return check


@attrs.frozen(kw_only=True)
class CreateRequest:
    """The arguments of `Supervisor.create`, in the caller's words, by the same names.

    What can be checked without the bundle is checked when a request is made.

    Attributes:
        privileges: capabilities, limits, OOM score and seccomp, checked.
        stop: the stop signal and grace, checked.
        account: user, groups and umask, checked; names aren't looked up yet.
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
    account: Account = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        privileges = check_privileges(
            capabilities=self.capabilities,
            rlimits=self.rlimits,
            oom_score_adj=self.oom_score_adj,
            seccomp=self.seccomp,
        )
        account = check_account(
            user=self.user, group=self.group, extra_groups=self.extra_groups, umask=self.umask
        )
        object.__setattr__(self, "privileges", privileges)
        object.__setattr__(self, "stop", check_stop(self.stop_signal, self.stop_grace))
        object.__setattr__(self, "account", account)

    def stdio(self, init: ProcessLayout) -> Stdio:
        """Return the streams that are asked for; see `stdio.plan`."""
        return plan(
            init,
            stdin=self.stdin,
            stdout=self.stdout,
            stderr=self.stderr,
            terminal=self.terminal,
        )

    async def user_in(self, bundle: Bundle) -> dict[str, Any] | None:
        """Return the user that the account stands for in a bundle; None if nothing is said of it.

        Raises:
            InvalidValue: a name isn't listed there, or an id isn't there in its user namespace.
        """
        account = self.account
        if not account.says_anything:
            return None
        before = (bundle.spec.get("process") or {}).get("user")
        find = partial(find_account, account, bundle.lists, before=before)
        user = await in_thread(find) if account.needs_lists else find()
        if wish_of(bundle.spec) is not None and bundle.spec["linux"].get("uidMappings"):
            check_user(namespace_of(bundle.spec), user)
        return user
