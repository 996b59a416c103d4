"""What a program prints, as lines of a log."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalflow.worker.run.command_output import LineClock, OutputLines


def stream(**options: Any) -> OutputLines:
    return OutputLines("task.stdout", "info", LineClock(), **options)


def events(lines: Any) -> list[str]:
    return [json.loads(line)["event"] for line in lines]


def test_a_line_has_time_level_and_stream() -> None:
    """A printed line is as structured as Airflow's own."""
    [line] = stream().feed(b"hello\n", 1_000_000_000.25)
    assert json.loads(line) == {
        "timestamp": "2001-09-09T01:46:40.250000Z",
        "level": "info",
        "event": "hello",
        "logger": "task.stdout",
    }


@given(st.lists(st.binary(max_size=40)), st.integers(1, 7))
def test_no_byte_is_lost_however_it_arrives(lines: list[bytes], size: int) -> None:
    """Whatever is printed in whatever pieces: every line is there once, and what is not UTF-8 can be read from it."""
    lines = [line.replace(b"\n", b"").replace(b"\r", b"") for line in lines]
    printed, whole = stream(), b"".join(line + b"\n" for line in lines)
    told = [event for at in range(0, len(whole), size) for event in events(printed.feed(whole[at : at + size], 0))]
    assert told == [line.decode("utf-8", "backslashreplace") for line in lines]
    assert printed.due() is None


def test_lines_of_one_moment_have_different_times() -> None:
    """Airflow shows one of two equal lines of the same time, so there are none."""
    stamps = [json.loads(line)["timestamp"] for line in stream().feed(b"same\n" * 1000, 5.0)]
    assert len(set(stamps)) == 1000 and stamps == sorted(stamps)
    assert datetime.fromisoformat(stamps[-1]).timestamp() == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"a\x00b\n", ["a\x00b"]),
        (b"windows\r\n\r\n", ["windows", ""]),
        (b" 10%\r 50%\r100%\n", ["100%"]),
        (b" 10%\r 50%\r\n", [" 50%"]),
        ("grüezi\n".encode(), ["grüezi"]),
        (b"\xff\xfe\n", ["\\xff\\xfe"]),
        (b"\xed\xa0\x80\n", ["\\xed\\xa0\\x80"]),
    ],
)
def test_odd_bytes_are_told_as_a_terminal_would(printed: bytes, shown: list[str]) -> None:
    """NUL stays, carriage returns overwrite, and what is no UTF-8 is written out."""
    assert events(stream().feed(printed, 0)) == shown


def test_what_has_no_end_yet_is_seen_after_a_second() -> None:
    """A prompt is put out, marked as unfinished, and only once; half a character waits for its other half."""
    printed = stream()
    assert not list(printed.feed(b"Password: \xc3", 10.0))
    assert not list(printed.unfinished(10.9)) and printed.due() == 11.0
    [line] = printed.unfinished(11.0)
    assert json.loads(line)["event"] == "Password: " and json.loads(line)["unfinished"] is True
    assert events(printed.feed(b"\xbc ok\n", 12.0)) == ["ü ok"]
    assert not list(printed.close(13.0))


def test_a_progress_bar_shows_its_last_state() -> None:
    """Of what was overwritten within the second, what stood there last."""
    printed = stream()
    assert not list(printed.feed(b"\r 10%\r 20%\r 30%", 0.0))
    assert events(printed.unfinished(1.0)) == [" 30%"]


def test_the_last_line_needs_no_end() -> None:
    """What was printed without a newline is there when the program has ended."""
    printed = stream()
    assert not list(printed.feed(b"the end", 0.0))
    assert events(printed.close(0.0)) == ["the end"]


def test_a_line_without_an_end_takes_no_memory_without_an_end() -> None:
    """A line longer than the limit is put out in pieces, cut between characters."""
    printed = stream(longest=10)
    assert events(printed.feed("üüüüüüüü\n".encode()[:-1], 0.0)) == ["üüüüü"]
    assert events(printed.close(0.0)) == ["üüü"]
