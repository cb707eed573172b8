"""The user namespace of a container: chosen from the caller's ``userns`` argument.

The choice is kept in config.json as an annotation, so that it is there when a bundle is loaded. A
runtime that gets the bundle directly uses the ids in config.json, but doesn't map the root
filesystem's: the files seem to belong to the overflow user.

Source: OCI runtime spec, "User namespace mappings"; podman-run(1), ``--userns``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from ..state import Block
from ..values import BundleInvalid, InvalidValue, check_text
from ._ids import IdMap, IdMapLike, UserNamespace, host_id
from ._ranges import OWN, SIZE, Blocks, Range, clipped, covered, free, owned, read_lines
from ._rootless import user_namespace

ANNOTATION = "org.trio-supervisor.userns"

AUTO = "auto"
MAPPED = "mapped"
"""In the annotation: the ids in config.json, with the root filesystem mapped to them."""

NONE = "none"

UserNamespaceArgument = str | UserNamespace | Sequence[IdMapLike] | Mapping[str, Any]

FILES = (("/etc/subuid", "/etc/passwd"), ("/etc/subgid", "/etc/group"))


@attrs.frozen
class Choice:
    """Which user namespace the containers of a bundle get.

    Attributes:
        namespace: the ids, or None for none.
        wish: the annotation, or None.
    """

    namespace: UserNamespace | None
    wish: str | None = None

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations for config.json; the mappings are separate."""
        return {} if self.wish is None else {ANNOTATION: self.wish}


def check_userns(value: object) -> str | UserNamespace | None:
    """Return the argument in one form.

    Raises:
        InvalidValue: the argument has another type, or its ids can't be a namespace's.
    """
    if value is None or isinstance(value, UserNamespace):
        return value
    if isinstance(value, str):
        if check_text(value, "userns") not in (AUTO, NONE):
            raise InvalidValue(f'userns must be "auto", "none" or mappings, not {value!r}')
        return value
    if isinstance(value, Mapping):
        if not {"uidMappings"} <= set(value) <= {"uidMappings", "gidMappings"}:
            raise InvalidValue("userns: a mapping must have uidMappings and gidMappings, as OCI's")
        uids = value["uidMappings"]
        return _named(uids, value.get("gidMappings", uids))
    return _named(value, value)


def _named(uids: object, gids: object) -> UserNamespace:
    try:
        return UserNamespace(uids=uids, gids=gids)
    except InvalidValue as error:
        raise InvalidValue(f"userns: {error}") from None


def choose(wanted: str | UserNamespace | None, *, default: str) -> Choice:
    """Return the wanted user namespace, as far as our user may have one.

    Args:
        wanted: as `check_userns` returns it; None for the default.
        default: the default for root.

    Raises:
        InvalidValue: our user can't have that namespace; says why.
    """
    needed = user_namespace()
    if needed is not None:
        return Choice(_ordinary(wanted, needed))
    wanted = default if wanted is None else wanted
    if isinstance(wanted, UserNamespace):
        _check_ours(wanted)
        return Choice(wanted, MAPPED)
    if wanted == NONE:
        return Choice(None)
    return Choice(of_block(blocks()[0]), AUTO)


def _ordinary(wanted: str | UserNamespace | None, given: UserNamespace) -> UserNamespace:
    """Return an ordinary user's namespace: an ordinary user needs one."""
    if wanted == NONE:
        raise InvalidValue(
            'userns="none": you aren\'t root, and may make a container only in a user namespace'
        )
    if not isinstance(wanted, UserNamespace):
        return given
    for kind, maps, known in (("uid", wanted.uids, given.uids), ("gid", wanted.gids, given.gids)):
        if not covered(maps, [(entry.host_id, entry.size) for entry in known]):
            raise InvalidValue(
                f"userns: not all of the {kind}s on the host are yours: you aren't root, and have "
                f"your own and those that /etc/sub{kind} gives you"
            )
    return wanted


def _check_ours(wanted: UserNamespace) -> None:
    """Refuse ids that don't exist for us: we may be in a user namespace too."""
    for kind, maps in (("uid", wanted.uids), ("gid", wanted.gids)):
        ours = _here(kind)
        if not covered(maps, ours):
            raise InvalidValue(
                f"userns: not all of the {kind}s on the host exist here: this process is in a user "
                f"namespace, which has {_said(ours)} (/proc/self/{kind}_map)"
            )


