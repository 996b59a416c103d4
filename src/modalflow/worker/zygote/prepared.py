"""The process of the next request, forked while its zygote has nothing to do.

Until its order comes, it has only what every fork of the zygote has: no variables, tokens or random numbers of a
request. In gVisor, where Modal runs containers, a fork and its first writes take a quarter of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from modalflow.protocol.messages import Kind
from modalflow.worker.zygote.protocol import encode

#: Longer than an order.
_ORDER_SIZE = 4096

#: gVisor copies this much at the first write to it after a fork; Linux copies a page.
_COPIED_AT_ONCE = 2 << 20

_LIBC = ctypes.CDLL(None)

#: So many copies later, a process that copies its memory checks for its order.
_CHECKED_AFTER = 4


@dataclass(frozen=True)
class Order:
    """The name of a request, and how to execute it. The request itself comes through a file."""

    id: str
    kind: Kind

    @classmethod
    def receive(cls, orders: socket.socket) -> tuple[Self, int]:
        """Wait for an order in a forked process; return it and the file of its request.

        If the zygote ends before, this process ends without a word.
        """
        with orders:
            data, files, *_ = socket.recv_fds(orders, _ORDER_SIZE, 1)
        if not data:
            os._exit(0)
        message = json.loads(data)
        return cls(message["id"], Kind(message["kind"])), files[0]


@dataclass(frozen=True)
class PreparedFork:
    """A forked process that waits for its order."""

    pid: int
    orders: socket.socket
    outcome: int
    """The read end of the pipe to which it will write its outcome."""

    def is_running(self) -> bool:
        """Return whether it has not ended. It stays to be reaped."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def begin(self, order: Order, request: int) -> None:
        """Let it execute a request; its end is reported like every other, even if it has just ended."""
        with self.orders, contextlib.suppress(OSError):
            socket.send_fds(self.orders, [encode({"id": order.id, "kind": order.kind})], [request])

    def close(self) -> None:
        """Close this process's files for it."""
        self.orders.close()
        os.close(self.outcome)


def copy_own_memory(until: socket.socket) -> None:
    """Copy the memory that this fork shares with its parent, until something comes from the socket.

    In gVisor the first writes to the memory take longer than the fork, and a task would wait for each. On Linux, it
    only copies the few pages that are written to, and nothing is done here.
    """
    if not _is_in_gvisor():
        return
    for number, address in enumerate(_addresses()):
        if number % _CHECKED_AFTER == 0 and select.select([until], [], [], 0)[0]:
            return
        _write_back(address)


class _Part(ctypes.Structure):
    """The kernel's ``struct iovec``."""

    _fields_ = (("address", ctypes.c_void_p), ("size", ctypes.c_size_t))


def _write_back(address: int) -> None:
    """Write a byte of this process's memory to itself.

    By one system call, between whose reading and writing nothing else of this process runs. If the address is unmapped
    by now, or the call is not allowed, nothing happens.
    """
    part = ctypes.byref(_Part(address, 1))
    _LIBC.process_vm_readv(os.getpid(), part, 1, part, 1, 0)


def _is_in_gvisor() -> bool:
    # Modal sets the variable; gVisor has always reported this version of Linux.
    return os.environ.get("MODAL_FUNCTION_RUNTIME") == "gvisor" or os.uname().release == "4.4.0"


def _addresses() -> Iterator[int]:
    """Yield an address in each part of private writable memory that gVisor copies at once."""
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        span, rights, *_ = line.split(maxsplit=2)
        if not rights.startswith(b"rw") or b"p" not in rights:
            continue
        address, end = (int(each, 16) for each in span.split(b"-"))
        while address < end:
            yield address
            address = (address // _COPIED_AT_ONCE + 1) * _COPIED_AT_ONCE
