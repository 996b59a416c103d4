"""Samples of real processes, and the timer that takes them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from modalflow.cost.samples import MOST, Samples
from modalflow.support import linux
from modalflow.worker.usage import call_sampler
from modalflow.worker.usage.call_sampler import LONGEST_INTERVAL, CallSampler

#: A child uses a core and 100 MiB; its parent waits for it, as a supervisor does.
_BUSY = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "held = b'x' * (100 << 20)\\nwhile True: pass"])
"""


@pytest.fixture
def busy() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", _BUSY], start_new_session=True)
    yield process.pid
    linux.kill_family([process.pid])
    process.wait()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_sampler, "FIRST", 0.01)
    monkeypatch.setattr(call_sampler, "INTERVAL", 0.02)


async def sampled(sampler: CallSampler, points: int) -> Samples:
    async with asyncio.timeout(30):
        while (found := sampler.samples("fc-1", "ta-1", time.time())) is None or len(found.cpu) < points:
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize("few", [0, 10**6])
async def test_the_use_of_the_whole_family_is_sampled(
    busy: int, fast: None, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a descendant uses counts, without a thread, and until the end alone: among few processes and many."""
    monkeypatch.setattr(linux, "FEW", few)
    began, threads = time.time(), threading.active_count()
    sampler = CallSampler()
    sampler.begin(lambda: busy)
    while (found := await sampled(sampler, 1)).mib[-1] < 100 or not any(found.cpu):
        await asyncio.sleep(0.02)
    sampler.end()
    assert threading.active_count() == threads
    assert found.function_call_id == "fc-1" and found.container_id == "ta-1"
    assert began <= found.began_at <= time.time() and 100 <= max(found.mib) < 200
    await asyncio.sleep(0.1)
    assert len(found.cpu) <= len((await sampled(sampler, 1)).cpu) + 1


async def test_a_short_call_is_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs a timer that never fires: nothing of `/proc` is read."""
    reads: list[int] = []
    monkeypatch.setattr(call_sampler, "FIRST", 0.05)
    sampler = CallSampler(use=lambda pid: reads.append(pid))
    sampler.begin(os.getpid)
    sampler.end()
    await asyncio.sleep(0.1)
    assert not reads and sampler.samples("fc-1", "ta-1", time.time()) is None


async def test_a_long_call_has_a_bounded_number_of_points(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no room, the resolution is halved, and samples become rarer."""
    monkeypatch.setattr(call_sampler, "INTERVAL", 0.0)
    taken: list[int] = []

    def use(pid: int) -> linux.Use:
        taken.append(pid)
        return linux.Use(len(taken) / 100, 50.0)

    sampler = CallSampler(use=use, cpu_clock=lambda: 0.0)
    sampler.begin(os.getpid)
    while len(taken) < 3 * MOST:
        await asyncio.sleep(0.001)
    sampler.end()
    found = sampler.samples("fc-1", "ta-1", time.time())
    assert found is not None and MOST // 2 <= len(found.cpu) < MOST and set(found.mib) == {50.0}


async def test_a_family_that_is_expensive_to_read_is_sampled_less_often(fast: None) -> None:
    """The first reading, and a second one, show the cost; the interval follows from it, within a limit."""
    ticks = iter(range(100))
    sampler = CallSampler(use=lambda _: linux.Use(1.0, 1.0), cpu_clock=lambda: float(next(ticks)))
    sampler.begin(os.getpid)
    async with asyncio.timeout(30):
        while next(ticks) < 3:
            await asyncio.sleep(0.01)
    sampler.end()
    assert sampler._interval >= LONGEST_INTERVAL


async def test_one_long_reading_does_not_make_samples_rare(fast: None) -> None:
    """In gVisor, on a busy machine, a short reading can seem long."""
    times = iter([0.0, 1.0, 1.0, 1.0])
    sampler = CallSampler(use=lambda _: linux.Use(1.0, 1.0), cpu_clock=lambda: next(times, 1.0))
    sampler.begin(os.getpid)
    await sampled(sampler, 2)
    sampler.end()
    assert sampler._interval == call_sampler.INTERVAL


@pytest.mark.parametrize("pid", [None, 2**30])
async def test_no_process_is_no_sample(pid: int | None, fast: None) -> None:
    """The process may not have started, or have just ended."""
    sampler = CallSampler()
    sampler.begin(lambda: pid)
    await asyncio.sleep(0.1)
    sampler.end()
    assert sampler.samples("fc-1", "ta-1", time.time()) is None


async def test_an_error_ends_the_samples_alone(fast: None, caplog: pytest.LogCaptureFixture) -> None:
    """The work goes on without samples, and the container's log has the error once."""

    def fail(pid: int) -> None:
        raise ValueError("an odd kernel")

    sampler = CallSampler(use=fail)
    sampler.begin(os.getpid)
    await asyncio.sleep(0.2)
    sampler.end()
    assert caplog.text.count("could not be sampled") == 1
