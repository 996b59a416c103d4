"""The submission queue: what is next, how many at once, and what a refusal changes."""

from __future__ import annotations

import pytest

from modalflow.executor.lifecycle.call import Call
from modalflow.executor.submission.resources import Resources
from modalflow.executor.submission.submission_queue import FIRST_PAUSE, LONGEST_PAUSE, FunctionQueue, SubmissionQueue
from modalflow.protocol.messages import Kind, Submission
from tests.support import Clock
from tests.wired import request


def call(name: str, profile: str = "a") -> Call:
    made = Call.accepted(request(name), 0.0)
    made.placed(Submission(name, Kind.COMMAND, "", "", name, profile=profile), Resources())
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


def queue_of(clock: Clock, limit: int) -> SubmissionQueue:
    return SubmissionQueue(limit, clock, jitter=lambda: 0.0)


def started(queue: SubmissionQueue) -> list[str]:
    """Start whatever may start now."""
    names = []
    while (found := queue.pop()) is not None:
        names.append(found[1].work_id)
    return names


def test_first_come_first_served_over_all_functions(clock: Clock) -> None:
    """The order in which Airflow submitted work holds, whichever Function it goes to."""
    queue = queue_of(clock, 3)
    for profile, name in [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")]:
        queue.add(call(name, profile))
    assert started(queue) == ["1", "2", "3"]
    queue.function("a").accepted()
    assert started(queue) == ["4"]


def test_what_comes_back_keeps_its_place(clock: Clock) -> None:
    """A submission that was refused goes before those that were submitted later; added twice, it is there once."""
    queue = queue_of(clock, 1)
    first, second = call("first"), call("second")
    queue.add(first)
    queue.add(second)
    assert started(queue) == ["first"]
    queue.function("a").refused(clock())
    queue.add(first)
    queue.add(first)
    assert started(queue) == ["first"]
    queue.function("a").accepted()
    queue.remove(first)
    assert started(queue) == ["second"]
    assert len(queue) == 1


def test_rate_limit_stops_its_function_alone(clock: Clock) -> None:
    """What Modal refuses of one Function does not hold up another's."""
    queue = queue_of(clock, 8)
    for number, profile in enumerate("aabb"):
        queue.add(call(f"{profile}{number}", profile))
    queue.pop()
    queue.function("a").refused(clock(), stop=True, seconds=3.0)
    assert started(queue) == ["b2", "b3"]
    assert queue.seconds_to_wait() == pytest.approx(3.0)
    clock.now += 3.0
    assert started(queue) == ["a1"]


def test_refusals_of_one_moment_count_once(clock: Clock) -> None:
    """A hundred that were under way together are one sign of a limit, not a hundred."""
    function = FunctionQueue(128, clock, lambda: 0.0)
    function.under_way = 100
    for _ in range(100):
        function.refused(clock() - 0.1, stop=True)
    assert function.limit == 64
    assert function.resumes_at == clock() + FIRST_PAUSE


def test_pauses_grow_and_a_success_ends_them(clock: Clock) -> None:
    """Refused again and again, a Function pauses for longer each time, to a bound. One success ends the pauses, and the
    limit grows again."""
    function = FunctionQueue(4, clock, lambda: 0.0)
    pauses = []
    for _ in range(9):
        function.under_way += 1
        function.refused(clock(), stop=True)
        pauses.append(function.resumes_at - clock())
        clock.now = function.resumes_at + 0.1
    assert pauses[:3] == pytest.approx([FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE])
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE)
    assert function.limit == 1
    for _ in range(5):
        function.under_way += 1
        function.accepted()
    assert function.limit == 4
    function.under_way += 1
    function.refused(clock(), stop=True)
    assert function.resumes_at == pytest.approx(clock() + FIRST_PAUSE)


def test_what_is_fixed_goes_on_at_once(clock: Clock) -> None:
    """After new credentials, for example, nothing waits for the rest of a pause."""
    queue = queue_of(clock, 2)
    queue.function("a").under_way = 1
    queue.function("a").refused(clock(), stop=True, seconds=30.0)
    queue.add(call("1"))
    assert started(queue) == []
    queue.function("a").resume()
    assert started(queue) == ["1"]
