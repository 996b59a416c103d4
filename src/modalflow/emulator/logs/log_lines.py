"""Pieces of lines joined to lines again, for readers who fetch a log and for readers who follow one.

Containers deliver the beginning of a line before its end. This module has no clock and does no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

from modalflow.emulator.logs.log_records import LogEntry

#: The most characters of pieces that are joined to one line: a progress bar may run for hours.
LONGEST_JOINED = 64 * 1024

#: The most characters of pieces that are sent as one.
LONGEST_MERGED = 2**20

#: The most visible characters of an unfinished line that is sent again with its continuation. A longer line may take
#: two rows of a terminal, and a carriage return leads back to the second one only: it is shown in several rows.
NARROW = 80

#: The most unfinished lines that are remembered, one for each output of a container.
MOST_UNFINISHED = 1_000

_Place: TypeAlias = tuple[str, int, str, str]

_INVISIBLE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def _place(entry: LogEntry) -> _Place:
    """Return the fields that all pieces of one line share."""
    return entry.container_id, entry.source, entry.function_call_id, entry.input_id


class Unfinished:
    """The lines without an end, which tell whether an entry continues one."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[str, int], tuple[_Place, int]] = {}

    def marked(self, entry: LogEntry) -> LogEntry:
        """Return the next entry with its ``continues`` set."""
        place = _place(entry)
        before, size = self._sizes.pop(place[:2], (place, 0))
        continues = before == place and 0 < size < LONGEST_JOINED
        if not entry.data.endswith("\n"):
            self._sizes[place[:2]] = place, len(entry.data) + (size if continues else 0)
            if len(self._sizes) > MOST_UNFINISHED:
                del self._sizes[next(iter(self._sizes))]
        return replace(entry, continues=True) if continues else entry


def joined(newest_first: Iterable[LogEntry]) -> Iterator[LogEntry]:
    """Yield whole lines, newest first; each has the number and the time of its first piece."""
    rests: dict[_Place, list[LogEntry]] = {}
    for entry in newest_first:
        if entry.continues:
            rests.setdefault(_place(entry), []).append(entry)
        elif rests and (rest := rests.pop(_place(entry), None)):
            yield _one([entry, *reversed(rest)], entry.number)
        else:
            yield entry
    # The beginnings of these lines are forgotten.
    for rest in rests.values():
        yield _one(rest[::-1], rest[-1].number)


def merged(entries: Iterable[LogEntry]) -> Iterator[LogEntry]:
    """Join adjacent pieces of lines. A joined entry has the number of its last piece."""
    pieces: list[LogEntry] = []
    size = 0
    for entry in entries:
        if pieces and (pieces[-1].data.endswith("\n") or _place(entry) != _place(pieces[0]) or size >= LONGEST_MERGED):
            yield _one(pieces, pieces[-1].number)
            pieces, size = [], 0
        pieces.append(entry)
        size += len(entry.data)
    if pieces:
        yield _one(pieces, pieces[-1].number)


def _one(pieces: list[LogEntry], number: int) -> LogEntry:
    if len(pieces) == 1:
        return pieces[0]
    return replace(pieces[0], number=number, data="".join(piece.data for piece in pieces))


def ended(entries: Iterable[LogEntry]) -> Iterator[LogEntry]:
    """End each line that is followed by an entry from another place: the SDK prints entries one after another."""
    before: LogEntry | None = None
    for entry in entries:
        if before is not None:
            has_end = before.data.endswith("\n") or _place(before) == _place(entry)
            yield before if has_end else replace(before, data=before.data + "\n")
        before = entry
    if before is not None:
        yield before


class Terminal:
    """Pieces of lines as the SDK's output expects them: an unfinished line ends with a carriage return.

    The SDK (``modal._output.rich.LineBufferedOutput``) holds back text without an end, and prints a line that ends with
    a carriage return so that the next one overwrites it. Therefore an unfinished line is sent with a carriage return,
    and sent again as a whole with its continuation. If another output comes between, the unfinished line keeps its row.
    Text that a line has overwritten itself is not sent: the SDK shows nothing before a carriage return within a line.
    """

    def __init__(self, seen: Iterable[LogEntry] = ()) -> None:
        """``seen`` are the entries that the reader got on an earlier stream."""
        self._begun: dict[_Place, str] = {}
        self._open: LogEntry | None = None
        for _ in self.shown(seen):
            pass
        self._open = None

    def shown(self, entries: Iterable[LogEntry]) -> Iterator[LogEntry]:
        """Yield the entries to send for the next entries of the log."""
        for entry in entries:
            place = _place(entry)
            if self._open is not None and _place(self._open) != place:
                yield from self.left()
            begun = self._begun.pop(place, "") if entry.continues else ""
            self._open = None
            yield replace(entry, data=self._with_end(entry, begun + entry.data))

    def left(self) -> Iterator[LogEntry]:
        """Yield the end of an unfinished line, before other output is printed: the line keeps its row."""
        if self._open is not None:
            yield replace(self._open, data="\n")
            self._open = None

    def _with_end(self, entry: LogEntry, data: str) -> str:
        text = data.rstrip("\r\n")
        end = data[len(text) :]
        shown = text.rpartition("\r")[2]
        if end.endswith("\n"):
            return shown + end
        if end:
            self._remember(entry, "")
            return shown + end
        if len(_INVISIBLE.sub("", shown)) > NARROW:
            # Otherwise, in a line of megabytes, the SDK would search all of it again at each piece.
            return shown + "\n"
        self._remember(entry, shown)
        return shown + "\r"

    def _remember(self, entry: LogEntry, begun: str) -> None:
        self._open = entry
        self._begun[_place(entry)] = begun
        if len(self._begun) > MOST_UNFINISHED:
            del self._begun[next(iter(self._begun))]
