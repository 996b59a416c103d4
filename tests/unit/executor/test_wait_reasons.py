"""Telling why work waits is bounded, however much waits."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.decision import Policy
from modalflow.executor.lifecycle.tracker import Link, Tracker
from modalflow.executor.mailbox import NewsKind
from modalflow.executor.modal_api.modal_api import Backlog
from modalflow.executor.reporting.wait_reasons import AT_ONCE, Waiting
from modalflow.executor.submission.resources import Resources
from modalflow.protocol.messages import Kind, Submission

MANY = 10_000


class PlayedRemote:
    """A Modal that has no container to spare, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def backlog(self, profile: str, resources: Resources) -> Backlog:
        self.asked += 1
        return Backlog(MANY, 0)


def waiting(number: int) -> Call:
    work_id = f"work-{number}"
    return Call(
        key=work_id,
        work_id=work_id,
        log_path=work_id,
        label=f"dag.task-{number}",
        kind=Kind.WORKLOAD,
        accepted_at=time.time() - 100.0,
        updated_at=0.0,
        phase=Phase.WAITING,
        submission=Submission(work_id=work_id, kind=Kind.WORKLOAD, log_path=work_id, partition="here", label=work_id),
        attempts=2,
        function_call_id=f"fc-{number}",
    )


async def test_ten_thousand_that_wait_are_told_of_bit_by_bit(caplog: pytest.LogCaptureFixture) -> None:
    """One look tells Airflow, and the tasks' own logs, of a few hundred, the longest waiting first; it asks for the
    backlog of their Function once, and the scheduler's log gets one line. The next look goes on with the others."""
    remote: Any = PlayedRemote()
    tracker = Tracker("here", Policy(3600.0, 3, False), Link(remote), asyncio.get_running_loop().create_task)
    for number in range(MANY):
        tracker.calls.add(waiting(number))
    looked: list[str] = []
    lines: list[str] = []

    async def look(call: Call) -> None:
        looked.append(call.work_id)

    telling = Waiting(tracker, lambda path, text, level: lines.append(path), look, interval=20.0)
    with caplog.at_level(logging.INFO):
        for turn in (1, 2):
            await telling.round()
            assert len(caplog.messages) == remote.asked == turn
            for told in (looked, lines, tracker.news):
                assert len(told) == turn * AT_ONCE
    assert len(set(lines)) == len(lines), "each is told of once"
    assert {news.kind for news in tracker.news} == {NewsKind.WAITING}
    assert f"{AT_ONCE - 1} more wait for run-default, see their own logs." in caplog.messages[0]


async def test_a_pause_between_submissions_is_told_as_one() -> None:
    """What was submitted before waits for its next submission, not for other work."""
    remote: Any = PlayedRemote()
    tracker = Tracker("here", Policy(3600.0, 3, False), Link(remote), asyncio.get_running_loop().create_task)
    call = waiting(1)
    call.lost(time.monotonic())
    tracker.calls.add(call)
    told: list[str] = []

    async def look(call: Call) -> None:
        pass

    await Waiting(tracker, lambda path, text, level: told.append(text), look, interval=20.0).round()
    [text] = told
    assert "no container has begun it in 2 submissions, and the next one follows after a pause" in text