def check_user(namespace: UserNamespace, user: Mapping[str, Any]) -> None:
    """Refuse a user that doesn't exist in a namespace.

    Raises:
        InvalidValue: one of the ids isn't mapped.
    """
    gids = [user["gid"], *user.get("additionalGids", ())]
    ids = [("uid", user["uid"], namespace.uids), *(("gid", gid, namespace.gids) for gid in gids)]
    for kind, value, maps in ids:
        if host_id(maps, value) is not None:
            continue
        advice = f"it has {sum(entry.size for entry in maps)} {kind}s"
        if os.geteuid() != 0:
            advice = (
                f"you aren't root, and have {sum(entry.size for entry in maps)} {kind}s there; for "
                "more, install uidmap (newuidmap and newgidmap) and add yourself to "
                f"/etc/sub{kind}"
            )
        raise InvalidValue(f"user: {kind} {value} doesn't exist in the container: {advice}")


# ---- a range for each container --------------------------------------------------------


def blocks() -> Blocks:
    """Return the blocks of ids that root's containers may have.

    Raises:
        InvalidValue: there are none; says where they would come from.
    """
    found = Blocks(
        *(tuple(_ranges(kind, *files)) for kind, files in zip(("uid", "gid"), FILES, strict=True))
    )
    if not found:
        raise InvalidValue(
            f'userns="auto": a container needs {SIZE} uids and gids of its own. '
            f"/etc/subuid and /etc/subgid leave uids {_said(found.uids)} and gids "
            f"{_said(found.gids)} of those that this process has ({_said(_here('uid'))}): add a "
            "line for the user containers to both files, or give explicit mappings, or "
            'userns="none"'
        )
    return found


def _ranges(kind: str, subordinate: str, accounts: str) -> list[Range]:
    lines = read_lines(subordinate)
    for owners in ({"containers"}, {"root", "0"}):
        ranges = owned(lines, owners, never=(0,))
        if ranges:
            break
    else:
        ranges = free(OWN, lines=lines, accounts=read_lines(accounts))
    return clipped(ranges, _our_maps(kind))


def _our_maps(kind: str) -> list[IdMap]:
    return [IdMap(*map(int, line.split())) for line in read_lines(f"/proc/self/{kind}_map")]


def _here(kind: str) -> list[Range]:
    return [(entry.container_id, entry.size) for entry in _our_maps(kind)]


def _said(ranges: Iterable[Range]) -> str:
    return ", ".join(f"{first} to {first + size - 1}" for first, size in ranges) or "none"


def of_block(block: Block) -> UserNamespace:
    """Return the user namespace with a block's ids, from 0 on."""
    return UserNamespace(
        uids=(IdMap(0, block.uid, block.size),), gids=(IdMap(0, block.gid, block.size),)
    )


# ---- in config.json --------------------------------------------------------------------


def wish_of(spec: Mapping[str, Any]) -> str | None:
    """Return the choice in a config.json's annotations: "auto", "mapped" or None."""
    wish: str | None = (spec.get("annotations") or {}).get(ANNOTATION)
    return wish


def namespace_of(spec: Mapping[str, Any]) -> UserNamespace:
    """Return the ids in a config.json with a new user namespace."""
    linux = spec["linux"]
    return UserNamespace(uids=linux["uidMappings"], gids=linux["gidMappings"])


def check_wish(spec: Mapping[str, Any], path: str) -> None:
    """Check the annotation of a config.json.

    Raises:
        BundleInvalid: the annotation has no clear meaning; names ``path``.
    """
    wish = wish_of(spec)
    if wish is None:
        return
    where = f"annotations[{ANNOTATION!r}]"
    if wish not in (AUTO, MAPPED):
        raise BundleInvalid(f"must be {AUTO!r} or {MAPPED!r}, not {wish!r}", path=path, where=where)
    user = [e for e in spec["linux"].get("namespaces") or () if e["type"] == "user"]
    if not user or user[0].get("path"):
        raise BundleInvalid("has no meaning without a new user namespace", path=path, where=where)
    try:
        namespace_of(spec)
    except (KeyError, InvalidValue) as error:
        raise BundleInvalid(f"needs ids: {error}", path=path, where="linux.uidMappings") from None
