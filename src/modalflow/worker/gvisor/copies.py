"""A fork's copy of its own memory in gVisor, made before it has anything to do.

gVisor copies 2 MB at the first write to a part of that size, and Linux a page. Must not import Airflow.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from modalflow.worker.gvisor.sandbox import is_in_gvisor

#: gVisor copies this much at the first write to it after a fork.
_COPIED_AT_ONCE = 2 << 20

#: Smaller mappings are the data of libraries. A fork writes to few of them, and each would cost a copy of its own.
_SMALLEST = 256 << 10

#: So many parts later, a process that copies its memory checks whether it has something to do.
_MOST_PARTS = 16

_LIBC = ctypes.CDLL(None)


def copy_own_memory(until: socket.socket) -> None:
    """Copy the memory that this fork shares with its parent, until something comes from the socket.

    In gVisor the first writes to the memory take longer than the fork, and a task would wait for each. On Linux, it
    only copies the few pages that are written to, and nothing is done here.
    """
    if not is_in_gvisor():
        return
    parts, pid = list_own_memory(), os.getpid()
    for first in range(0, len(parts), _MOST_PARTS):
        if select.select([until], [], [], 0)[0]:
            return
        _write_back(parts[first : first + _MOST_PARTS], pid)


@cache
def list_own_memory() -> Sequence[int]:
    """Return an address in each part of private writable memory, of the size of one copy of gVisor.

    Listed once, for the forks of this process too: in gVisor, the list itself takes milliseconds.
    """
    return tuple(_addresses()) if is_in_gvisor() else ()


class _Part(ctypes.Structure):
    """The kernel's ``struct iovec``."""

    _fields_ = (("address", ctypes.c_void_p), ("size", ctypes.c_size_t))


def _write_back(addresses: Sequence[int], pid: int) -> None:
    """Write a byte at each address of this process's memory to itself, and read it.

    By one system call, between whose reading and writing nothing else of this process runs. If an address is unmapped
    by now, or the call is not allowed, nothing happens at the addresses from there on. Only the read maps a copy.
    """
    parts = (_Part * len(addresses))(*(_Part(address, 1) for address in addresses))
    copied = _LIBC.process_vm_readv(pid, parts, len(addresses), parts, len(addresses), 0)
    for address in addresses[: max(copied, 0)]:
        ctypes.string_at(address, 1)


def _addresses() -> Iterator[int]:
    """Yield an address in each part of private writable memory, of the size of one copy of gVisor."""
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        span, rights, *_ = line.split(maxsplit=2)
        if not rights.startswith(b"rw") or b"p" not in rights:
            continue
        begin, end = (int(each, 16) for each in span.split(b"-"))
        address = begin
        while end - begin >= _SMALLEST and address < end:
            yield address
            address = (address // _COPIED_AT_ONCE + 1) * _COPIED_AT_ONCE
