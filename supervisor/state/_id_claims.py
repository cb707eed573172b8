"""Which ids of the host are taken by containers with user namespaces of their own.

Two containers with one range are each other's root, so each range is noted in a directory that all
supervisors of the machine share, as a file named by it. The file says whose it is (the container's
directory), and the container's directory has a link to it: only together do they count. So a
killed supervisor can't fail to free anything: with its directory a container's ids go, too.

Ids that a caller gives to a container are noted too, in a file of that container's: the same may be
given to several, but nobody who is promised some of his own gets any of them.

While a container is being made it has no directory yet; until then its supervisor holds a lock on
the file.
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

from ..system import Lock, lenient, scarce
from ..values import InvalidValue, TooManyFiles

DIRECTORY = "/run/trio-supervisor.ids"
"""A reboot, which ends all containers, empties it."""

LINK = ".ids"
"""The link's name in a container's directory; no exec can have it."""

_MAX_BYTES = 64 * 1024
_GIVEN = "given-"
_NO_ID = 5_000_000_000  # above all ids: where a range is of uids only, or of gids


Ranges = Sequence[tuple[int, int]]


@attrs.frozen
class Block:
    """As many uids as gids of the host.

    Attributes:
        uid: the first uid.
        gid: the first gid.
        size: how many of both.
    """

    uid: int
    gid: int
    size: int

    @property
    def name(self) -> str:
        """The name of the file that notes it."""
        return f"{self.uid}-{self.gid}-{self.size}"

    @classmethod
    def parse(cls, name: str) -> Block | None:
        """Return the block of a file's name, or None if it is none."""
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
    """A block that a container has from now on.

    Leaving its ``with`` block keeps it if the container's directory is there, with the link, and
    frees it if not.

    Attributes:
        block: the ids; None for those that its caller has given it.
        path: the file that notes it; what the link has to lead to.
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
            ours = self._lock.fd >= 0  # a forked child hasn't got the lock
            if ours and not _has_link(self.owner, self.path):
                _unlink(self.path)


def take(blocks: Sequence[Block], owner: str, *, directory: str | None = None) -> Claim | None:
    """Take a block that overlaps nobody's.

    Which one is random: so two programs that see different directories of claims (one is in a
    container itself) are unlikely to take the same.

    Args:
        blocks: those to choose from.
        owner: the path that the container's directory will have.
        directory: where it is noted.

    Returns:
        None if all are taken.

    Raises:
        InvalidValue: it can't be noted.
        TooManyFiles, DiskFull: as they say.
    """
    directory = directory or DIRECTORY
    with scarce():
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
    return None


def note(uids: Ranges, gids: Ranges, owner: str, *, directory: str | None = None) -> Claim | str:
    """Note the ids that a caller has given to a container.

    Args:
        uids: the host's, as first one and number.
        gids: the same.
        owner: the path that the container's directory will have.
        directory: where it is noted.

    Returns:
        The claim; or the directory of a container that was promised some of them for its own.

    Raises: as `take`.
    """
    directory = directory or DIRECTORY
    blocks = [Block(first, _NO_ID, size) for first, size in uids]
    blocks += [Block(_NO_ID, first, size) for first, size in gids]
    with scarce():
        _make(directory)
        path = os.path.join(directory, _GIVEN + secrets.token_hex(8))
        lock = Lock.take(path)
        assert lock is not None  # nobody else knows its name
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


def _promised(directory: str, blocks: Sequence[Block]) -> str | None:
    """Return the directory of a container that was promised one of these ids, or None."""
    for path, noted in _notes(directory).items():
        name = os.path.basename(path)
        if not name.startswith(_GIVEN) and any(one.overlaps(noted[0]) for one in blocks):
            return _read(path)[0] or name
    return None


def give_back(owner: str, *, directory: str | None = None) -> None:
    """Free the ids of a container whose processes are dead, if it had some."""
    with contextlib.suppress(OSError):
        path = os.readlink(os.path.join(owner, LINK))
        place, name = os.path.split(path)
        known = Block.parse(name) is not None or name.startswith(_GIVEN)
        if place == (directory or DIRECTORY) and known:
            _free(path, owner)


def _make(directory: str) -> None:
    """Make the directory of claims; nobody else may write there, or it would prove nothing."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
            os.chmod(directory, 0o700)  # a umask may take even our own bits
        status = os.lstat(directory)
    except OSError as error:
        raise InvalidValue(
            f'userns="auto": {directory}, where it is noted which ids are taken, can\'t be made: '
            f"{error.strerror}"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise InvalidValue(
            f'userns="auto": {directory}, where it is noted which ids are taken, isn\'t a '
            "directory of ours alone: remove it"
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
    """Return what is in a note: its owner, and the blocks that a caller gave."""
    with lenient(), open(path, "rb") as file:
        return os.fsdecode(file.read(_MAX_BYTES)).split("\0")
    return [""]


def _in_random_order(blocks: Sequence[Block]) -> Iterator[Block]:
    start = secrets.randbelow(len(blocks)) if blocks else 0
    return (blocks[(start + n) % len(blocks)] for n in range(len(blocks)))


def _try(directory: str, block: Block, owner: str) -> Claim | None:
    """Note a block, unless somebody was quicker.

    Two who take different blocks that overlap may both have seen neither: so each looks again
    when its own is noted, and then both may give way.
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
    """Free the blocks of containers that are gone without having given theirs back."""
    in_use = list(_mapped())
    for path, blocks in _notes(directory).items():
        if not any(
            block.uid < first + size and first < block.uid + block.size
            for first, size in in_use
            for block in blocks
        ):
            _free(path, None)


def _free(path: str, owner: str | None) -> None:
    """Remove a note, if that is of ``owner``, or of whoever is gone.

    Under its lock: nobody can make it a note of somebody else's meanwhile.
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
    """Whether a container's directory leads to the note. Where that can't be seen, it does."""
    try:
        return os.readlink(os.path.join(owner, LINK)) == path
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _mapped() -> Iterator[tuple[int, int]]:
    """Return the uids, as first one and number, that are in user namespaces with processes in them.

    A container may live on when its directory was moved, or is in somebody else's mounts.
    """
    ours = os.readlink("/proc/self/ns/user")
    seen = {ours}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with lenient():
            namespace = os.readlink(f"/proc/{pid}/ns/user")
            if namespace not in seen:
                seen.add(namespace)
                with open(f"/proc/{pid}/uid_map", encoding="utf-8") as file:
                    for line in file:
                        _, first, size = map(int, line.split())
                        yield first, size


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
