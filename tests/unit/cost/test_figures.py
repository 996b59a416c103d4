"""Times as users read them."""

from __future__ import annotations

import pytest

from modalflow.cost.figures import duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (-5, "0 s"), (59.6, "60 s"), (61, "1 min 1 s"), (3725, "1 h 2 min"), (200_000, "2 d 7 h")],
)
def test_a_duration_has_the_two_units_that_matter(seconds: float, said: str) -> None:
    """Nobody counts the seconds of a day."""
    assert duration(seconds) == said
