"""A container's time, divided."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from modalflow.cost.meter import Meter, Share


def test_a_call_alone_has_all_of_the_container() -> None:
    """The first call pays for the start of the container, the next one for the wait between them."""
    meter = Meter(born=100.0)
    meter.begin("a", 103.0)
    assert meter.end("a", 105.0) == Share(own=2.0, cold=3.0)
    meter.begin("b", 115.0)
    assert meter.end("b", 116.0) == Share(own=1.0, idle=10.0)


def test_calls_side_by_side_share_the_seconds_that_they_share() -> None:
    """Two at once pay half each, and only for as long as there are two."""
    meter = Meter(born=0.0)
    meter.begin("long", 0.0)
    meter.begin("short", 4.0)
    assert meter.end("short", 6.0).own == 1.0
    assert meter.end("long", 10.0).own == 9.0


def test_what_a_call_without_work_had_is_the_next_ones() -> None:
    """A repeated spawn that finds its work done leaves no hole in the sum."""
    meter = Meter(born=0.0)
    meter.begin("twice", 2.0)
    meter.drop("twice", 3.0)
    meter.begin("next", 5.0)
    assert meter.end("next", 6.0) == Share(own=1.0, idle=5.0)


def test_a_clock_that_goes_backwards_takes_nothing_away() -> None:
    """No share is negative."""
    meter = Meter(born=10.0)
    meter.begin("a", 5.0)
    assert meter.end("a", 4.0).whole == 0.0


@given(st.lists(st.tuples(st.floats(0, 1e4), st.sampled_from("abcdef"), st.booleans()), max_size=60))
def test_the_shares_add_up_to_the_time_of_the_container(moves: list[tuple[float, str, bool]]) -> None:
    """Whatever begins, ends and is dropped when, every second of the container is somebody's, once."""
    meter, now, told = Meter(born=0.0), 0.0, 0.0
    open_calls: set[str] = set()
    for passed, call, dropped in moves:
        now += passed
        if call not in open_calls:
            meter.begin(call, now)
            open_calls.add(call)
            continue
        open_calls.remove(call)
        if dropped:
            meter.drop(call, now)
        else:
            told += meter.end(call, now).whole
    meter.begin("last", now)
    assert math.isclose(told + meter.pending, now, rel_tol=1e-9, abs_tol=1e-6)
