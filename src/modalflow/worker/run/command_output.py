"""The output of a program: two pipes that are read in the order of the writes, and structured lines made of it.

Each pipe holds one write, and the next write waits until the pipe has been read. epoll reports pipes in the order in
which they became readable. So the reader sees the order of the writes, however slow it is. A write of more than 4 KiB
counts as several. gVisor, Modal's sandbox, has no such pipes. A pipe then holds some pages of text, and the order of
the two streams is lost if a program changes between them faster than they are read. Smaller pipes would not
keep it either.

A line is logged when it ends. After a second without an end, its text is logged as unfinished, so that a prompt or a
progress bar is visible. If carriage returns overwrite a line, only its last state is logged.
"""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from modalflow.logs.log_format import encode_line

#: Seconds after which a line is logged although it has no end yet.
UNFINISHED_AFTER = 1.0

#: Bytes of the longest line that is logged in one piece.
LONGEST_LINE = 2 << 20

#: What a line has that was logged before its end.
_UNFINISHED = {"unfinished": True}

_PAGE = 4096

#: Bytes that a pipe holds if it cannot hold single writes. In gVisor, a line of a megabyte takes half the time of a
#: page's pipe, and no less with a larger one.
_WITHOUT_PACKETS = 16 << 10

#: More than such a pipe can hold: a read that is shorter than the write would lose the rest.
_READ_SIZE = 1 << 16

#: Bytes that are read from a pipe to which a process still writes when the program has ended.
_LAST_BYTES = 1 << 20


@dataclass(frozen=True)
class _Pipe:
    read: int
    write: int


def _pipe() -> _Pipe:
    size = _PAGE
    try:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        read, write = os.pipe2(os.O_CLOEXEC)
        size = _WITHOUT_PACKETS
    try:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, size)
    except OSError:
        # A larger pipe holds several writes, which epoll reports only once; the others would stay unread.
        fcntl.fcntl(write, fcntl.F_SETFL, fcntl.fcntl(write, fcntl.F_GETFL) & ~os.O_DIRECT)
    os.set_blocking(read, False)
    return _Pipe(read, write)


class OutputPipes:
    """The pipes for a program's standard output and error. ``wakeup`` is a file that interrupts ``read``."""

    def __init__(self, wakeup: int) -> None:
        self._pipes = (_pipe(), _pipe())
        self.out, self.err = (pipe.write for pipe in self._pipes)
        """The files that the program writes to. Call ``close_writers`` once the program has them."""
        self._number = {pipe.read: number for number, pipe in enumerate(self._pipes)}
        self._wakeup = wakeup
        self._epoll = select.epoll()
        for read in self._number:
            # Edge-triggered: otherwise a pipe that was readable before would keep its old place in the order.
            self._epoll.register(read, select.EPOLLIN | select.EPOLLET)
        self._epoll.register(wakeup, select.EPOLLIN)

    def close_writers(self) -> None:
        """Close this process's write ends, so that only the program has them."""
        for pipe in self._pipes:
            os.close(pipe.write)

    def read(self, timeout: float | None) -> Iterator[tuple[int, bytes]]:
        """Yield (0 for output or 1 for error, written bytes); nothing after ``timeout`` seconds or a wake-up."""
        for file, events in self._epoll.poll(timeout):
            if file == self._wakeup:
                continue
            if data := _read(file):
                yield self._number[file], data
            if events & select.EPOLLHUP:
                # No process can write to it any more, and epoll does not report the rest of it.
                while data := _read(file):
                    yield self._number[file], data
                self._epoll.unregister(file)

    def read_rest(self) -> Iterator[tuple[int, bytes]]:
        """Yield what the pipes still hold, although a process that goes on may write more."""
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


class LineClock:
    """A clock whose times always grow: Airflow drops an equal line with the same time as a repetition."""

    def __init__(self) -> None:
        self._last = 0
        self._second = -1
        self._text = ""

    def stamp(self, now: float) -> str:
        """Return a time in seconds since the epoch as text with microseconds."""
        self._last = max(int(now * 1_000_000), self._last + 1)
        second, micros = divmod(self._last, 1_000_000)
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{micros:06}Z"


@dataclass
class OutputLines:
    """The structured lines of one stream of a program. Does no I/O and reads no clock."""

    logger: str
    level: str
    clock: LineClock
    longest: int = LONGEST_LINE
    _rest: bytearray = field(default_factory=bytearray)
    _since: float = 0.0

    def feed(self, data: bytes, now: float) -> Iterator[bytes]:
        """Add what was printed at a time, and yield the lines that are complete now."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if self._rest:
                self._rest += data[start:end]
                yield self._line(bytes(self._rest), now)
                self._rest.clear()
            else:
                yield self._line(data[start:end], now)
            start = end + 1
        if start < len(data):
            if not self._rest:
                self._since = now
            self._rest += data[start:]
            while len(self._rest) > self.longest:
                yield self._piece(self.longest, now)

    def due(self) -> float | None:
        """Return the time at which to call ``unfinished``; None if no text waits for its end."""
        return self._since + UNFINISHED_AFTER if self._rest else None

    def unfinished(self, now: float) -> Iterator[bytes]:
        """Yield the text that has waited too long for the end of its line."""
        if self._rest and now >= self._since + UNFINISHED_AFTER:
            yield self._piece(len(self._rest), now)

    def close(self, now: float) -> Iterator[bytes]:
        """Yield the last text, which never got the end of its line."""
        if self._rest:
            yield self._line(bytes(self._rest), now)
            self._rest.clear()

    def _piece(self, size: int, now: float) -> bytes:
        size = _whole_characters(self._rest, size)
        piece = bytes(self._rest[:size])
        del self._rest[:size]
        self._since = now
        return self._line(piece, now, unfinished=True)

    def _line(self, text: bytes, now: float, *, unfinished: bool = False) -> bytes:
        event = _as_shown(text).decode("utf-8", "backslashreplace")
        return encode_line(self.clock.stamp(now), self.level, event, self.logger, _UNFINISHED if unfinished else None)


def _as_shown(line: bytes) -> bytes:
    """Return what a terminal shows of a line: text after a carriage return overwrites the text before it."""
    if b"\r" not in line:
        return line
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1 :]


def _whole_characters(data: bytearray, size: int) -> int:
    """Return at most ``size``, without the beginning of a UTF-8 character whose end is missing or not included."""
    for back in range(1, min(4, size) + 1):
        byte = data[size - back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return size - back if length > back and size > back else size
    return size
