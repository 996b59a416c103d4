"""What happens to thousands at once is a line of the scheduler's log, not thousands."""

from __future__ import annotations

import logging

import pytest

from modalflow.executor.reporting.log_dedup import PAUSE, Alike


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_is_said_and_the_others_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand refusals in a moment are one line at once, and the next line has their number."""
    clock = Clock()
    alike = Alike(logging.getLogger("alike"), clock)
    with caplog.at_level(logging.WARNING):
        for n in range(1000):
            alike.warn("busy", "%s is refused", n)
        assert caplog.messages == ["0 is refused"]
        clock.now += PAUSE
        alike.warn("busy", "%s is refused", "late")
    assert caplog.messages[1:] == ["late is refused (and 999 more like it in the last 10 s)"]


def test_another_kind_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """What differs in kind does not wait, and whoever wants all of them sets the level to DEBUG."""
    alike = Alike(logging.getLogger("alike"), Clock())
    with caplog.at_level(logging.DEBUG):
        for kind in ("busy", "away", "busy"):
            alike.warn(kind, "it is %s", kind)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "it is busy"),
        ("WARNING", "it is away"),
        ("DEBUG", "it is busy"),
    ]
