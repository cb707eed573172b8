"""Claims on host ids: which ids belong to containers with their own user namespaces.

Two containers with the same ids would be each other's root. So each range of ids is noted in a
directory that all supervisors of the host share: in a file named by the range. The file holds the
path of the container's directory, and the container's directory has a link to the file. Only both
together are a claim. So the ids become free when the container's directory is removed, even if the
supervisor was killed.

Ids that a caller gives to a container are noted, too, in a file for that container. A caller may
give the same ids to several containers, but a container with ``"auto"`` gets none of these ids.

A container that is being made has no directory yet; until then the supervisor holds a lock on the
file.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from typing import Self

import attrs

from ..system import Lock
from ..values import InvalidValue, TooManyFiles, raise_if_scarce

DIRECTORY = "/run/trio-supervisor.ids"
"""The directory of claims. A reboot, which ends all containers, empties this directory."""

LINK = ".ids"
"""The link's name in a container's directory; no exec can have it."""

_MAX_BYTES = 64 * 1024
_GIVEN = "given-"
_NO_ID = 5_000_000_000  # above all ids: for a range of uids only, or of gids only


Ranges = Sequence[tuple[int, int]]


@attrs.frozen
class Block:
    """A range of host uids, and a range of host gids of the same size.

    Attributes:
        uid: the first uid.
        gid: the first gid.
        size: the number of uids, and of gids.
    """

    uid: int
    gid: int
    size: int

    @property
    def name(self) -> str:
        """The name of the file that notes this block."""
        return f"{self.uid}-{self.gid}-{self.size}"

    @classmethod
    def parse(cls, name: str) -> Block | None:
        """Return the block that a file's name stands for; None for any other name."""
        match = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})-([0-9]{1,10})", name)
        return None if match is None else cls(*map(int, match.groups()))

    def overlaps(self, other: Block) -> bool:
        """Whether some uid or some gid is in both."""
        return any(
            mine < theirs + other.size and theirs < mine + self.size
            for mine, theirs in ((self.uid, other.uid), (self.gid, other.gid))
        )


@attrs.frozen
class Claim:
    """A container's claim on ids.

    At the end of the ``with`` block the claim stays if the container's directory has the link;
    otherwise the ids become free.

    Attributes:
        block: the ids; None for ids that the caller gave.
        path: the file that notes the ids; the link must lead to this file.
        owner: the container's directory.
    """

    block: Block | None
    path: str
    owner: str
    _lock: Lock = attrs.field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            ours = self._lock.fd >= 0  # a forked child doesn't hold the lock
            if ours and not _has_link(self.owner, self.path):
                _unlink(self.path)


def take(blocks: Sequence[Block], owner: str, *, directory: str | None = None) -> Claim | None:
    """Claim a block that overlaps no claimed block.

    The choice is random. So two programs that see different directories of claims (if one program
    runs in a container) are unlikely to claim the same block.

    Args:
        blocks: the blocks to choose from.
        owner: the path that the container's directory will have.
        directory: the directory of claims.

    Returns:
        None if no block is free.

    Raises:
        InvalidValue: the directory of claims can't be made, or isn't ours.
        TooManyFiles: no descriptor was left.
        DiskFull: there is no space for the file.
    """
    directory = directory or DIRECTORY
    try:
        _make(directory)
        for _ in range(2):
            taken = _noted(directory)
            for block in _in_random_order(blocks):
                if block in taken or any(block.overlaps(other) for other in taken):
                    continue
                claim = _try(directory, block, owner)
                if claim is not None:
                    return claim
                taken.add(block)
            _sweep(directory)
    except OSError as error:
        raise_if_scarce(error)
        raise
    return None


def note(uids: Ranges, gids: Ranges, owner: str, *, directory: str | None = None) -> Claim | str:
    """Note the ids that a caller has given to a container.

    Args:
        uids: ranges of host uids, each as the first uid and the number.
        gids: ranges of host gids, likewise.
        owner: the path that the container's directory will have.
        directory: the directory of claims.

    Returns:
        The claim; or the directory of another container, which claimed some of these ids first.

    Raises: as `take`.
    """
    directory = directory or DIRECTORY
    blocks = [Block(first, _NO_ID, size) for first, size in uids]
    blocks += [Block(_NO_ID, first, size) for first, size in gids]
    try:
        _make(directory)
        path = os.path.join(directory, _GIVEN + secrets.token_hex(8))
        lock = Lock.take(path)
        assert lock is not None  # no other program knows the random name
        try:
            content = "\0".join([owner, *(block.name for block in blocks)])
            os.write(lock.fd, os.fsencode(content))
            theirs = _promised(directory, blocks)
            if theirs is not None:
                _sweep(directory)
                theirs = _promised(directory, blocks)
            if theirs is None:
                return Claim(None, path, owner, lock)
        except BaseException:
            _unlink(path)
            lock.release()
            raise
        _unlink(path)
        lock.release()
        return theirs
    except OSError as error:
        raise_if_scarce(error)
        raise


