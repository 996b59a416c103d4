"""Timelines within usage records: written, read by another version, and never trusted."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.cost.recorded_call import RecordedCall
from modalflow.cost.timeline import NO_TIMELINE, REASON, Timeline
from modalflow.cost.usage import Record
from modalflow.errors import MalformedMessageError

AT = 1_796_000_000.125

RECORD = Record("fc-1", "ta-1", AT, "d", "t", "r", running=2.0)

FULL = Timeline(
    submitted_at=AT - 3.5,
    spawned_at=AT - 3,
    container_started_at=AT - 2.25,
    claimed_at=AT + 0.125,
    started_at=AT + 0.25,
    first_line_at=AT + 0.5,
    task_ended_at=AT + 1.75,
    reported_at=AT + 1.875,
    is_cold_start=True,
    number=1,
    image="im-1",
    region="us-east",
    cloud="aws",
    asked={"memory": [1024, 2048], "gpu": "T4", "nonpreemptible": True},
    sized={"memory": 3},
    cause="out-of-memory",
    reason="It needed more.",
)


def line_with(timeline: Any) -> str:
    return json.dumps(json.loads(RECORD.to_line()) | {"timeline": timeline})


def test_a_timeline_is_read_as_it_was_written() -> None:
    """Every moment and option comes back, from the line of the record."""
    call = RecordedCall.from_line(RECORD.to_line(FULL))
    assert (call.record, call.timeline, call.samples) == (RECORD, FULL, None)
    assert all(getattr(FULL, f.name) != f.default for f in dataclasses.fields(Timeline)), "a field is not tested"


def test_readers_of_costs_pass_it_over() -> None:
    """A record is the same with a timeline and without one, whatever the timeline is."""
    assert Record.from_line(RECORD.to_line(FULL)) == RECORD == Record.from_line(line_with("?"))


def test_a_record_of_an_older_worker_has_an_empty_timeline() -> None:
    """Its moments are unknown, which is no error."""
    assert RecordedCall.from_line(RECORD.to_line()) == RecordedCall(RECORD, NO_TIMELINE)


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    """A newer worker may write more."""
    assert RecordedCall.from_line(line_with({"number": 3, "future": [{}]})).timeline == Timeline(number=3)


def test_a_timeline_stays_short() -> None:
    """That of a usual task is below 350 bytes, and a reason is cut."""
    usual = dataclasses.replace(FULL, asked={}, sized={}, cause="", reason="", image="im-" + "x" * 22)
    assert len(RECORD.to_line(usual)) - len(RECORD.to_line()) < 350
    wire = Timeline(reason="no\n" * 10_000).to_wire(AT)
    assert len(wire["reason"]) == REASON and "\n" not in wire["reason"]


@pytest.mark.parametrize(
    "timeline",
    [
        None, [], "x", 1,
        {"started_at": "now"}, {"started_at": float("nan")}, {"started_at": 1e300}, {"started_at": True},
        {"number": 1.5}, {"is_cold_start": 1}, {"image": 7}, {"reason": ["x"]},
        {"asked": []}, {"asked": {"cpu": {}}}, {"asked": {"cpu": [[1]]}}, {"asked": {"cpu": float("inf")}},
        {"asked": dict.fromkeys(map(str, range(1000)), 1)}, {"sized": {"cpu": "1"}},
    ],
)  # fmt: skip
def test_a_hostile_timeline_counts_as_none(timeline: object) -> None:
    """A task can write to the Volume: its record is valid, and nothing of the timeline is shown."""
    with pytest.raises(MalformedMessageError):
        Timeline.from_wire(timeline, AT)
    assert RecordedCall.from_line(line_with(timeline)) == RecordedCall(RECORD, NO_TIMELINE)


def test_hostile_texts_are_made_safe() -> None:
    """No control characters, no endless texts and no endless lists get to a page."""
    asked = {"x\x1b[2J": "\x1b]0;", "gpu": ["T4"] * 10_000}
    timeline = RecordedCall.from_line(line_with({"image": "i" * 10_000, "reason": "a\x00b", "asked": asked})).timeline
    assert len(timeline.image) <= 128 and "\x00" not in timeline.reason
    assert "\x1b" not in str(timeline.asked) and len(timeline.asked["gpu"]) <= 32


@settings(max_examples=60)
@given(
    st.sampled_from([f.name for f in dataclasses.fields(Timeline)]),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda kids: st.dictionaries(st.text(), kids) | st.lists(kids),
        max_leaves=5,
    ),
)
def test_nothing_else_is_raised(name: str, value: object) -> None:
    """As above, for any JSON in any field."""
    assert RecordedCall.from_line(line_with({name: value})).record == RECORD
