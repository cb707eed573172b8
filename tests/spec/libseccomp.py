"""What libseccomp makes of a profile, and what a filter answers to a call."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0

TOKENS = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
_OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def load() -> ctypes.CDLL | None:
    """Return the library, or None if the library isn't here."""
    name = ctypes.util.find_library("seccomp")
    if name is None:
        return None
    library = ctypes.CDLL(name)
    library.seccomp_init.restype = ctypes.c_void_p
    return library


def export(library: ctypes.CDLL, profile: Mapping[str, Any]) -> bytes:
    """Return the program that runtimes load for a profile."""
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    native = library.seccomp_arch_native() & 0xFFFFFFFF
    wanted = [TOKENS[name] for name in profile["architectures"]]
    for token in wanted:
        if token != native:
            assert library.seccomp_arch_add(context, ctypes.c_uint32(token)) == 0
    if native not in wanted:
        assert library.seccomp_arch_remove(context, ctypes.c_uint32(native)) == 0
    for entry in profile["syscalls"]:
        _add(library, context, entry)
    fd = os.memfd_create("filter")
    try:
        assert library.seccomp_export_bpf(context, fd) == 0
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: ctypes.c_void_p, entry: Mapping[str, Any]) -> None:
    action = ctypes.c_uint32(_action(entry["action"], entry.get("errnoRet")))
    compared = [
        _Comparison(
            arg["index"],
            _OPERATORS[arg["op"].removeprefix("SCMP_CMP_")],
            arg["value"],
            arg.get("valueTwo", 0),
        )
        for arg in entry.get("args") or ()
    ]
    array = (_Comparison * 6)(*compared)
    for name in entry["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != -1:
            rule = (context, action, number, len(compared), array)
            assert library.seccomp_rule_add_array(*rule) == 0, name


def _action(name: str, errno: int | None) -> int:
    return {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO | (errno or 1)}[name]


def answer(code: Sequence[tuple[int, int, int, int]], token: int, number: int, *args: int) -> int:
    """Return what a filter says to a call: the few instructions that filters are made of."""
    whole = [*args, *[0] * (6 - len(args))]
    data = struct.pack("<iIQ6Q", number, token, 0, *whole)
    value = at = 0
    for _ in range(len(code)):
        operation, yes, no, operand = code[at]
        at += 1
        match operation:
            case 0x20:  # load a word
                (value,) = struct.unpack_from("<I", data, operand)
            case 0x54:
                value &= operand
            case 0x05:
                at += operand
            case 0x15:
                at += yes if value == operand else no
            case 0x35:
                at += yes if value >= operand else no
            case 0x25:
                at += yes if value > operand else no
            case 0x06:
                return operand
            case other:
                raise AssertionError(hex(other))
    raise AssertionError("it has no end")


def decode(program: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("=HBBI", program))
