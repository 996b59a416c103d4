"""How long a task of a burst waits in its container."""

from __future__ import annotations

import pytest

from modalflow.protocol.messages import Kind, Submission
from modalflow.worker.turn import LONGEST, seconds_until_turn

BEGAN = 1_000.0


def wait(after: float, *, ready_at: float = 0.0, now: float = BEGAN, began: float = BEGAN) -> float:
    submission = Submission("w", Kind.WORKLOAD, "l", "p", "x", burst_began_at=began, start_after=after)
    return seconds_until_turn(submission, ready_at, now)


def test_a_task_alone_does_not_wait() -> None:
    """Nor does one of an executor that knows of no bursts, in a container that became ready this moment."""
    assert wait(0.0, ready_at=BEGAN) == 0.0
    assert wait(0.0, began=0.0, ready_at=BEGAN) == 0.0


def test_in_a_warm_container_the_burst_itself_counts() -> None:
    """What was submitted late, or waited for its container, has had its turn."""
    assert wait(2.0, now=BEGAN + 0.5) == 1.5
    assert wait(2.0, now=BEGAN + 3.0) == 0.0


def test_in_a_cold_container_its_being_ready_counts() -> None:
    """Containers that were started together are ready together, however long that took."""
    assert wait(2.0, ready_at=BEGAN + 20.0, now=BEGAN + 20.0) == 2.0
    assert wait(2.0, ready_at=BEGAN + 20.0, now=BEGAN + 21.5) == 0.5


@pytest.mark.parametrize("ahead", [-1e6, 1e6])
def test_clocks_that_differ_cost_a_turn_at_most(ahead: float) -> None:
    """A container's clock may be wrong by any amount: nothing waits longer than its turn."""
    assert 0.0 <= wait(2.0, ready_at=BEGAN + ahead, now=BEGAN + ahead) <= 2.0


def test_no_wait_is_longer_than_a_minute() -> None:
    """Whatever an executor asks for."""
    assert wait(1e9) == LONGEST
