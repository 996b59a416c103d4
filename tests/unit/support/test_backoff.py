"""Growing pauses, and the mode in which tests do not wait for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalflow.support import backoff
from modalflow.support.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    """The first is as given, and a success begins anew."""
    pauses = Backoff(0.5, 3.0)
    assert [pauses.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    pauses.reset()
    assert (pauses.failures, pauses.pause(), pauses.next()) == (0, 0.0, 0.5)


def test_another_factor() -> None:
    """Pauses grow as fast as the caller says."""
    assert [Backoff(1.0, 30.0, factor=5.0).after(failures) for failures in range(5)] == [0.0, 1.0, 5.0, 25.0, 30.0]


def test_a_minimum_that_the_other_side_sets() -> None:
    """A rate limit's own delay counts where it is longer; it does not change how pauses grow."""
    pauses = Backoff(0.5, 3.0)
    assert (pauses.next(at_least=10.0), pauses.pause(at_least=0.1), pauses.next()) == (10.0, 0.5, 1.0)


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 2.0), (1.0, 2.5)])
def test_jitter_only_adds(drawn: float, seconds: float) -> None:
    """A pause is never shorter than it should be, also one that the other side set."""
    assert Backoff(1.0, 8.0, jitter=0.25, rng=lambda: drawn).next(at_least=2.0) == seconds


@given(st.integers(0, 10**6), st.floats(1e-3, 10), st.floats(1, 3))
def test_it_stays_within_its_bounds(failures: int, first: float, factor: float) -> None:
    """However often something fails, no pause overflows, is longer than the longest, or shorter than the one before."""
    pauses = Backoff(first, 60.0, factor)
    assert pauses.after(failures) <= pauses.after(failures + 1) <= 60.0


def test_tests_do_not_wait() -> None:
    """Every pause is as long as the test says; a minimum is kept, and afterwards all is as before."""
    pauses = Backoff(0.5, 3.0)
    with backoff.testing():
        assert [pauses.next(), pauses.next(), pauses.next(at_least=0.2)] == [0.0, 0.0, 0.2]
        with backoff.testing(0.01):
            assert pauses.next() == 0.01
    assert pauses.next() == 3.0
