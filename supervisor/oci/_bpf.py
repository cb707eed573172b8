"""Compile a seccomp profile to the program that the kernel runs, in the form crun takes it in.

libseccomp takes 20 to 30 ms for our profile, at every create, and its program is a long list. This
one is a search among the few ranges of calls that are treated alike. Only what our own profile
holds is understood; for any other the runtime's libseccomp has to do.

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

Code = list[tuple[int, int, int, int]]
"""Instructions: operation, jump if true, jump if false, operand."""

_NUMBERS = os.path.join(os.path.dirname(__file__), "syscalls.json")

_LOAD, _RETURN, _AND = 0x20, 0x06, 0x54  # BPF_LD|W|ABS, BPF_RET|K, BPF_ALU|AND|K
_ALWAYS, _EQUAL, _AT_LEAST = 0x05, 0x15, 0x35  # BPF_JMP|JA, JEQ|K, JGE|K
_FAR = 255
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_LOW, _HIGH = (0, 4) if sys.byteorder == "little" else (4, 0)

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0
_ENOSYS = 38
_X32 = 0x40000000
_PRIVATE = 0xF0000  # from here on, calls of arm alone

_TOKENS = {  # of an architecture: its column in the table of numbers, and its AUDIT_ARCH
    "SCMP_ARCH_X86_64": ("amd64", 0xC000003E),
    "SCMP_ARCH_X86": ("x86", 0x40000003),
    "SCMP_ARCH_AARCH64": ("arm64", 0xC00000B7),
    "SCMP_ARCH_ARM": ("arm", 0x40000028),
}


@attrs.frozen
class _Rule:
    """What is done with a call: always, or if one argument compares."""

    action: int
    argument: Mapping[str, Any] | None = None


def compile_filter(profile: Mapping[str, Any]) -> bytes | None:
    """Return the program for a profile.

    A call newer than all that the profile names is answered with ENOSYS, as runc does: programs
    then go on to an older one.

    Args:
        profile: a `linux.seccomp` that `_seccomp.default_profile` has made.

    Returns:
        None for an architecture whose numbers we don't have.
    """
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    code: Code = [(_RETURN, 0, 0, _KILL)]
    for name in reversed(profile["architectures"]):
        if name not in _TOKENS:
            return None
        column, token = _TOKENS[name]
        calls = _search(_ranges(_rules(profile["syscalls"], column), default))
        if column == "amd64":
            calls = _if(_AT_LEAST, _X32, [(_RETURN, 0, 0, _KILL)], calls)
        code = _if(_EQUAL, token, [(_LOAD, 0, 0, _NUMBER), *calls], code)
    return b"".join(struct.pack("=HBBI", *one) for one in [(_LOAD, 0, 0, _ARCHITECTURE), *code])


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
    """Return the rules for each number; one without an argument stands alone."""
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


def _ranges(rules: Mapping[int, list[_Rule]], default: int) -> list[tuple[int, Code]]:
    """Return where each range of calls begins that are treated alike, and how that is."""
    refused: Code = [(_RETURN, 0, 0, default)]
    unknown: Code = [(_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    last = max(number for number in rules if number < _PRIVATE)
    found: list[tuple[int, Code]] = []
    for number in sorted({0, last + 1, *rules, *(number + 1 for number in rules)}):
        treated = _treat(rules[number], default) if number in rules else refused
        if number > last and number not in rules:
            treated = unknown
        if not found or found[-1][1] != treated:
            found.append((number, treated))
    return found


def _treat(rules: Sequence[_Rule], default: int) -> Code:
    """Return what is done with one call."""
    code: Code = [(_RETURN, 0, 0, default)]
    if rules[0].argument is None:
        return [(_RETURN, 0, 0, rules[0].action)]
    for rule in reversed(rules):
        assert rule.argument is not None
        code = _compare(rule.argument, [(_RETURN, 0, 0, rule.action)], code)
    if rules[0].argument["op"] == "SCMP_CMP_MASKED_EQ":  # all masks are of 32 bits
        return code
    high = _ARGUMENTS + 8 * rules[0].argument["index"] + _HIGH
    return [(_LOAD, 0, 0, high), *_if(_EQUAL, 0, code, [(_RETURN, 0, 0, default)])]


def _compare(argument: Mapping[str, Any], yes: Code, no: Code) -> Code:
    """Compare the lower half of an argument."""
    load = (_LOAD, 0, 0, _ARGUMENTS + 8 * argument["index"] + _LOW)
    value = argument["value"]
    match argument["op"]:
        case "SCMP_CMP_EQ":
            return [load, *_if(_EQUAL, value, yes, no)]
        case "SCMP_CMP_LT":
            return [load, *_if(_AT_LEAST, value, no, yes)]
        case "SCMP_CMP_MASKED_EQ":
            return [load, (_AND, 0, 0, value), *_if(_EQUAL, argument["valueTwo"], yes, no)]
        case other:
            raise AssertionError(other)


def _search(ranges: Sequence[tuple[int, Code]]) -> Code:
    """Find the range that a number is in, by halves."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    return _if(_AT_LEAST, ranges[middle][0], _search(ranges[middle:]), _search(ranges[:middle]))


def _if(test: int, operand: int, yes: Code, no: Code) -> Code:
    """Do one or the other; ``yes`` ends with a return, as all code does."""
    if len(yes) <= _FAR:
        return [(test, 0, len(yes), operand), *yes, *no]
    return [(test, 1, 0, operand), (_ALWAYS, 0, 0, len(yes)), *yes, *no]