def _promised(directory: str, blocks: Sequence[Block]) -> str | None:
    """Return the directory of a container that has claimed one of these ids, or None."""
    for path, noted in _notes(directory).items():
        name = os.path.basename(path)
        if not name.startswith(_GIVEN) and any(one.overlaps(noted[0]) for one in blocks):
            return _read(path)[0] or name
    return None


def give_back(owner: str, *, directory: str | None = None) -> None:
    """Free the claimed ids of a container whose processes are dead, if there are any."""
    with contextlib.suppress(OSError):
        path = os.readlink(os.path.join(owner, LINK))
        place, name = os.path.split(path)
        known = Block.parse(name) is not None or name.startswith(_GIVEN)
        if place == (directory or DIRECTORY) and known:
            _free(path, owner)


def _make(directory: str) -> None:
    """Make the directory of claims, where only we may write: else a claim would prove nothing."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
            os.chmod(directory, 0o700)  # a umask may take even our own bits
        status = os.lstat(directory)
    except OSError as error:
        raise InvalidValue(
            f'userns="auto": {directory}, the directory of the ids in use, can\'t be made: '
            f"{error.strerror}"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise InvalidValue(
            f'userns="auto": {directory}, the directory of the ids in use, isn\'t a directory '
            "of ours alone: remove this file or directory"
        )


def _notes(directory: str) -> dict[str, list[Block]]:
    """Return the ids that each file notes."""
    notes = {}
    for name in os.listdir(directory):
        path, block = os.path.join(directory, name), Block.parse(name)
        if block is not None:
            notes[path] = [block]
        elif name.startswith(_GIVEN):
            notes[path] = [one for text in _read(path)[1:] if (one := Block.parse(text))]
    return notes


def _noted(directory: str) -> set[Block]:
    return {block for blocks in _notes(directory).values() for block in blocks}


def _read(path: str) -> list[str]:
    """Return a file's content: the container's directory, and the blocks that a caller gave."""
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read(_MAX_BYTES)).split("\0")
    except OSError as error:
        raise_if_scarce(error)
        return [""]


def _in_random_order(blocks: Sequence[Block]) -> Iterator[Block]:
    start = secrets.randbelow(len(blocks)) if blocks else 0
    return (blocks[(start + n) % len(blocks)] for n in range(len(blocks)))


def _try(directory: str, block: Block, owner: str) -> Claim | None:
    """Note a block, unless another supervisor was quicker.

    Two supervisors may note overlapping blocks at the same time, when neither sees the other's.
    So each looks again after noting a block, and both may give the block up.
    """
    path = os.path.join(directory, block.name)
    lock = Lock.take(path)
    if lock is None:
        return None
    try:
        if os.fstat(lock.fd).st_size == 0:
            os.write(lock.fd, os.fsencode(owner))
            if not any(block.overlaps(other) for other in _noted(directory) - {block}):
                return Claim(block, path, owner, lock)
            _unlink(path)
    except BaseException:
        _unlink(path)
        lock.release()
        raise
    lock.release()
    return None


def _sweep(directory: str) -> None:
    """Free the blocks of containers that are gone without a `give_back`."""
    in_use = list(_mapped())
    for path, blocks in _notes(directory).items():
        if not any(
            block.uid < first + size and first < block.uid + block.size
            for first, size in in_use
            for block in blocks
        ):
            _free(path, None)


def _free(path: str, owner: str | None) -> None:
    """Remove a note of ``owner``'s, or, for None, of a container that is gone.

    The note is locked meanwhile, so that no other supervisor can use the file for a new claim.
    """
    with contextlib.suppress(TooManyFiles):
        lock = Lock.take(path)
        if lock is None:
            return
        with lock:
            noted = os.fsdecode(os.pread(lock.fd, _MAX_BYTES, 0)).partition("\0")[0]
            if noted in ("", owner) or (owner is None and not _has_link(noted, path)):
                _unlink(path)


def _has_link(owner: str, path: str) -> bool:
    """Whether a container's directory has the link to the note; True if that can't be seen."""
    try:
        return os.readlink(os.path.join(owner, LINK)) == path
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _mapped() -> Iterator[tuple[int, int]]:
    """Return the host uids of all user namespaces with processes: the first one, and the number.

    A container may still run when the directory was moved, or is visible only in other mounts.
    """
    ours = os.readlink("/proc/self/ns/user")
    seen = {ours}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/user")
            if namespace not in seen:
                seen.add(namespace)
                with open(f"/proc/{pid}/uid_map", encoding="utf-8") as file:
                    for line in file:
                        _, first, size = map(int, line.split())
                        yield first, size
        except OSError as error:
            raise_if_scarce(error)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
