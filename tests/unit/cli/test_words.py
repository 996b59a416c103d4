"""Numbers, times and tables on a terminal."""

from __future__ import annotations

import pytest

from modalflow.cli.terminal.words import counted, duration, table


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (-5, "0 s"), (59.6, "60 s"), (61, "1 min 1 s"), (3725, "1 h 2 min"), (200_000, "2 d 7 h")],
)
def test_a_duration_has_the_two_units_that_matter(seconds: float, said: str) -> None:
    """Nobody counts the seconds of a day."""
    assert duration(seconds) == said


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """And no line ends in spaces."""
    assert table(["a", "bb"], [["long", ""], ["x", "y"]]) == ["  a     bb", "  long", "  x     y"]


def test_one_is_no_plural() -> None:
    """Thousands are told apart."""
    assert (counted(1, "task"), counted(2000, "task")) == ("1 task", "2,000 tasks")


def test_a_cell_is_one_line() -> None:
    """What a container reports of itself cannot end a row, or steer the terminal."""
    assert table(["a"], [["one\ntwo\x1b[2J\udce9"]])[1] == "  one\\ntwo\\x1b[2J\\udce9"
