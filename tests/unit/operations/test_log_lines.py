"""A log line for human eyes."""

from __future__ import annotations

import json

import pytest

from modalflow.operations.log_lines import readable


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


@pytest.mark.parametrize("detail", [None, 7, "text", [None], [{}], [{"frames": [None]}]])
def test_a_malformed_detail_is_no_trouble(detail: object) -> None:
    """A task may log anything under any name."""
    assert readable(json.dumps({"event": "e", "error_detail": detail}))[1].startswith(" INFO    e")
