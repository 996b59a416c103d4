"""Decode the output of a process: complete lines, and sometimes the beginning of one.

No I/O and no clock. Never splits a character or a terminal's control sequence.
"""

from __future__ import annotations

import re

#: Bytes of an incomplete line to keep. A longer line is delivered in pieces.
LONGEST_LINE = 64 * 1024

#: Bytes at the end that may begin a control sequence. Longer sequences are treated as text.
_LONGEST_SEQUENCE = 64

#: An ECMA-48 control sequence (colours, cursor movements) without its last byte.
_BEGUN_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*)?\Z")


class Lines:
    """One output of a process."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._rest = bytearray()

    @property
    def has_rest(self) -> bool:
        """Return whether the beginning of a line is undelivered."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Add bytes; return the completed lines, and pieces of a line that is too long."""
        *ended, last = data.split(b"\n")
        found = []
        for line in ended:
            self._rest += line
            found.append(self._rest.decode(errors="replace") + "\n")
            self._rest.clear()
        self._rest += last
        while len(self._rest) >= self._longest:
            found.append(self._take(_whole(self._rest, self._longest)))
        return found

    def begun(self) -> str:
        """Return the beginning of a line, or ``""``; later text continues it."""
        return self._take(_without_sequence(self._rest, _whole(self._rest, len(self._rest))))

    def drained(self) -> str:
        """Return all text except an incomplete character, whose last bytes may still arrive."""
        return self._take(_whole(self._rest, len(self._rest)))

    def ended(self) -> str:
        """Return all remaining text at the end of the output."""
        return self._take(len(self._rest))

    def _take(self, size: int) -> str:
        taken = self._rest[:size].decode(errors="replace")
        del self._rest[:size]
        return taken


def _whole(data: bytearray, size: int) -> int:
    """Return at most ``size``, without an incomplete UTF-8 character at the end."""
    for back in range(1, min(4, size) + 1):
        byte = data[size - back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if 0xF0 <= byte < 0xF5 else 3 if 0xE0 <= byte < 0xF0 else 2 if 0xC2 <= byte < 0xE0 else 1
        return size - back if length > back else size
    return size


def _without_sequence(data: bytearray, size: int) -> int:
    start = max(size - _LONGEST_SEQUENCE, 0)
    begun = _BEGUN_SEQUENCE.search(data[start:size])
    return size if begun is None else start + begun.start()
