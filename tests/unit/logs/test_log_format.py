"""The lines of task logs: one format, whichever process writes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from modalflow.logs.log_format import encode_line, log_line, timestamp
from modalflow.logs.log_volume import Line

MOMENT = datetime(2026, 11, 28, 23, 59, 59, 7, tzinfo=UTC)
STAMP = "2026-11-28T23:59:59.000007Z"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXTS, st.dictionaries(TEXTS, TEXTS | st.integers() | st.booleans(), max_size=3))
def test_any_text_is_one_line_of_json(event: str, context: dict[str, object]) -> None:
    """With the fields of every line first, whatever a program prints and whatever is added."""
    fields = {"timestamp": STAMP, "level": "info", "event": event, "logger": "task.stdout"}
    line = encode_line(STAMP, "info", event, "task.stdout", {f"x{name}": value for name, value in context.items()})
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert list(json.loads(line).items()) == [
        *fields.items(),
        *((f"x{name}", value) for name, value in context.items()),
    ]


def test_lines_of_our_own_are_safe_to_show() -> None:
    """What a terminal or a database would act on is not in them."""
    line = json.loads(log_line("error", "red \x1b[31m\x00", "modalflow.worker", MOMENT, where="a\nb", number=3))
    assert (line["timestamp"], line["where"], line["number"]) == (STAMP, r"a\nb", 3)
    assert "\x1b" not in line["event"] and "\x00" not in line["event"]


def test_times_are_in_utc_with_microseconds() -> None:
    """Also a whole second, and one of another zone: lines sort by them."""
    there = MOMENT.replace(microsecond=0).astimezone(timezone(timedelta(hours=2)))
    assert timestamp(there) == "2026-11-28T23:59:59.000000Z"


def test_the_executors_lines_have_the_workers_format() -> None:
    """The same fields in the same order, and a time that its file is named by."""
    line = Line.now("dag_id=d/attempt=1.log", "waits", "warning")
    read = json.loads(line.content)
    assert list(read) == ["timestamp", "level", "event", "logger"] and read["logger"] == "modalflow.executor"
    assert line.name == f"{read['timestamp'].replace('-', '').replace(':', '')}-executor.log"
