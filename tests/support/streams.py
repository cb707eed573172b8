"""Bytes for streams, and functions that read a stream to the end."""

from __future__ import annotations

import hashlib

import trio.testing

from supervisor import TerminalStream


def pattern(size: int) -> bytes:
    """Return bytes in which nothing can be missing, doubled or moved without being noticed."""
    block = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(251))
    return (block * (size // len(block) + 1))[:size]


async def everything(stream: trio.abc.ReceiveStream | None) -> bytes:
    """Return all data of a stream, and close the stream."""
    assert stream is not None
    async with stream:
        return b"".join([chunk async for chunk in stream])


async def rest(stream: TerminalStream) -> bytes:
    """Read until the end."""
    with trio.fail_after(20):
        return b"".join([chunk async for chunk in stream])
