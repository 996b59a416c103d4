"""How the bytes that a process writes become text: whole lines, and now and then the beginning of one.

Pure: knows no pipe and no clock. It never cuts a character or a terminal's control sequence in two.
"""

from __future__ import annotations

import re

#: Bytes of a line that are held back for its end. A longer line is delivered in pieces.
LONGEST_LINE = 64 * 1024

#: Bytes at an end that may be the beginning of a control sequence. A longer one is taken for text.
_LONGEST_SEQUENCE = 64

#: A control sequence of ECMA-48 (colours, cursor movements) that lacks its last byte.
_BEGUN_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*)?\Z")


class Lines:
    """One output of a process."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._rest = bytearray()

    @property
    def has_rest(self) -> bool:
        """Whether there is the beginning of a line that was not delivered."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Take what was written; return the lines that it ends, and pieces of one that is too long."""
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
        """Return the beginning of a line, empty if there is none; what follows is then its continuation."""
        return self._take(_without_sequence(self._rest, _whole(self._rest, len(self._rest))))

    def drained(self) -> str:
        """Return all of it except a character that is not complete: its rest may be under way."""
        return self._take(_whole(self._rest, len(self._rest)))

    def ended(self) -> str:
        """Return all that there is; no more will come."""
        return self._take(len(self._rest))

    def _take(self, size: int) -> str:
        taken = self._rest[:size].decode(errors="replace")
        del self._rest[:size]
        return taken


def _whole(data: bytearray, size: int) -> int:
    """Return at most ``size``, less the beginning of a UTF-8 character whose end is not among these bytes."""
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
