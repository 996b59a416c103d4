"""The turns of what is submitted together, with a clock that is set by hand."""

from __future__ import annotations

import pytest

from modalflow.executor.submission.bursts import FLOW, LONGEST, SPACING, Bursts


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_task_alone_starts_at_once() -> None:
    """So does each of a steady flow, however long it lasts: a cold start must not become slower by it."""
    clock = Clock()
    bursts = Bursts(clock)
    for _ in range(200):
        assert bursts.next() == (clock.now, 0.0)
        clock.now += 1.1 / FLOW


def test_the_tasks_of_a_burst_start_one_after_the_other() -> None:
    """The more of them, the longer the last one waits, up to a limit; then they are closer together."""
    bursts = Bursts(Clock())
    round_trip = round(LONGEST / SPACING)
    turns = [bursts.next().start_after for _ in range(2 * round_trip)]
    assert turns[:3] == [0.0, SPACING, 2 * SPACING]
    assert max(turns) < LONGEST
    assert turns[round_trip:] == pytest.approx(turns[:round_trip])


def test_a_burst_that_is_submitted_slowly_is_one_burst() -> None:
    """A scheduler hands over a few tasks at a time, each batch with later turns; after a pause, a new burst begins."""
    clock = Clock()
    bursts = Bursts(clock)
    began = clock.now
    turns = []
    for _ in range(4):
        turns += [bursts.next() for _ in range(16)]
        clock.now += 1.0
    assert {turn.burst_began_at for turn in turns} == {began}
    waits = [turn.start_after for turn in turns]
    assert waits[-1] == max(waits) == pytest.approx((4 * 16 - 1 - 3 * FLOW) * SPACING)
    assert max(map(waits.count, waits)) <= 2
    clock.now += 4 * 16 / FLOW
    assert bursts.next() == (clock.now, 0.0)


def test_a_clock_that_is_set_back_begins_a_new_burst() -> None:
    """What was submitted in the future is forgotten."""
    clock = Clock()
    bursts = Bursts(clock)
    bursts.next()
    clock.now -= 500.0
    assert bursts.next() == (clock.now, 0.0)
