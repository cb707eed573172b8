"""The shim under fire: each system call of the shim fails, and the table says what the shim does.

``python -m tests.native.shim_faults`` writes the table in docs/shim-faults.md.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.native.shim_player import Fault, Player, Told, Tools

PAGE = Path(__file__).parents[2] / "docs/shim-faults.md"
KINDS = ("plain", "fifo", "log", "terminal", "refused")
ERRORS = ("EMFILE", "ENFILE", "ENOSPC", "ENOMEM", "EINTR", "EIO", "EAGAIN")
AT_ONCE = 2

CAN_FAIL = {
    "accept4": "EMFILE ENFILE ENOMEM EINTR EAGAIN",
    "bind": "ENOMEM",
    "chdir": "ENOMEM EIO",
    "chmod": "ENOMEM EIO",
    "close": "ENOSPC EINTR EIO",
    "close_range": "EMFILE ENOMEM",
    "dup2": "EMFILE ENOMEM EINTR",
    "fchmod": "EIO",
    "fcntl": "EMFILE",
    "flock": "EINTR",
    "fstat": "ENOMEM",
    "ftruncate": "EINTR EIO",
    "inotify_add_watch": "ENOSPC ENOMEM",
    "inotify_init1": "EMFILE ENOMEM",
    "lstat": "ENOMEM EIO",
    "open": "EMFILE ENFILE ENOSPC ENOMEM EINTR EIO EAGAIN",
    "poll": "ENOMEM EINTR",
    "pread64": "EINTR EIO EAGAIN",
    "pwrite64": "ENOSPC EINTR EIO EAGAIN",
    "read": "EINTR EIO EAGAIN",
    "recvmsg": "ENOMEM EINTR EAGAIN",
    "rename": "ENOSPC ENOMEM",
    "sendto": "ENOMEM EINTR EAGAIN",
    "signalfd4": "EMFILE ENFILE ENOMEM",
    "socket": "EMFILE ENFILE ENOMEM",
    "unlink": "ENOMEM EIO",
    "vfork": "ENOMEM EAGAIN",
    "wait4": "EINTR",
    "waitid": "EINTR",
    "write": "ENOSPC EINTR EIO EAGAIN",
}
"""The errors that a call can return, by section 2 of the manual, for the shim's use of the call
(fcntl: F_DUPFD_CLOEXEC). The manual has no EIO for open, but a bad disk returns EIO."""

CANNOT_FAIL = {
    "arch_prctl",
    "execve",
    "exit_group",
    "geteuid",
    "getpid",
    "getppid",
    "ioctl",
    "kill",
    "listen",
    "prctl",
    "rt_sigaction",
    "rt_sigprocmask",
    "set_tid_address",
    "shutdown",
    "umask",
}
"""Calls that can return none of these errors. `execve` is the launcher's."""

OTHER_NAMES = {
    "fchmodat": "chmod",
    "dup3": "dup2",
    "newfstatat": "fstat",
    "openat": "open",
    "ppoll": "poll",
    "pwritev2": "pwrite64",
    "renameat": "rename",
    "renameat2": "rename",
    "unlinkat": "unlink",
    "clone": "vfork",
}
"""The calls that other machines and C libraries make, and the common name of each."""


# ---- all of them -------------------------------------------------------------------------------


def count_calls(tools: Tools, place: Path, kinds: Sequence[str] = KINDS) -> dict[str, Counter[str]]:
    """Return how often a shim of each kind makes each system call, undisturbed."""
    counts = {}
    for kind in kinds:
        player = Player(tools, place / f"{kind}-undisturbed", kind)
        told = player.play()
        assert told == Told("goes on", []), (kind, told)
        trace = player.trace.read_text()
        counts[kind] = Counter(re.findall(r"^(\w+)\(", trace, re.MULTILINE))
    return counts


def faults(calls: Counter[str], *, each: bool = False) -> Iterator[Fault]:
    """Give the faults of a kind: the first, the second and the last call fail with each error.

    Args:
        each: all calls do so; else those between fail with one error.
    """
    for call, count in sorted(calls.items()):
        errors = CAN_FAIL.get(common_name(call), "").split()
        for error in errors:
            for number in range(1, count + 1):
                if each or number in {1, 2, count} or error == errors[-1]:
                    yield Fault(call, error, number)


