"""Compile a seccomp profile to the kernel's filter program, in the form that crun takes.

libseccomp takes 20 to 30 ms for our profile, at every create, and the resulting program is a long
list. This compiler makes a search among a few ranges of calls with the same rules. It understands
only what our own profile contains; other profiles need the runtime's libseccomp.

Source: seccomp(2); the kernel's Documentation/networking/filter.rst; linux/audit.h.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import attrs

_NUMBERS = os.path.join(os.path.dirname(__file__), "syscalls.json")

_LOAD, _RETURN, _AND = 0x20, 0x06, 0x54  # BPF_LD|W|ABS, BPF_RET|K, BPF_ALU|AND|K
_ALWAYS, _EQUAL, _AT_LEAST = 0x05, 0x15, 0x35  # BPF_JMP|JA, JEQ|K, JGE|K
_FAR = 255  # the longest conditional jump
_NEAR = 200  # how far away an answer is still shared
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_LOW, _HIGH = (0, 4) if sys.byteorder == "little" else (4, 0)

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0
_ENOSYS = 38
_X32 = 0x40000000
_PRIVATE = 0xF0000  # from here on, calls of arm only

_TOKENS = {  # for each architecture: the column in the table of numbers, and AUDIT_ARCH
    "SCMP_ARCH_X86_64": ("amd64", 0xC000003E),
    "SCMP_ARCH_X86": ("x86", 0x40000003),
    "SCMP_ARCH_AARCH64": ("arm64", 0xC00000B7),
    "SCMP_ARCH_ARM": ("arm", 0x40000028),
}


@attrs.frozen
class _Rule:
    """The action for a call: always, or if one argument matches."""

    action: int
    argument: Mapping[str, Any] | None = None


Ranges = Sequence[tuple[int, tuple[_Rule, ...]]]
"""The first call of each range with the same rules, and the rules; the default comes last."""


@attrs.define
class _Program:
    """A program, written from the end, since jumps lead forward only.

    A place is the index of an instruction in ``code``, whose first instruction is the program's
    last. Each instruction costs the kernel a quarter of a microsecond at every exec of a
    container's first program: so answers are shared.
    """

    default: int
    code: list[tuple[int, int, int, int]] = attrs.field(factory=list)
    answers: dict[int, int] = attrs.field(factory=dict)

    def add(self, operation: int, operand: int, yes: int = 0, no: int = 0) -> int:
        self.code.append((operation, yes, no, operand))
        return len(self.code) - 1

    def answer(self, action: int) -> int:
        """Return a place that answers a call with this action."""
        place = self.answers.get(action)
        if place is None or len(self.code) - place > _NEAR:
            place = self.answers[action] = self.add(_RETURN, action)
        return place

    def branch(self, test: int, operand: int, yes: int, no: int) -> int:
        """Test, and go on at one of two places; return the place of the test."""
        yes, no = self._near(yes), self._near(no)
        last = len(self.code) - 1
        return self.add(test, operand, last - yes, last - no)

    def _near(self, place: int) -> int:
        """Return a place that a conditional jump reaches, also from two instructions further."""
        distance = len(self.code) - 1 - place
        return place if distance < _FAR - 1 else self.add(_ALWAYS, distance)

    def search(self, ranges: Ranges) -> int:
        """Find a number's range by binary search."""
        if len(ranges) == 1:
            return self.treat(ranges[0][1])
        middle = len(ranges) // 2
        above = self.search(ranges[middle:])
        below = self.search(ranges[:middle])
        return self.branch(_AT_LEAST, ranges[middle][0], above, below)

    def treat(self, rules: Sequence[_Rule]) -> int:
        """Answer one call, by the argument if the rules have one."""
        first = rules[0]
        if first.argument is None:
            return self.answer(first.action)
        place = self.answer(self.default)
        for rule in reversed(rules):
            assert rule.argument is not None
            place = self.compare(rule.argument, self.answer(rule.action), place)
        if first.argument["op"] == "SCMP_CMP_MASKED_EQ":  # all masks are of 32 bits
            return place
        high = self.branch(_EQUAL, 0, place, self.answer(self.default))
        assert high == len(self.code) - 1
        return self.add(_LOAD, _ARGUMENTS + 8 * first.argument["index"] + _HIGH)

    def compare(self, argument: Mapping[str, Any], yes: int, no: int) -> int:
        """Compare the lower half of an argument."""
        masked = argument["op"] == "SCMP_CMP_MASKED_EQ"
        self.branch(_EQUAL, argument["valueTwo"] if masked else argument["value"], yes, no)
        if masked:
            self.add(_AND, argument["value"])
        return self.add(_LOAD, _ARGUMENTS + 8 * argument["index"] + _LOW)


