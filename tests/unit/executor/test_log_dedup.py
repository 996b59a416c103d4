"""A warning that repeats thousands of times is one line of the scheduler's log."""

from __future__ import annotations

import logging

import pytest

from modalflow.executor.reporting.log_dedup import PAUSE, DedupLogger


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_is_logged_and_the_others_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand refusals in a moment are one line at once, and the next line has their number."""
    clock = Clock()
    dedup = DedupLogger(logging.getLogger("dedup"), clock)
    with caplog.at_level(logging.WARNING):
        for n in range(1000):
            dedup.warn("busy", "%s is refused", n)
        assert caplog.messages == ["0 is refused"]
        clock.now += PAUSE
        dedup.warn("busy", "%s is refused", "late")
    assert caplog.messages[1:] == ["late is refused (and 999 more like it in the last 10 s)"]


def test_another_kind_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """A warning of another kind does not wait, and at level DEBUG all of them are logged."""
    dedup = DedupLogger(logging.getLogger("dedup"), Clock())
    with caplog.at_level(logging.DEBUG):
        for kind in ("busy", "away", "busy"):
            dedup.warn(kind, "it is %s", kind)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "it is busy"),
        ("WARNING", "it is away"),
        ("DEBUG", "it is busy"),
    ]