def common_name(call: str) -> str:
    """Return the name that a call has in the table."""
    return OTHER_NAMES.get(call, call)


def play_all(
    tools: Tools, place: Path, cells: Sequence[tuple[str, Fault]]
) -> list[tuple[str, Fault, Told]]:
    """Play each fault with the fault's kind of shim."""

    def play(number: int) -> tuple[str, Fault, Told]:
        kind, fault = cells[number]
        path = place / str(number)
        told = Player(tools, path, kind, fault).play()
        if not told.wrong:
            shutil.rmtree(path)
        return kind, fault, told

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(play, range(len(cells))))


# ---- the table ---------------------------------------------------------------------------------

_INTRODUCTION = """\
# The shim under fire

Each system call of `supervisor-shim` failed, one at a time, with each error that the manual allows
for it, in shims of five kinds: with a plain process, with fifos, with a log, with a terminal, and
with a runtime that fails and leaves processes behind. None of them hung, lost an end or output, or
left a process behind. What they did:

- *goes on*: all is as it is without the error; a log may lack what couldn't be written, and then
  `shim-log.json` says so;
- *reports `phase`*: no process was made, and [the report](shim-protocol.md#the-report) says why.

Where both stand, it depends on which of its calls fails. After the report of a process nothing is
reported any more. – says that the call can't return the error. EIO of `open` isn't in the manual,
but it is what a bad disk says. What other machines call otherwise (`openat`, `ppoll`) stands under
its name on x86-64.

`python -m tests.native.shim_faults` makes this page, and lets every call of every run fail in
its turn, with each error. `tests/native/test_shim_faults.py` does so with the first, the
second and the last call of each name, and with one error for those between; with `--long` it leaves
out nothing.
"""

_LAST_WORDS = """\
A `close` that fails has closed the descriptor all the same. The shim also makes these, which can
return none of these errors:
"""


def table(played: Sequence[tuple[str, Fault, Told]]) -> dict[tuple[str, str], str]:
    """Return what the table says of each call with each error."""
    outcomes: dict[tuple[str, str], set[str]] = {}
    for _, fault, told in played:
        if told.outcome != "no such call":
            key = (common_name(fault.call), fault.error)
            outcomes.setdefault(key, set()).add(told.outcome)
    return {key: _cell(found) for key, found in outcomes.items()}


def _cell(outcomes: set[str]) -> str:
    phases = sorted(outcome.split()[1] for outcome in outcomes if outcome.startswith("reports"))
    parts = [f"reports {', '.join(phases)}"] if phases else []
    return "; ".join(parts + sorted(outcomes & {"goes on"}))


def rows(counts: dict[str, Counter[str]]) -> list[str]:
    """Return the system calls that have a row."""
    return sorted({common_name(call) for calls in counts.values() for call in calls} & {*CAN_FAIL})


def page(counts: dict[str, Counter[str]], played: Sequence[tuple[str, Fault, Told]]) -> str:
    """Return docs/shim-faults.md."""
    cells = table(played)
    lines = [f"| system call | {' | '.join(ERRORS)} |", "| --- |" + " --- |" * len(ERRORS)]
    for call in rows(counts):
        words = [cells.get((call, error), "–") for error in ERRORS]
        lines.append(f"| `{call}` | {' | '.join(words)} |")
    others = sorted({call for calls in counts.values() for call in calls} & CANNOT_FAIL)
    named = textwrap.fill(", ".join(f"`{call}`" for call in others), width=100)
    return "\n".join([_INTRODUCTION, *lines, "", f"{_LAST_WORDS}{named}.", ""])


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory(prefix="ts-shim-") as name:
        place = Path(name)
        tools = Tools.make(place)
        counts = count_calls(tools, place)
        cells = [(kind, fault) for kind in KINDS for fault in faults(counts[kind], each=True)]
        played = play_all(tools, place, cells)
    for kind, fault, told in played:
        if told.wrong:
            print(kind, fault.injection, *told.wrong)
    PAGE.write_text(page(counts, played))


if __name__ == "__main__":
    main()
