"""One read for all viewers: never two at a time, never sooner than the interval, and no answer waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from modalflow.ui.sources.cached import Cached, CachedByKey
from tests.support import wait_until


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Something to read, which can be slow or broken."""

    def __init__(self) -> None:
        self.reads = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def __call__(self) -> int:
        self.reads += 1
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return self.reads


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def idle(cached: Cached[int]) -> Callable[[], bool]:
    return lambda: not cached.seen().reading


def test_nothing_is_read_before_someone_asks(source: Source, clock: Clock) -> None:
    """The first answer is empty, and begins the read."""
    cached = Cached("test", source, 5.0, clock=clock)
    assert source.reads == 0
    first = cached.seen()
    assert (first.value, first.read_at, first.reading) == (None, 0.0, True)
    wait_until(idle(cached))
    assert (cached.seen().value, cached.seen().read_at) == (1, 1000.0)


def test_many_viewers_cost_one_read(source: Source, clock: Clock) -> None:
    """While one is under way, and until the interval is over."""
    source.gate.clear()
    cached = Cached("test", source, 5.0, clock=clock)
    viewers = [threading.Thread(target=cached.seen) for _ in range(50)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    assert source.reads == 1
    source.gate.set()
    wait_until(idle(cached))
    clock.now += 4.9
    for _ in range(50):
        assert cached.seen().value == 1
    clock.now += 0.2
    assert cached.seen().value == 1, "the old value stays until the new one is there"
    wait_until(lambda: cached.seen().value == 2)
    assert source.reads == 2


def test_a_failure_keeps_the_value_and_waits(source: Source, clock: Clock) -> None:
    """The problem is shown with the age of the value; the next read is not before 15 s."""
    cached = Cached("test", source, 5.0, clock=clock)
    cached.seen()
    wait_until(idle(cached))
    source.error = OSError("no route")
    clock.now += 6
    cached.seen()
    wait_until(idle(cached))
    seen = cached.seen()
    assert (seen.value, seen.read_at) == (1, 1000.0)
    assert "no route" in seen.problem
    clock.now += 14
    cached.seen()
    assert source.reads == 2
    source.error = None
    clock.now += 2
    cached.seen()
    wait_until(lambda: cached.seen().value == 3)
    assert cached.seen().problem == ""


def test_a_long_read_is_a_problem_and_pauses(source: Source, clock: Clock) -> None:
    """Viewers read that Modal does not answer; a read of 12 s is not repeated for 48 s."""
    source.gate.clear()
    cached = Cached("test", source, 5.0, clock=clock)
    cached.seen()
    clock.now += 12
    assert "has not answered for 12 s" in cached.seen().problem
    source.gate.set()
    wait_until(idle(cached))
    clock.now += 47
    assert not cached.seen().reading
    clock.now += 2
    assert cached.seen().reading
    wait_until(idle(cached))


def test_a_change_is_read_at_once(source: Source, clock: Clock) -> None:
    """After an action, without waiting for the interval."""
    cached = Cached("test", source, 5.0, clock=clock)
    cached.seen()
    wait_until(idle(cached))
    cached.expire()
    cached.seen()
    wait_until(lambda: cached.seen().value == 2)


def test_a_change_during_a_read_is_read_after_it(source: Source, clock: Clock) -> None:
    """What is being read may be from before the change."""
    source.gate.clear()
    cached = Cached("test", source, 5.0, clock=clock)
    cached.seen()
    cached.expire()
    source.gate.set()
    wait_until(lambda: cached.seen().value == 2)


def test_many_pages_at_once_cost_few_threads(source: Source) -> None:
    """A thread for each page that is read; the others are read at a later question, once there is a turn."""
    source.gate.clear()
    cached: CachedByKey[int, int] = CachedByKey("crawled", 60.0, most=2, at_once=2)
    assert all(cached.seen(number, 1, source).reading for number in range(50))
    assert sum(thread.name == "modalflow-ui-crawled" for thread in threading.enumerate()) == 2
    source.gate.set()
    wait_until(lambda: cached.seen(49, 1, source).value)


def test_the_last_used_keys_are_kept(source: Source) -> None:
    """However many pages are opened."""
    cached: CachedByKey[str, int] = CachedByKey("test", 60.0, most=2, at_once=1)
    for key in ("a", "b"):
        wait_until(lambda key=key: cached.seen(key, 1, source).value)  # type: ignore[misc]
    cached.seen("a", 1, source)
    wait_until(lambda: cached.seen("c", 1, source).value)
    assert cached.seen("a", 1, source).value == 1
    assert source.reads == 3
    wait_until(lambda: cached.seen("b", 1, source).value == 4)


def test_a_new_version_is_read_and_the_old_one_stays_until_then(source: Source) -> None:
    """A page does not become empty when its task ends."""
    cached: CachedByKey[str, int] = CachedByKey("test", 60.0, most=2, at_once=1)
    wait_until(lambda: cached.seen("a", "running", source).value == 1)
    assert cached.seen("a", "success", lambda: 7).value == 1
    wait_until(lambda: cached.seen("a", "success", source).value == 7)
