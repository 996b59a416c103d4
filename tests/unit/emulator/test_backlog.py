"""How many inputs may wait, and how fast they may come."""

from __future__ import annotations

import pytest
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.calls.backlog import MAX_SPAWNED_WAITING, MAX_UNFINISHED, MAX_WAITING, Backlog
from modalflow.emulator.calls.token_bucket import TokenBucket
from tests.support import Clock

SYNC = api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC
SPAWN = api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC


def refused(backlog: Backlog, invocation: int, more: int, running: int = 0, *, rates: bool = False) -> str:
    """The words with which so many more inputs are refused, empty if they are not."""
    try:
        backlog.check(invocation, more, lambda: [invocation] * running, rates=rates)
    except GRPCError as error:
        assert error.status is Status.RESOURCE_EXHAUSTED
        assert error.details is None
        return str(error.message)
    return ""


@pytest.mark.parametrize(("invocation", "most"), [(SYNC, MAX_WAITING), (SPAWN, MAX_SPAWNED_WAITING)])
def test_so_many_may_wait(invocation: int, most: int) -> None:
    """The last one that fits is taken, the next is not; what runs does not wait, and what ended is gone."""
    backlog = Backlog()
    backlog.count(invocation, most - 1)
    assert not refused(backlog, invocation, 1)
    assert f"over the limit of {most}" in refused(backlog, invocation, 2)
    assert not refused(backlog, invocation, 2, running=1)
    backlog.count(invocation, -1)
    assert not refused(backlog, invocation, 2)


def test_so_many_may_wait_and_run() -> None:
    """However many run, there is a limit to all that somebody waits for."""
    backlog = Backlog()
    backlog.count(SYNC, MAX_UNFINISHED)
    assert f"over the limit of {MAX_UNFINISHED}" in refused(backlog, SYNC, 1, running=MAX_UNFINISHED)


def test_spawned_inputs_do_not_count_for_others() -> None:
    """A function with a long backlog of spawned inputs can still be called and waited for."""
    backlog = Backlog()
    backlog.count(SPAWN, MAX_SPAWNED_WAITING)
    assert not refused(backlog, SYNC, 1)


def test_rates_are_off_unless_wanted() -> None:
    """Inputs come as fast as they like; where rates are limited, a second's worth at once and no more."""
    backlog = Backlog()
    assert not refused(backlog, SYNC, 2_000)
    assert not refused(backlog, SYNC, 200, rates=True)
    assert "faster than 200 a second" in refused(backlog, SYNC, 100, rates=True)
    assert not refused(backlog, SPAWN, 1_000, rates=True)


def test_a_bucket_lets_through_its_rate_and_its_burst() -> None:
    """As many as the burst at once, then as many as the rate in each second, however long nothing came."""
    clock = Clock()
    bucket = TokenBucket(10.0, 5.0, clock)
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]
    clock.now = 0.2
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.now = 100.0
    assert sum(bucket.take() for _ in range(10)) == 5


def test_a_full_bucket_gives_more_than_it_holds() -> None:
    """One request for more than the burst gets through when nothing came for a while, and is paid for afterwards."""
    clock = Clock()
    bucket = TokenBucket(10.0, 5.0, clock)
    assert bucket.take(15)
    clock.now = 1.0
    assert not bucket.take()
    clock.now = 1.1
    assert bucket.take()
