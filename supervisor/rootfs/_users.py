"""The user and groups of a program: the caller's arguments, looked up in a root filesystem."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

import attrs

from ..system import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2, read_found
from ..userns import parse_id
from ..values import MAX_ID, InvalidValue, StateCorrupt, check_int, check_text, raise_if_scarce

UserArgument = int | str | tuple[int, int] | None
GroupArgument = int | str | None
GroupsArgument = Iterable[int | str] | None

_USERS = "etc/passwd"
_GROUPS = "etc/group"
_MAX_GROUPS = 65536  # the kernel's NGROUPS_MAX
_MAX_UMASK = 0o777


class AccountOptions(TypedDict, total=False):
    """Who a program runs as.

    Attributes:
        user: a uid, a pair of uid and gid, or a name from the root filesystem's etc/passwd; default
            root. A user alone gets the group that etc/passwd lists, or else the group with the same
            number; ``"user:group"`` names a group. There are no supplementary groups; runc keeps an
            ordinary caller's, which have no meaning inside.
        group: a gid, or a name from the root filesystem's etc/group, in place of the user's group.
        extra_groups: the supplementary groups, ids or names.
        umask: the program's umask; by default 0o022, whatever this process has.
    """

    user: UserArgument
    group: GroupArgument
    extra_groups: GroupsArgument
    umask: int | None


@attrs.frozen(kw_only=True)
class Account:
    """The user that a program runs as; None for what isn't given.

    Attributes:
        user: a uid, or a name.
        group: a gid, or a name; None for the user's own group.
        extra_groups: gids or names.
        umask: the first program's umask.
    """

    user: int | str | None = None
    group: int | str | None = None
    extra_groups: tuple[int | str, ...] | None = None
    umask: int | None = None

    @property
    def says_anything(self) -> bool:
        """Whether anything is given."""
        return self != Account()

    @property
    def needs_lists(self) -> bool:
        """Whether something has to be looked up."""
        named = (self.user, self.group, *(self.extra_groups or ()))
        without_group = self.user is not None and self.group is None
        return without_group or any(isinstance(one, str) for one in named)


def check_account(
    *,
    user: UserArgument = None,
    group: GroupArgument = None,
    extra_groups: GroupsArgument = None,
    umask: int | None = None,
) -> Account:
    """Return the arguments in one form.

    Raises:
        InvalidValue: an argument is invalid; names the argument.
    """
    who, own_group = _user(user)
    wanted = _one(group, "group")
    if own_group is not None and wanted is not None:
        raise InvalidValue(f"user and group: both name a group ({user!r:.100} and {group!r:.100})")
    return Account(
        user=who,
        group=own_group if wanted is None else wanted,
        extra_groups=_groups(extra_groups),
        umask=_umask(umask),
    )


def _user(user: UserArgument) -> tuple[int | str | None, int | str | None]:
    if isinstance(user, tuple):
        if len(user) != 2:
            raise InvalidValue("user must be a uid, a pair of uid and gid, or a name")
        return _id(user[0], "user"), _id(user[1], "user")
    if not isinstance(user, str):
        return _one(user, "user"), None
    first, colon, second = check_text(user, "user").partition(":")
    return _one(first, "user"), _one(second, "user") if colon else None


def _one(value: int | str | None, name: str) -> int | str | None:
    if value is None or not isinstance(value, str):
        return None if value is None else _id(value, name)
    number = parse_id(check_text(value, name))
    if number is None and (not value or ":" in value or value.isdigit()):
        kinds = "a uid, uid:gid or a name" if name == "user" else "a gid or a name"
        raise InvalidValue(f"{name} must be {kinds}, not {value!r:.100}")
    return value if number is None else number


def _id(value: object, name: str) -> int:
    return check_int(value, name, least=0, most=MAX_ID)


def _groups(groups: GroupsArgument) -> tuple[int | str, ...] | None:
    if groups is None:
        return None
    if isinstance(groups, str | bytes | Mapping) or not isinstance(groups, Iterable):
        raise InvalidValue(f"extra_groups must be ids or names, not {type(groups).__name__}")
    checked = [_one(group, "extra_groups") for group in groups]
    if None in checked or len(checked) > _MAX_GROUPS:
        raise InvalidValue(f"extra_groups must be ids or names, {_MAX_GROUPS} at most")
    return tuple(one for one in checked if one is not None)


def _umask(umask: int | None) -> int | None:
    if umask is None or (umask == -1 and not isinstance(umask, bool)):  # Trio's value for unchanged
        return None
    if isinstance(umask, int) and not 0 <= umask <= _MAX_UMASK:
        raise InvalidValue(f"umask must be from 0 to {_MAX_UMASK:#o}, not {umask:#o}")
    return check_int(umask, "umask", least=0, most=_MAX_UMASK)


def find_account(
    account: Account, rootfs: str, *, before: Mapping[str, Any] | None = None, shown: str = ""
) -> dict[str, Any]:
    """Return the ``user`` of an OCI process object for an account.

    Names are looked up in the root filesystem's own ``etc/passwd`` and ``etc/group``, and so is the
    group of a uid. A uid that isn't listed gets the group with the same number.

    Args:
        account: the user and groups.
        rootfs: the root filesystem.
        before: the user to replace. A new user keeps none of the old user's groups.
        shown: what to call the root filesystem in errors.

    Raises:
        InvalidValue: a name isn't listed, or a list can't be read.
    """
    lists = _Lists(rootfs, shown or rootfs)
    found = {key: value for key, value in (before or {}).items() if value is not None}
    if account.user is not None:
        kept = {"umask": found["umask"]} if "umask" in found else {}
        uid, gid = lists.user(account.user, grouped=account.group is not None)
        found = {"uid": uid, "gid": gid, **kept}
    if account.group is not None:
        found["gid"] = lists.group(account.group, "group")
    if account.extra_groups is not None:
        found["additionalGids"] = [lists.group(g, "extra_groups") for g in account.extra_groups]
    if account.umask is not None:
        found["umask"] = account.umask
    return {"uid": 0, "gid": 0, **found}


@attrs.frozen
class _Lists:
    """The lists of users and groups in a root filesystem."""

    rootfs: str
    shown: str

    def user(self, user: int | str, *, grouped: bool) -> tuple[int, int]:
        """Return the uid and gid of a user; with ``grouped`` any gid will do."""
        if isinstance(user, int):
            return user, user if grouped else self._group_of(user)
        for fields in self._entries(_USERS, f"user: {user!r}"):
            uid, gid = parse_id(fields[2]), parse_id(fields[3]) if len(fields) > 3 else None
            if fields[0] == user and uid is not None and gid is not None:
                return uid, gid
        raise InvalidValue(f"user: {user!r} is not listed in {os.path.join(self.shown, _USERS)}")

    def group(self, group: int | str, name: str) -> int:
        """Return the gid of a group."""
        if isinstance(group, int):
            return group
        for fields in self._entries(_GROUPS, f"{name}: {group!r}"):
            gid = parse_id(fields[2])
            if fields[0] == group and gid is not None:
                return gid
        raise InvalidValue(
            f"{name}: {group!r} is not listed in {os.path.join(self.shown, _GROUPS)}"
        )

    def _group_of(self, uid: int) -> int:
        with contextlib.suppress(InvalidValue):  # a root filesystem needn't have the file
            for fields in self._entries(_USERS, f"user: '{uid}'"):
                gid = parse_id(fields[3]) if len(fields) > 3 else None
                if parse_id(fields[2]) == uid and gid is not None:
                    return gid
        return uid

    def _entries(self, name: str, wanted: str) -> list[list[str]]:
        path = os.path.join(self.shown, name)
        try:
            with _found(self.rootfs, name) as fd:
                lines = read_found(fd, path).decode(errors="replace").splitlines()
        except StateCorrupt as error:
            raise InvalidValue(f"{wanted} can't be looked up: {error}") from error
        except OSError as error:
            raise_if_scarce(error)
            raise InvalidValue(
                f"{wanted} can't be looked up in {path}: {error.strerror}"
            ) from error
        return [fields for line in lines if len(fields := line.split(":")) > 2]


@contextlib.contextmanager
def _found(rootfs: str, name: str) -> Iterator[int]:
    """Find a list in a root filesystem, which any user may own, and which may change meanwhile.

    Links are followed as inside the container: none leads to a file of the host. A file is opened
    only when its kind is known: opening a device may have effects.
    """
    with contextlib.ExitStack() as stack:
        top = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, top)
        fd = openat2(top, name, os.O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        stack.callback(os.close, fd)
        yield fd
