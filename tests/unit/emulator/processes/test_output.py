"""Bytes that a process writes become lines and pieces of lines."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from modalflow.emulator.processes.output import LONGEST_LINE, Lines

#: What programs print: text of every width, line ends, carriage returns, colours, and bytes that are no text.
PRINTED = st.lists(
    st.one_of(
        st.text(max_size=5).map(lambda text: text.encode(errors="ignore")),
        st.sampled_from([b"\n", b"\r", b"\r\n", b"\x1b[31m", b"\x1b[1;32m", b"\x1b[0m", "äé€😀".encode()]),
        st.binary(max_size=3),
    ),
    max_size=12,
).map(b"".join)


@given(st.lists(st.tuples(PRINTED, st.sampled_from(["", "begun", "drained"]))))
def test_nothing_is_lost_and_no_character_is_cut(written: list[tuple[bytes, str]]) -> None:
    """However the bytes are read, and whenever the beginning of a line is asked for, the pieces make the text."""
    lines, found = Lines(longest=16), []
    for data, then in written:
        found += lines.feed(data)
        if then:
            found.append(getattr(lines, then)())
    found.append(lines.ended())
    whole = b"".join(data for data, _ in written)
    if "�" not in whole.decode(errors="replace"):
        assert "".join(found) == whole.decode()
    assert "".join(found).count("\n") == whole.count(b"\n")


@given(PRINTED.filter(lambda data: "�" not in data.decode(errors="replace")))
def test_byte_by_byte(data: bytes) -> None:
    """A writer of single bytes gets its characters whole, however often somebody asks for what has begun."""
    lines, found = Lines(), []
    for byte in data:
        found += lines.feed(bytes([byte]))
        found.append(lines.begun())
    assert "".join([*found, lines.ended()]) == data.decode()


def test_a_line_ends_with_its_newline() -> None:
    """Each line is delivered on its own, once it has ended."""
    lines = Lines()
    assert lines.feed(b"one\ntwo\nthr") == ["one\n", "two\n"]
    assert lines.has_rest
    assert lines.feed(b"ee\n") == ["three\n"]
    assert not lines.has_rest


def test_the_beginning_of_a_line_is_had_once() -> None:
    """What was delivered as a beginning does not come again with the end."""
    lines = Lines()
    lines.feed(b"loading...")
    assert lines.begun() == "loading..."
    assert lines.begun() == ""
    assert lines.feed(b"done\n") == ["done\n"]


def test_control_sequences_stay_whole() -> None:
    """The beginning of a colour waits for its end; at the end of the process it comes as it is."""
    lines = Lines()
    lines.feed(b"red \x1b[3")
    assert lines.begun() == "red "
    assert lines.begun() == ""
    assert lines.feed(b"1mx\n") == ["\x1b[31mx\n"]
    lines.feed(b"\x1b[3")
    assert lines.ended() == "\x1b[3"


def test_an_incomplete_character_comes_at_the_end() -> None:
    """Garbage that looks like the beginning of a character is shown as such when nothing more can come."""
    lines = Lines()
    lines.feed(b"x\xe2\x82")
    assert lines.drained() == "x"
    assert lines.ended() == "�"


def test_a_line_of_ten_megabytes() -> None:
    """A line without end comes in pieces of bounded size, in time that grows with its length alone."""
    line = "ä€x".encode() * (10 * 2**20 // 6)
    lines, found = Lines(), []
    source = random.Random(0)
    start = 0
    while start < len(line):
        size = source.randint(1, 65536)
        found += lines.feed(line[start : start + size])
        start += size
    found += lines.feed(b"\n")
    assert "".join(found) == line.decode() + "\n"
    assert max(len(piece.encode()) for piece in found) <= LONGEST_LINE + 65536
