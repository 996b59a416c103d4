"""Samples of a call over time: bounded while they are taken, and never trusted when they are read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.cost.samples import MOST, Samples, Series
from modalflow.errors import MalformedMessageError

SAMPLES = Samples("fc-1", "ta-1", 1_796_000_000.5, 2.0, (0.5, 1.25), (100, 300))


def test_samples_are_read_as_they_were_written() -> None:
    """All points come back."""
    assert Samples.from_line(SAMPLES.to_line()) == SAMPLES


@settings(max_examples=30)
@given(st.lists(st.floats(0, 32), min_size=1, max_size=500))
def test_a_series_is_bounded_and_keeps_its_sum_and_its_peak(cores: list[float]) -> None:
    """However long a call runs, it has at most the points of a line on a page. Nothing between them is left out."""
    now, used, interval = 10.0, 5.0, 1.0
    series = Series.begin(now, used)
    for number, each in enumerate(cores):
        now, used = now + interval, used + each * interval
        if series.add(now, used, mib=float(number % 97)):
            series.halve()
            interval *= 2
    assert 0 < len(series.cpu) == len(series.mib) < MOST
    assert series.interval == pytest.approx((now - 10.0) / len(series.cpu))
    assert max(series.mib) == max(number % 97 for number in range(len(cores)))
    assert sum(series.cpu) * series.interval == pytest.approx(used - 5.0, abs=1e-6)


def test_time_that_falls_is_no_use() -> None:
    """A process that ended alone takes its seconds with it; a clock that stands still adds no point."""
    series = Series.begin(0.0, 10.0)
    assert not series.add(1.0, 4.0, 1.0) and not series.add(1.0, 5.0, 1.0)
    assert series.cpu == [0.0]


def test_the_line_of_a_full_series_is_short() -> None:
    """About 600 bytes: it is written once for a call of at least two seconds."""
    full = Samples("fc-" + "x" * 22, "ta-" + "x" * 22, 1.5, 64.0, (31.996,) * MOST, (16_384.4,) * MOST)
    assert len(full.to_line()) < 900


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu": [1]}, {"cpu": "11"}, {"cpu": [1, float("nan")]}, {"cpu": [1, -1]}, {"mib": [1, None]},
        {"cpu": [1] * 100_000, "mib": [1] * 100_000}, {"cpu": [1] * 1000, "mib": [1] * 1000}, {"interval": True},
        {"began_at": 1e300}, {"began_at": 9e10, "interval": 9e10}, {"container_id": 4},
    ],
)  # fmt: skip
def test_hostile_samples_are_refused(changes: dict[str, object]) -> None:
    """A task can write to the Volume: whatever is there ends in one kind of error."""
    with pytest.raises(MalformedMessageError):
        Samples.from_line(json.dumps(json.loads(SAMPLES.to_line()) | changes))


@pytest.mark.parametrize("line", ["", "{", "[]", "null", "{}", "[" * 100_000])
def test_what_is_no_object_is_refused(line: str) -> None:
    """As above, for lines of any kind."""
    with pytest.raises(MalformedMessageError):
        Samples.from_line(line)
