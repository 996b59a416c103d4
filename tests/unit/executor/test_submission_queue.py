"""Lanes: what is next, how many at once, and what a refusal changes."""

from __future__ import annotations

import pytest

from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.submission.submission_queue import FIRST_PAUSE, LONGEST_PAUSE, Lane, Lanes
from modalflow.protocol.messages import Kind
from tests.support import Clock


def call(name: str) -> Call:
    return Call(name, name, "", name, Kind.COMMAND, accepted_at=0.0, updated_at=0.0, phase=Phase.QUEUED)


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


def lanes(clock: Clock, most: int) -> Lanes:
    return Lanes(most, clock, jitter=lambda: 0.0)


def started(lanes: Lanes) -> list[str]:
    """Start whatever may start now."""
    names = []
    while (lane := lanes.next()) is not None:
        names.append(lane.take().work_id)
    return names


def test_first_come_first_served_over_all_lanes(clock: Clock) -> None:
    """The order in which Airflow handed work over holds, whichever Function it goes to."""
    line = lanes(clock, 3)
    for place, (profile, name) in enumerate([("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")]):
        line.of(profile).put(place, call(name))
    assert started(line) == ["1", "2", "3"]
    line.of("a").succeeded()
    assert started(line) == ["4"]


def test_what_comes_back_keeps_its_place(clock: Clock) -> None:
    """A submission that was refused goes before those that were handed over later."""
    line = lanes(clock, 1)
    lane = line.of("a")
    lane.put(0, call("first"))
    lane.put(1, call("second"))
    assert started(line) == ["first"]
    lane.failed(clock())
    lane.put(0, call("first"))
    assert started(line) == ["first"]


def test_rate_limit_stops_its_lane_alone(clock: Clock) -> None:
    """What Modal refuses of one Function does not hold up another's."""
    line = lanes(clock, 8)
    for place, profile in enumerate("aabb"):
        line.of(profile).put(place, call(f"{profile}{place}"))
    line.next().take()  # type: ignore[union-attr]
    line.of("a").failed(clock(), stop=True, seconds=3.0)
    assert started(line) == ["b2", "b3"]
    assert line.pause() == pytest.approx(3.0)
    clock.now += 3.0
    assert started(line) == ["a1"]


def test_refusals_of_one_moment_count_once(clock: Clock) -> None:
    """A hundred that were under way together are one sign of a limit, not a hundred."""
    lane = Lane(128, clock, lambda: 0.0)
    lane.under_way = 100
    for _ in range(100):
        lane.failed(clock() - 0.1, stop=True)
    assert lane.width == 64
    assert lane.resumes_at == clock() + FIRST_PAUSE


def test_pauses_grow_and_a_success_ends_them(clock: Clock) -> None:
    """Refused again and again, a lane stops for ever longer, to a bound; one success, and it begins anew and widens."""
    lane = Lane(4, clock, lambda: 0.0)
    pauses = []
    for _ in range(9):
        lane.under_way += 1
        lane.failed(clock(), stop=True)
        pauses.append(lane.resumes_at - clock())
        clock.now = lane.resumes_at + 0.1
    assert pauses[:3] == pytest.approx([FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE])
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE)
    assert lane.width == 1
    for _ in range(5):
        lane.under_way += 1
        lane.succeeded()
    assert lane.width == 4
    lane.under_way += 1
    lane.failed(clock(), stop=True)
    assert lane.resumes_at == pytest.approx(clock() + FIRST_PAUSE)


def test_what_is_mended_goes_on_at_once(clock: Clock) -> None:
    """New credentials, for one: nothing waits for the rest of a pause."""
    line = lanes(clock, 2)
    line.of("a").under_way = 1
    line.of("a").failed(clock(), stop=True, seconds=30.0)
    line.of("a").put(0, call("1"))
    assert started(line) == []
    line.of("a").resume()
    assert started(line) == ["1"]
