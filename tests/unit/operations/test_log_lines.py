"""A log line for human eyes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from modalflow.operations.log_lines import readable
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
