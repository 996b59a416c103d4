"""The publisher of logs, with files on a real file system and a Volume that the test controls."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modalflow.worker.logs.log_files import CallLog
from modalflow.worker.logs.log_publisher import OLDEST_LINE, LogPublisher, pause_after


class Volume:
    """A Volume that counts its commits; each waits for the gate, or fails."""

    def __init__(self) -> None:
        self.commits = 0
        self.failures = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self) -> None:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the Volume is ill")
        self.commits += 1


async def test_what_is_published_includes_what_was_written_before() -> None:
    """A commit that began earlier does not count as publishing; those who wait for one share it."""
    volume = Volume()
    publisher = LogPublisher(volume.commit, interval=0.001)
    volume.gate.clear()
    first = asyncio.create_task(publisher.publish())
    await asyncio.sleep(0)  # It holds the commit now.
    late = [asyncio.create_task(publisher.publish()) for _ in range(5)]
    await asyncio.sleep(0)
    volume.gate.set()
    assert all(await asyncio.gather(first, *late))
    assert volume.commits == 2


async def test_a_failing_volume_is_tried_again_and_never_raises() -> None:
    """Publishing survives two failures; three in a row are told, not raised."""
    volume = Volume()
    publisher = LogPublisher(volume.commit, interval=0.001)
    volume.failures = 2
    assert await publisher.publish()
    volume.failures = 3
    assert not await publisher.publish()


class Watched(CallLog):
    """Counts how often somebody looked at its size."""

    looks = 0

    def size(self) -> int:
        self.looks += 1
        return super().size()


async def test_a_growing_call_log_is_published_and_a_still_one_is_not(tmp_path: Path) -> None:
    """While a call_log is watched there is a commit for each growth, and none without."""
    volume = Volume()
    call_log = Watched(tmp_path, "log", "fc-1")
    call_log.open("Started")
    publisher = LogPublisher(volume.commit, interval=0.001)

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    with publisher.watching(call_log):
        await until(lambda: volume.commits == 1)
        looks = call_log.looks
        await until(lambda: call_log.looks > looks + 5)
        assert volume.commits == 1
        with call_log.path.open("ab") as file:
            os.write(file.fileno(), b"more\n")
        await until(lambda: volume.commits == 2)


async def test_what_else_is_published_is_written_before_a_commit_that_is_due(tmp_path: Path) -> None:
    """It causes no commit: a log that does not grow has none."""
    volume = Volume()
    written: list[int] = []
    publisher = LogPublisher(volume.commit, before=lambda: written.append(volume.commits), interval=0.001)
    call_log = Watched(tmp_path, "log", "fc-1")
    call_log.open("Started")

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    with publisher.watching(call_log):
        await until(lambda: volume.commits == 1)
        looks = call_log.looks
        await until(lambda: call_log.looks > looks + 5)
        call_log.info("more")
        await until(lambda: volume.commits == 2)
    assert written == [0, 1]


async def test_what_else_is_published_is_not_written_during_another_commit(tmp_path: Path) -> None:
    """That commit would upload a file that is half written."""
    volume = Volume()
    written: list[int] = []
    publisher = LogPublisher(volume.commit, before=lambda: written.append(volume.commits), interval=0.001)
    call_log = Watched(tmp_path, "log", "fc-1")
    call_log.open("Started")
    volume.gate.clear()
    first = asyncio.create_task(publisher.publish())
    await asyncio.sleep(0)  # It holds the commit now.
    with publisher.watching(call_log):
        async with asyncio.timeout(5):
            while not call_log.looks:
                await asyncio.sleep(0.001)
            assert not written
            volume.gate.set()
            assert await first
            while volume.commits < 2:
                await asyncio.sleep(0.001)
    assert written == [1]


@pytest.mark.parametrize(("took", "pause"), [(0.01, 1.0), (2.0, 2.0), (3.0, 3.0), (3.5, 2.0), (4.0, 1.0), (30.0, 1.0)])
def test_the_pause_after_a_commit_leaves_no_line_too_old(took: float, pause: float) -> None:
    """A slow Volume is left alone for as long as it took, while a line that waits for commit, pause and commit may."""
    assert pause_after(took, 1.0) == pause
    assert took > 4.0 or took + pause + took <= OLDEST_LINE
