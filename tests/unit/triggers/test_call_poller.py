"""The wait of a triggerer's triggers for function calls, on an event loop whose time passes at once."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from modal import exception

from modalflow.errors import CredentialsError
from modalflow.triggers.call_poller import LONGEST, MOST_A_SECOND, MOST_AT_ONCE, MOST_HELD, PATIENCE, CallPoller

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Waits for nothing: the time of the loop passes instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.passing = _Selector()
        super().__init__(self.passing)

    def time(self) -> float:
        return self.passing.now


class Calls:
    """Modal with calls that end at a time; it counts the questions."""

    def __init__(self, ends: dict[str, float]) -> None:
        self.ends = ends
        self.asked: Counter[str] = Counter()
        self.now = self.most_now = self.held = self.most_held = 0
        self.error: Exception | None = None
        self.connections = 0

    async def connect(self) -> Calls:
        self.connections += 1
        return self

    def disconnect(self) -> None:
        pass

    async def has_ended(self, function_call_id: str, held: float = 0.0) -> bool:
        self.asked[function_call_id] += 1
        if self.error is not None:
            raise self.error
        loop = asyncio.get_running_loop()
        if held:
            self.held += 1
            self.most_held = max(self.most_held, self.held)
            await asyncio.sleep(max(0.0, min(held, self.ends[function_call_id] - loop.time())))
            self.held -= 1
        else:
            self.now += 1
            self.most_now = max(self.most_now, self.now)
            await asyncio.sleep(0.05)
            self.now -= 1
        return self.ends[function_call_id] <= loop.time()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(coroutine)


def poller_of(calls: Calls) -> CallPoller:
    return CallPoller(calls.connect, calls.disconnect, clock=lambda: asyncio.get_running_loop().time())


async def noticed(calls: Calls) -> dict[str, float]:
    """When the end of each call was noticed."""
    poller, times = poller_of(calls), {}

    async def wait(function_call_id: str) -> None:
        await poller.wait(function_call_id, 0.0)
        times[function_call_id] = asyncio.get_running_loop().time()

    await asyncio.gather(*(wait(each) for each in calls.ends))
    return times


def test_few_calls_are_noticed_at_once() -> None:
    """For a few calls, Modal holds the question until their end: one RPC in 50 s for each."""
    calls = Calls({f"fc-{number}": 1_000.0 for number in range(MOST_HELD)})
    times = run(noticed(calls))
    assert max(times.values()) == pytest.approx(1_000, abs=0.1)
    assert calls.asked.total() == 20 * MOST_HELD


def test_thousand_calls_cost_few_rpcs() -> None:
    """1,000 calls cost at most 26 RPCs a second, few at a time, and each end is noticed within about a minute."""
    calls = Calls({f"fc-{number}": 900.0 for number in range(1_000)})
    times = run(noticed(calls))
    assert calls.asked.total() <= 26 * 900
    assert max(times.values()) < 900 + 1.3 * LONGEST
    assert calls.most_held == MOST_HELD
    assert calls.most_now <= MOST_AT_ONCE


def test_short_calls_are_noticed_soon() -> None:
    """The pause grows with the age of a call, so a short call among a hundred waits for a few seconds at most."""
    calls = Calls({f"fc-{number}": 10.0 for number in range(100)})
    assert max(run(noticed(calls)).values()) < 10 + 1.3 * 100 / MOST_A_SECOND + 1


def test_silent_modal_is_asked_again() -> None:
    """An outage ends no wait, and costs a question a minute once it has lasted for some minutes."""

    async def outage() -> float:
        calls = Calls({"fc-1": 0.0})
        calls.error = exception.ConnectionError("no route")
        waiting = asyncio.create_task(poller_of(calls).wait("fc-1", 0.0))
        await asyncio.sleep(3_600)
        calls.error = None
        await waiting
        return calls.asked.total()

    # 60 / (1 ± 0.2) an hour, and some 25 while the pauses grow.
    assert 60 <= run(outage()) <= 105


def test_failed_question_is_repeated_soon() -> None:
    """A single failure delays the end by seconds."""

    async def failure() -> float:
        calls = Calls({"fc-1": 0.0})
        calls.error = exception.ConnectionError("no route")
        waiting = asyncio.create_task(poller_of(calls).wait("fc-1", 0.0))
        await asyncio.sleep(0.5)
        calls.error = None
        await waiting
        return asyncio.get_running_loop().time()

    assert run(failure()) < 3


def test_refused_credentials_end_the_wait_after_a_while() -> None:
    """A token that was just replaced is read again; one that stays refused is an error after ten minutes."""

    async def refused() -> float:
        calls = Calls({"fc-1": 0.0})
        calls.error = exception.AuthError("bad token")
        with pytest.raises(CredentialsError, match="Modal has refused the credentials for 600 s: AuthError: bad token"):
            await poller_of(calls).wait("fc-1", 0.0)
        return asyncio.get_running_loop().time()

    assert PATIENCE < run(refused()) < PATIENCE + 2 * LONGEST
