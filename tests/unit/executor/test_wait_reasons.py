"""Reports why work waits are bounded, however much waits."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from modalflow.executor.lifecycle.call import Call
from modalflow.executor.mailbox import UpdateKind
from modalflow.executor.modal_api.call_status import PENDING, CallStatus
from modalflow.executor.modal_api.modal_api import Backlog
from modalflow.executor.reporting.wait_reasons import BATCH
from modalflow.executor.submission.resources import Resources
from modalflow.executor.wiring import Wiring
from tests.wired import kinds, notes, submitted, wired

MANY = 10_000


class PlayedApi:
    """A Modal that has no container to spare, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.looked_up: list[str] = []

    async def backlog(self, profile: str, resources: Resources) -> Backlog:
        self.asked += 1
        return Backlog(MANY, 0)

    async def call_status(self, function_call_id: str) -> CallStatus:
        self.looked_up.append(function_call_id)
        return PENDING

    async def entry(self, work_id: str) -> None:
        return None


def waiting(wiring: Wiring, number: int) -> Call:
    call = submitted(wiring, f"work-{number}")
    call.accepted_at = time.time() - 100.0
    return call


async def test_ten_thousand_that_wait_are_reported_bit_by_bit(caplog: pytest.LogCaptureFixture) -> None:
    """One check reports a few hundred to Airflow and to the tasks' own logs, the longest waiting first. It asks for the
    backlog of their Function once, and the scheduler's log gets one line. The next check goes on with the others."""
    api: Any = PlayedApi()
    wiring = wired(api, sweep_interval=20.0)
    for number in range(MANY):
        waiting(wiring, number)
    with caplog.at_level(logging.INFO):
        for turn in (1, 2):
            await wiring.wait_reasons.round()
            assert len(caplog.messages) == api.asked == turn
            for reported in (api.looked_up, notes(wiring), kinds(wiring)):
                assert len(reported) == turn * BATCH
    paths = [path for path, _ in notes(wiring)]
    assert len(set(paths)) == len(paths), "each is reported once"
    assert set(kinds(wiring)) == {UpdateKind.WAITING}
    assert f"{BATCH - 1} more wait for run-default, see their own logs." in caplog.messages[0]


async def test_a_pause_between_submissions_is_reported_as_one() -> None:
    """What was submitted before waits for its next submission, not for other work."""
    wiring = wired(PlayedApi(), sweep_interval=20.0)
    waiting(wiring, 1).lost(time.monotonic())
    await wiring.wait_reasons.round()
    [(_, text)] = notes(wiring)
    assert "no container has begun it in 1 submission, and the next one follows after a pause" in text