def compile_filter(profile: Mapping[str, Any]) -> bytes | None:
    """Return the program for a profile.

    A call newer than all those in the profile gets ENOSYS, as with runc: programs then try an older
    call.

    Args:
        profile: a `linux.seccomp` that `_seccomp.default_profile` has made.

    Returns:
        None for an architecture without a table of numbers, or for an unknown comparison.
    """
    if not _understood(profile):
        return None
    program = _Program(_action(profile["defaultAction"], profile.get("defaultErrnoRet")))
    start = program.answer(_KILL)
    for name in reversed(profile["architectures"]):
        column, token = _TOKENS[name]
        calls = program.search(_ranges(_rules(profile["syscalls"], column), program.default))
        if column == "amd64":
            calls = program.branch(_AT_LEAST, _X32, program.answer(_KILL), calls)
        if calls != len(program.code) - 1:
            program.add(_ALWAYS, len(program.code) - 1 - calls)
        start = program.branch(_EQUAL, token, program.add(_LOAD, _NUMBER), start)
    program.add(_LOAD, _ARCHITECTURE)
    return b"".join(struct.pack("=HBBI", *one) for one in reversed(program.code))


def _understood(profile: Mapping[str, Any]) -> bool:
    return all(name in _TOKENS for name in profile.get("architectures") or [""]) and all(
        argument["op"] in ("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ")
        for entry in profile["syscalls"]
        for argument in entry.get("args") or ()
    )


@cache
def _numbers() -> dict[str, dict[str, int]]:
    """Return the numbers of calls by architecture and name."""
    with open(_NUMBERS, encoding="utf-8") as file:
        table: dict[str, list[Any]] = json.load(file)
    columns = table.pop("")
    return {
        column: {name: row[n] for name, row in table.items() if row[n] is not None}
        for n, column in enumerate(columns)
    }


def _action(name: str, errno: int | None) -> int:
    return _ALLOW if name == "SCMP_ACT_ALLOW" else _ERRNO | (errno or 0)


def _rules(entries: Iterable[Mapping[str, Any]], column: str) -> dict[int, list[_Rule]]:
    """Return the rules for each number; a rule without an argument stands alone."""
    numbers, rules = _numbers()[column], dict[int, list[_Rule]]()
    for entry in entries:
        action = _action(entry["action"], entry.get("errnoRet"))
        arguments = entry.get("args") or [None]
        for number in (numbers[name] for name in entry["names"] if name in numbers):
            known = rules.setdefault(number, [])
            if arguments == [None]:
                known[:] = [_Rule(action)]
            elif not any(rule.argument is None for rule in known):
                known += [_Rule(action, argument) for argument in arguments]
    return rules


def _ranges(rules: Mapping[int, list[_Rule]], default: int) -> Ranges:
    """Return the ranges of calls with the same rules, in order."""
    last = max(number for number in rules if number < _PRIVATE)
    found: list[tuple[int, tuple[_Rule, ...]]] = []
    for number in sorted({0, last + 1, *rules, *(number + 1 for number in rules)}):
        refused = _Rule(default if number <= last else _ERRNO | _ENOSYS)
        treated = tuple(rules.get(number) or [refused])
        if not found or found[-1][1] != treated:
            found.append((number, treated))
    return found
