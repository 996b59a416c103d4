"""Segments and commits, on a real file system, with a Volume that does as it is told."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modalflow.errors import MalformedMessageError
from modalflow.worker.logs.commits import OLDEST_LINE, Commits, pause_after
from modalflow.worker.logs.segments import Segment


def test_each_function_call_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Two segments of one log are two files, and the older sorts first."""
    first, second = Segment(tmp_path, "dag/run", "fc-b"), Segment(tmp_path, "dag/run", "fc-a")
    first.open("Started", container_id="ta-1")
    second.open("Started")
    assert sorted(path.name for path in (tmp_path / "dag/run").iterdir()) == [first.path.name, second.path.name]
    assert json.loads(first.path.read_text())["container_id"] == "ta-1"


@pytest.mark.parametrize("log_path", ["", "/", ".", ".."])
def test_a_log_has_a_folder(tmp_path: Path, log_path: str) -> None:
    """Refuse a log path that names no folder."""
    with pytest.raises(MalformedMessageError, match="log_path"):
        Segment(tmp_path, log_path, "fc-1")


@pytest.mark.parametrize("log_path", ["/absolute", "../up", "a/../../up", f"run_id={'r' * 250}/task_id={'任务' * 45}"])
def test_a_log_stays_on_the_volume(tmp_path: Path, log_path: str) -> None:
    """Whatever the ids of a task are, its log is a file below the Volume, under a name that a file can have."""
    segment = Segment(tmp_path, log_path, "fc-1")
    segment.open("Started")
    assert segment.path.is_file() and segment.path.resolve().is_relative_to(tmp_path)


@pytest.mark.parametrize("left", [b"", b"whole line\n", b"half a li", b"\xff\xfe"])
def test_the_reason_is_a_line_of_its_own(tmp_path: Path, left: bytes) -> None:
    """Whatever a killed process left at the end of the file, the reason can be read as JSON."""
    segment = Segment(tmp_path, "log", "fc-1")
    segment.path.parent.mkdir()
    segment.path.write_bytes(left)
    segment.error("it was killed")
    last = segment.path.read_bytes().splitlines()[-1]
    assert (json.loads(last)["level"], json.loads(last)["event"]) == ("error", "it was killed")
    assert segment.path.read_bytes().startswith(left)


class Volume:
    """Counts its commits; each takes until it is let go, or fails."""

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
    commits = Commits(volume.commit, interval=0.001)
    volume.gate.clear()
    first = asyncio.create_task(commits.publish())
    await asyncio.sleep(0)  # It holds the commit now.
    late = [asyncio.create_task(commits.publish()) for _ in range(5)]
    await asyncio.sleep(0)
    volume.gate.set()
    assert all(await asyncio.gather(first, *late))
    assert volume.commits == 2


async def test_a_failing_volume_is_tried_again_and_never_raises() -> None:
    """Publishing survives two failures; three in a row are told, not raised."""
    volume = Volume()
    commits = Commits(volume.commit, interval=0.001)
    volume.failures = 2
    assert await commits.publish()
    volume.failures = 3
    assert not await commits.publish()


class Watched(Segment):
    """Counts how often somebody looked at its size."""

    looks = 0

    def size(self) -> int:
        self.looks += 1
        return super().size()


async def test_a_growing_segment_is_published_and_a_still_one_is_not(tmp_path: Path) -> None:
    """While a segment is watched there is a commit for each growth, and none without."""
    volume = Volume()
    segment = Watched(tmp_path, "log", "fc-1")
    segment.open("Started")
    commits = Commits(volume.commit, interval=0.001)

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    with commits.watching(segment):
        await until(lambda: volume.commits == 1)
        looks = segment.looks
        await until(lambda: segment.looks > looks + 5)
        assert volume.commits == 1
        with segment.path.open("ab") as file:
            os.write(file.fileno(), b"more\n")
        await until(lambda: volume.commits == 2)


@pytest.mark.parametrize(("took", "pause"), [(0.01, 1.0), (2.0, 2.0), (3.0, 3.0), (3.5, 2.0), (4.0, 1.0), (30.0, 1.0)])
def test_the_pause_after_a_commit_leaves_no_line_too_old(took: float, pause: float) -> None:
    """A slow Volume is left alone for as long as it took, while a line that waits for commit, pause and commit may."""
    assert pause_after(took, 1.0) == pause
    assert took > 4.0 or took + pause + took <= OLDEST_LINE
