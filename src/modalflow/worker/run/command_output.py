"""What a program prints, as structured lines. Pure: knows no file and no clock.

A line is put out when it ends. What has no end yet is put out after a second as a line that says so, so that a
prompt or a progress bar is seen while it is there; of a line that was overwritten with carriage returns, its last
state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from json.encoder import encode_basestring

#: Seconds after which a line is put out although it has no end yet.
UNFINISHED_AFTER = 1.0

#: Bytes of a line that are put out at once. What is longer is put out in pieces.
LONGEST_LINE = 2 << 20


class Clock:
    """Stamps lines, each later than the one before: Airflow takes an equal line of the same time for a repetition."""

    def __init__(self) -> None:
        self._last = 0
        self._second = -1
        self._text = ""

    def stamp(self, now: float) -> str:
        """A time in seconds since the epoch, as text of microseconds."""
        self._last = max(int(now * 1_000_000), self._last + 1)
        second, micros = divmod(self._last, 1_000_000)
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{micros:06}Z"


@dataclass
class Printed:
    """One stream of a program."""

    logger: str
    level: str
    clock: Clock
    longest: int = LONGEST_LINE
    _rest: bytearray = field(default_factory=bytearray)
    _since: float = 0.0

    def feed(self, data: bytes, now: float) -> Iterator[bytes]:
        """Take what was printed at a time; return the lines that it ends."""
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
        """When to call ``unfinished``; None if there is nothing that waits."""
        return self._since + UNFINISHED_AFTER if self._rest else None

    def unfinished(self, now: float) -> Iterator[bytes]:
        """What has waited for the end of its line for too long."""
        if self._rest and now >= self._since + UNFINISHED_AFTER:
            yield self._piece(len(self._rest), now)

    def close(self, now: float) -> Iterator[bytes]:
        """What was printed last, and never got the end of its line."""
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
        event = encode_basestring(_as_shown(text).decode("utf-8", "backslashreplace"))
        more = ',"unfinished":true' if unfinished else ""
        stamp = self.clock.stamp(now)
        line = f'{{"timestamp":"{stamp}","level":"{self.level}","event":{event},"logger":"{self.logger}"{more}}}\n'
        return line.encode()


def _as_shown(line: bytes) -> bytes:
    """What a terminal shows of a line: what comes after a carriage return overwrites what was there."""
    if b"\r" not in line:
        return line
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1 :]


def _whole_characters(data: bytearray, size: int) -> int:
    """At most ``size``, without the beginning of a UTF-8 character whose end has not come or is not included."""
    for back in range(1, min(4, size) + 1):
        byte = data[size - back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return size - back if length > back and size > back else size
    return size
