"""How long a task of a burst waits in its container before it starts. No I/O."""

from __future__ import annotations

from modalflow.protocol.messages import Submission

#: No task waits longer, whatever an executor asks for.
LONGEST = 60.0


def seconds_until_turn(submission: Submission, ready_at: float, now: float) -> float:
    """Return how long a task has to wait; 0 for one that belongs to no burst.

    ``ready_at`` is when the container could run its first task; all times are seconds since the epoch. The executor's
    clock may differ from this one: it can only shorten the wait to nothing, or make it ``start_after`` again.
    """
    after = min(submission.start_after, LONGEST)
    turn = max(submission.burst_began_at, ready_at) + after
    return max(0.0, min(turn - now, after))
