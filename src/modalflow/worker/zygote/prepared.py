"""The process of the next request, forked while its zygote has nothing to do.

Until its order comes, it has only what every fork of the zygote has: no variables, tokens or random numbers of a
request. In gVisor, where Modal runs containers, a fork and its first writes take a quarter of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import dataclass
from typing import Self

from modalflow.protocol.messages import Kind
from modalflow.worker.zygote.protocol import encode

#: Longer than an order.
_ORDER_SIZE = 4096


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
