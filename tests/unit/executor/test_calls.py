"""The table of calls: which one is current for a key, and which have been silent."""

from __future__ import annotations

from dataclasses import replace

from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.protocol.messages import Kind


def call() -> Call:
    return Call("key", "work", "log", "label", Kind.WORKLOAD, 0.0, 0.0, Phase.WAITING, function_call_id="fc-1")


def test_only_the_newest_call_of_a_key_is_current() -> None:
    """A deferred task comes back under the same key: from then on the first call's outcome does not count."""
    calls = Calls()
    first, second = call(), replace(call(), work_id="work-2")
    calls.add(first)
    calls.add(second)
    assert not calls.is_current(first)
    assert calls.of_key("key") is second
    calls.discard(first)
    assert calls.of_key("key") is second
    calls.discard(second)
    assert len(calls) == 0
    assert calls.of_key("key") is None


def test_look_ups_grow_rarer() -> None:
    """A task that is silent for an hour is not looked up every ten seconds."""
    calls = Calls()
    about = call()
    calls.add(about)
    times: list[float] = []
    now = 0.0
    while len(times) < 7:
        now += 1
        if calls.silent(now, 10):
            times.append(now - about.updated_at)
            about.looked_up(now)
    assert times == [10, 20, 40, 80, 80, 80, 80]
