"""Log lines for human eyes, and their order."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.operations.log_lines import in_order_of_time, readable
from tests.strange import JSON_VALUES, TEXTS


def test_a_structured_line_reads_as_one() -> None:
    """Time, level, message and what else it says; what every line repeats is left out."""
    line = {
        "timestamp": "2026-01-02T03:04:05.678901+00:00",
        "level": "warning",
        "event": "almost full",
        "logger": "task",
        "dag_id": "d",
        "used": 93,
        "path": "/a b",
    }
    assert readable(json.dumps(line)) == (
        "warning",
        '2026-01-02T03:04:05.678Z WARNING almost full  used=93  path="/a b"',
    )


def test_an_exception_reads_as_a_traceback() -> None:
    """File, line and function of each frame, then what was raised."""
    frames = [{"filename": "/dags/d.py", "lineno": 7, "name": "load"}]
    detail = [{"exc_type": "ValueError", "exc_value": "no rows", "frames": frames}]
    _, text = readable(json.dumps({"timestamp": "", "level": "error", "event": "Task failed", "error_detail": detail}))
    assert text.splitlines()[1:] == ["    /dags/d.py:7 in load", "  ValueError: no rows"]


@pytest.mark.parametrize("line", ["plain words", "[1, 2]", '{"a": 1}', "", "{broken", '"text"'])
def test_what_is_printed_stays_as_it_is(line: str) -> None:
    """A raw command's output is nobody's JSON, even where it looks like it."""
    assert readable(line) == ("", line)


@pytest.mark.parametrize("detail", [None, 7, "text", [None], [{}], [{"frames": [None]}], [{"frames": 7}]])
def test_a_malformed_detail_is_no_trouble(detail: object) -> None:
    """A task may log anything under any name."""
    assert readable(json.dumps({"event": "e", "error_detail": detail}))[1].startswith(" INFO    e")


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        ("caf\udce9", "caf\\udce9"),
        ("\x1b]0;owned\x07\x1b[2J\u202e", "\\x1b]0;owned\\x07\\x1b[2J\\u202e"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("[/red] [bold]", "[/red] [bold]"),
    ],
)
def test_a_terminal_only_shows_it(event: str, shown: str) -> None:
    """Colours stay; what would steer the terminal, or cannot be encoded, is written out."""
    assert readable(json.dumps({"event": event}))[1].endswith(shown)
    assert readable(event) == ("", shown)


@settings(deadline=None)
@given(TEXTS, JSON_VALUES)
def test_any_line_can_be_shown(text: str, value: object) -> None:
    """Whatever a task has written to its log."""
    for line in (text, json.dumps(value), json.dumps({"event": value, text: value, "error_detail": [value]})):
        level, shown = readable(line)
        f"{level}{shown}".encode()
    assert readable("[" * 100_000)[0] == ""


def at(second: int, event: str) -> str:
    """A structured line of a second."""
    return json.dumps({"timestamp": f"2026-01-02T03:04:{second:02}.5Z", "event": event})


def test_a_triggers_lines_stand_between_those_of_the_calls() -> None:
    """A deferred task has a function call, a trigger and another call: the files' names do not tell that order."""
    calls = [("1.log", [at(1, "a"), at(2, "deferred")]), ("2.log", [at(8, "resumed")])]
    trigger = ("trigger-7-host.log", [at(3, "waits"), "Traceback", at(5, "fired")])
    expected = [at(1, "a"), at(2, "deferred"), at(3, "waits"), "Traceback", at(5, "fired"), at(8, "resumed")]
    assert in_order_of_time([*calls, trigger], {}) == expected


def test_a_followers_later_lines_know_the_earlier_ones() -> None:
    """A line without a time follows the line before it, even if that one was shown a second ago."""
    latest: dict[str, float] = {}
    in_order_of_time([("a", [at(1, "x")]), ("b", [at(4, "y")])], latest)
    assert in_order_of_time([("a", [at(5, "z")]), ("b", ["its second row"])], latest) == ["its second row", at(5, "z")]


def test_the_zone_of_a_time_counts() -> None:
    """Airflow and a task's own logger may write other zones, or none, which means UTC."""
    early, late = '{"timestamp": "2026-01-02T04:00:00+02:00"}', '{"timestamp": "2026-01-02T03:00:00"}'
    assert in_order_of_time([("a", [late]), ("b", [early])], {}) == [early, late]


@pytest.mark.parametrize("stamp", ['"0001-01-01T00:00:00+23:59"', '"yesterday"', "7", "null", "NaN"])
def test_a_malformed_time_is_no_time(stamp: str) -> None:
    """A task may write anything there."""
    odd = f'{{"timestamp": {stamp}}}'
    assert in_order_of_time([("a", [at(5, "x"), odd]), ("b", [at(1, "y")])], {}) == [at(1, "y"), at(5, "x"), odd]


@given(st.lists(st.lists(st.integers(0, 9) | st.none(), max_size=6), max_size=4))
def test_each_writers_lines_keep_their_order(seconds: list[list[int | None]]) -> None:
    """Whatever their times are, and nothing is lost or shown twice."""
    files = [
        (
            str(writer),
            [f"{writer}.{n}" if second is None else at(second, f"{writer}.{n}") for n, second in enumerate(own)],
        )
        for writer, own in enumerate(seconds)
    ]
    merged = in_order_of_time(files, {})
    for _, own in files:
        assert [line for line in merged if line in own] == own
    assert len(merged) == sum(len(own) for _, own in files)
