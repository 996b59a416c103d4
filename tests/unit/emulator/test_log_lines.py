"""Pieces of lines are lines again: for those who fetch a log, and on a terminal while they come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modal_proto import api_pb2

from modalflow.emulator.logs.log_lines import LONGEST_JOINED, NARROW, Terminal, Unfinished, ended, joined, merged
from modalflow.emulator.logs.log_records import LogEntry

OUT, ERR = api_pb2.FILE_DESCRIPTOR_STDOUT, api_pb2.FILE_DESCRIPTOR_STDERR


def entries(*pieces: tuple[str, str], source: int = OUT) -> list[LogEntry]:
    """Entries of a log: (container, text) each."""
    unfinished = Unfinished()
    return [
        unfinished.marked(LogEntry(number, number * 10, text, source, container, "fu-1", "fu-1", "fc-1", "in-1"))
        for number, (container, text) in enumerate(pieces, 1)
    ]


def texts(found: Any) -> list[str]:
    return [entry.data for entry in found]


class Screen:
    """What the SDK prints, on a terminal that is wide enough."""

    def __init__(self) -> None:
        self.rows, self.row, self.column = [""], 0, 0
        self._buffers: dict[int, Any] = {}

    def put(self, entry: LogEntry) -> None:
        # It is private to the SDK, and may have another place in another version.
        rich = pytest.importorskip("modal._output.rich")
        buffer = self._buffers.setdefault(entry.source, rich.LineBufferedOutput(self._print, False))
        buffer.write(api_pb2.TaskLogs(data=entry.data))

    def end_stream(self) -> None:
        for buffer in self._buffers.values():
            buffer.finalize()

    def _print(self, text: str) -> None:
        # Of carriage returns within a line rich shows nothing: it strips control characters.
        for part in text.replace("\x1b[1A", "\0").replace("\r", ""):
            if part == "\0":
                self.row, self.column = max(self.row - 1, 0), 0
            elif part == "\n":
                self.row, self.column = self.row + 1, 0
                if self.row == len(self.rows):
                    self.rows.append("")
            else:
                row = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = row[: self.column] + part + row[self.column + 1 :]
                self.column += 1

    @property
    def shown(self) -> list[str]:
        return [row for row in self.rows if row]


def test_a_prompt_is_on_the_screen_before_its_line_ends() -> None:
    """An unfinished line is shown, and what continues it stands behind it, in the same row."""
    first, second = entries(("ta-1", "loading..."), ("ta-1", "done\n"))
    terminal, screen = Terminal(), Screen()
    for entry in terminal.shown([first]):
        screen.put(entry)
    assert screen.shown == ["loading..."]
    for entry in terminal.shown([second]):
        screen.put(entry)
    assert screen.shown == ["loading...done"]


def test_a_progress_bar_stays_in_its_row() -> None:
    """Each state overwrites the one before, and is shown when it comes; states in one piece show the last."""
    terminal, screen = Terminal(), Screen()
    for piece, shown in (("\r  0%", "  0%"), ("\r 20%\r 40%", " 40%"), ("\r 60%", " 60%"), ("\r100%", "100%")):
        (entry,) = entries(("ta-1", piece))
        for sent in terminal.shown([entry]):
            screen.put(sent)
        assert screen.shown == [shown]


def test_an_unfinished_line_is_not_glued_to_that_of_another_container() -> None:
    """What another container prints meanwhile has its own row, and the line is shown whole when it ends."""
    terminal, screen = Terminal(), Screen()
    for entry in terminal.shown(entries(("ta-1", "loading..."), ("ta-2", "other\n"), ("ta-1", "done\n"))):
        screen.put(entry)
    assert screen.shown == ["loading...", "other", "loading...done"]


def test_both_outputs_of_one_container_keep_apart() -> None:
    """A warning while a line is unfinished does not end up in its row."""
    out, rest = entries(("ta-1", "loading..."), ("ta-1", "done\n"))
    (err,) = entries(("ta-1", "warning\n"), source=ERR)
    terminal, screen = Terminal(), Screen()
    for entry in terminal.shown([out, err, rest]):
        screen.put(entry)
    assert screen.shown == ["loading...", "warning", "loading...done"]


def test_a_stream_that_ends_leaves_the_row_and_the_next_one_goes_on() -> None:
    """The SDK asks again after a while: the line that was unfinished then is shown whole by the next stream."""
    first, second = entries(("ta-1", "loading..."), ("ta-1", "done\n"))
    screen = Screen()
    terminal = Terminal()
    for entry in (*terminal.shown([first]), *terminal.left()):
        screen.put(entry)
    screen.end_stream()
    assert screen.row == 1, "what is printed next must not overwrite it"
    for entry in Terminal(seen=[first]).shown([second]):
        screen.put(entry)
    assert screen.shown == ["loading...", "loading...done"]


def test_a_wide_line_goes_on_in_the_next_row() -> None:
    """A line that may take two rows of a terminal is not sent twice."""
    wide = "." * (NARROW + 1)
    terminal, screen = Terminal(), Screen()
    for entry in terminal.shown(entries(("ta-1", wide), ("ta-1", "!\n"))):
        screen.put(entry)
    assert screen.shown == [wide, "!"]


def test_colours_take_no_room() -> None:
    """A short text between long control sequences counts as short."""
    coloured = "\x1b[38;5;196m" * 9 + "ok?"
    assert texts(Terminal().shown(entries(("ta-1", coloured)))) == [coloured + "\r"]


def test_a_very_long_line_is_shown_while_it_comes() -> None:
    """A line of many pieces loses nothing, and the SDK never has more of it to search than a piece."""
    piece = "x" * LONGEST_JOINED
    pieces = entries(("ta-1", piece), ("ta-1", piece), ("ta-1", "y\n"))
    assert texts(Terminal().shown(pieces)) == [piece + "\n", piece + "\n", "y\n"]
    assert texts(merged(pieces)) == [piece + piece + "y\n"]
    assert "".join(texts(reversed(list(joined(reversed(pieces)))))) == piece + piece + "y\n"


PIECES = st.lists(
    st.tuples(
        st.sampled_from(["ta-1", "ta-2", "ta-3"]),
        st.text("abc", min_size=1, max_size=4),
        st.booleans(),
    ),
    max_size=20,
)


@given(PIECES, st.lists(st.booleans(), min_size=20, max_size=20))
def test_whoever_prints_in_whatever_order(pieces: list[tuple[str, str, bool]], apart: list[bool]) -> None:
    """On the screen each line stands whole in a row; a row shows a line, or a beginning of one, and nothing else."""
    log = entries(*((container, f"{container[-1]}{text}" + "\n" * end) for container, text, end in pieces))
    lines = {entry.data.rstrip("\n") for entry in joined(reversed(log))}
    terminal, screen = Terminal(), Screen()
    together: list[LogEntry] = []
    for entry, alone in zip(log, apart, strict=False):
        together.append(entry)
        if alone:
            for sent in terminal.shown(merged(together)):
                screen.put(sent)
            together = []
    for sent in (*terminal.shown(merged(together)), *terminal.left()):
        screen.put(sent)
    screen.end_stream()
    assert lines <= set(screen.shown)
    assert all(any(line.startswith(row) for line in lines) for row in screen.shown)


@given(PIECES)
def test_fetched_lines_are_whole(pieces: list[tuple[str, str, bool]]) -> None:
    """Each container's text is what it printed, with one entry a line, in the order in which the lines began."""
    log = entries(*((container, text + "\n" * end) for container, text, end in pieces))
    found = list(joined(reversed(log)))[::-1]
    assert [e.number for e in found] == sorted(e.number for e in found)
    for container in ("ta-1", "ta-2", "ta-3"):
        printed = "".join(entry.data for entry in log if entry.container_id == container)
        assert texts(e for e in found if e.container_id == container) == printed.splitlines(keepends=True)


def test_lines_of_several_containers_are_ended_for_a_reader_of_all() -> None:
    """The SDK prints fetched entries one after another: an unfinished line is ended where another one's follows."""
    assert texts(ended(entries(("ta-1", "a"), ("ta-2", "b\n"), ("ta-1", "c")))) == ["a\n", "b\n", "c"]


def test_an_input_does_not_continue_the_line_of_another() -> None:
    """What an input left unfinished is its own, also if the next one in the same container prints at once."""
    unfinished = Unfinished()
    first = unfinished.marked(LogEntry(1, 1, "a", OUT, "ta-1", "fu-1", "fu-1", "fc-1", "in-1"))
    second = unfinished.marked(LogEntry(2, 2, "b\n", OUT, "ta-1", "fu-1", "fu-1", "fc-2", "in-2"))
    assert texts(joined([second, first])) == ["b\n", "a"]
