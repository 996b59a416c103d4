"""A program's standard output and error as two pipes that are read in the order in which they were written.

Each pipe holds one write, and the next one waits until it has been read, while epoll tells of pipes in the order in
which something came into them. So the order is that of the writes, whatever the reader is doing meanwhile. A write of
more than 4 KiB is several. A kernel without such pipes (Linux has them) gives a page of text per pipe instead, within
which the order of the two may be lost.
"""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass

_PAGE = 4096

#: More than a pipe can hold here: of a write that does not fit, the rest would be lost.
_READ_SIZE = 1 << 16

#: Bytes that are read of a pipe which something still writes to when the program has ended.
_LAST_BYTES = 1 << 20


@dataclass(frozen=True)
class _Pipe:
    read: int
    write: int


def _pipe() -> _Pipe:
    try:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        read, write = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PAGE)
    except OSError:
        # As many writes as it holds would be told of as one, and the rest of them never.
        fcntl.fcntl(write, fcntl.F_SETFL, fcntl.fcntl(write, fcntl.F_GETFL) & ~os.O_DIRECT)
    os.set_blocking(read, False)
    return _Pipe(read, write)


class Streams:
    """Two pipes, and ``wakeup``, a file that makes ``read`` return when something comes into it."""

    def __init__(self, wakeup: int) -> None:
        self._pipes = (_pipe(), _pipe())
        self.out, self.err = (pipe.write for pipe in self._pipes)
        """What the program is to write to. Close them here once it has them."""
        self._number = {pipe.read: number for number, pipe in enumerate(self._pipes)}
        self._wakeup = wakeup
        self._epoll = select.epoll()
        for read in self._number:
            # Edges alone: a pipe that is only looked at again because it was ready before would keep its old place.
            self._epoll.register(read, select.EPOLLIN | select.EPOLLET)
        self._epoll.register(wakeup, select.EPOLLIN)

    def close_writers(self) -> None:
        """Leave the write ends to the program."""
        for pipe in self._pipes:
            os.close(pipe.write)

    def read(self, timeout: float | None) -> Iterator[tuple[int, bytes]]:
        """Yield (0 for output or 1 for error, what was written); nothing after ``timeout`` or a wake-up."""
        for file, events in self._epoll.poll(timeout):
            if file == self._wakeup:
                continue
            if data := _read(file):
                yield self._number[file], data
            if events & select.EPOLLHUP:
                # Nobody writes to it any more, and nothing will tell of what else is in it.
                while data := _read(file):
                    yield self._number[file], data
                self._epoll.unregister(file)

    def read_rest(self) -> Iterator[tuple[int, bytes]]:
        """Yield what is there still, although something that goes on may write more."""
        left = _LAST_BYTES
        found = True
        while found and left > 0:
            found = False
            for number, data in self.read(0):
                found, left = True, left - len(data)
                yield number, data
        for file, number in self._number.items():
            while left > 0 and (data := _read(file)):
                left -= len(data)
                yield number, data

    def close(self) -> None:
        self._epoll.close()
        for pipe in self._pipes:
            os.close(pipe.read)


def _read(file: int) -> bytes:
    try:
        return os.read(file, _READ_SIZE)
    except BlockingIOError:
        return b""
