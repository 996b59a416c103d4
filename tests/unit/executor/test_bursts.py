"""The turns of what is submitted together, with a clock that is set by hand."""

from __future__ import annotations

import pytest

from modalflow.executor.submission.bursts import LONGEST, SPACING, WINDOW, Bursts


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_task_alone_starts_at_once() -> None:
    """So does each of many that are submitted one after the other, further apart than a cold start takes."""
    clock = Clock()
    bursts = Bursts(clock)
    for _ in range(5):
        assert bursts.next() == (clock.now, 0.0)
        clock.now += WINDOW


def test_the_tasks_of_a_burst_start_one_after_the_other() -> None:
    """The more of them, the longer the last one waits, up to a limit; then they are closer together."""
    bursts = Bursts(Clock())
    round_trip = round(LONGEST / SPACING)
    turns = [bursts.next().start_after for _ in range(2 * round_trip)]
    assert turns[:3] == [0.0, SPACING, 2 * SPACING]
    assert max(turns) < LONGEST
    assert turns[round_trip:] == pytest.approx(turns[:round_trip])


def test_a_burst_that_is_submitted_slowly_is_one_burst() -> None:
    """A scheduler hands over a few tasks at a time; what began long ago no longer counts."""
    clock = Clock()
    bursts = Bursts(clock)
    began = clock.now
    assert [bursts.next().burst_began_at for _ in range(3)] == [began] * 3
    clock.now += WINDOW / 2
    assert bursts.next() == (began, 3 * SPACING)
    clock.now += WINDOW / 2
    assert bursts.next() == (began + WINDOW / 2, SPACING)


def test_a_clock_that_is_set_back_begins_a_new_burst() -> None:
    """What was submitted in the future is forgotten."""
    clock = Clock()
    bursts = Bursts(clock)
    bursts.next()
    clock.now -= 500.0
    assert bursts.next() == (clock.now, 0.0)
