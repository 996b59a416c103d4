"""Numbers and tables on a terminal."""

from __future__ import annotations

from modalflow.cli.terminal.words import counted, table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """And no line ends in spaces."""
    assert table(["a", "bb"], [["long", ""], ["x", "y"]]) == ["  a     bb", "  long", "  x     y"]


def test_one_is_no_plural() -> None:
    """Thousands are told apart."""
    assert (counted(1, "task"), counted(2000, "task")) == ("1 task", "2,000 tasks")


def test_a_cell_is_one_line() -> None:
    """What a container reports of itself cannot end a row, or steer the terminal."""
    assert table(["a"], [["one\ntwo\x1b[2J\udce9"]])[1] == "  one\\ntwo\\x1b[2J\\udce9"
