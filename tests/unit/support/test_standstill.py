"""A process that was stopped knows it when it goes on."""

from __future__ import annotations

from modalflow.support.standstill import AFTER, LEAST, Standstill
from tests.support import Clock


def found(standstill: Standstill, began: float) -> tuple[bool, bool]:
    return standstill.was_since(began), standstill.is_fresh


def test_a_long_time_without_a_turn_is_a_standstill() -> None:
    """Only what began before its end was interrupted by it, and its end is news for a moment."""
    clock = Clock()
    standstill = Standstill(clock)
    began = standstill.now()
    for _ in range(3):
        clock.now += LEAST / 2
        assert found(standstill, began) == (False, False)
    clock.now += LEAST
    assert found(standstill, began) == (True, True)
    assert not standstill.was_since(standstill.now())
    clock.now += AFTER
    assert found(standstill, began) == (True, False)


def test_the_time_before_its_begin_is_none() -> None:
    """A process may do something else first."""
    clock = Clock()
    standstill = Standstill(clock)
    clock.now += 10 * LEAST
    standstill.begin()
    assert not standstill.is_fresh
