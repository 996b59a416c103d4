"""The line at the end of a task's log."""

from __future__ import annotations

import dataclasses

from modalflow.cost.footer import footer
from modalflow.cost.rates import DATED
from modalflow.cost.usage import Record, Reserved

RECORD = Record(
    "fc-1",
    "ta-1",
    0,
    reserved=Reserved(1, 2048, "T4"),
    queued=0.84,
    starting=3.1,
    running=8.5,
    occupied=11.6,
    cpu_seconds=0.9,
    peak_mib=262,
    worker_mib=50,
)


def test_the_footer_says_what_was_occupied_for_how_long_and_what_it_costs() -> None:
    """In one line: asked, times, used, money, whose rates, and that it is an estimate."""
    assert footer(RECORD, DATED) == (
        "Occupied 1 core, 2 GiB, T4 for 11.6 s (queued 0.84 s, starting 3.1 s, running 8.5 s); used 0.90 core-seconds, "
        "at most 312 MiB; about $0.0021 with Modal's rates of 2026-10 (an estimate)"
    )


def test_an_unknown_rate_is_no_price() -> None:
    """The line says what it lacks."""
    unknown = dataclasses.replace(RECORD, reserved=Reserved(2, 128, "X100:2"))
    assert "Occupied 2 cores, 128 MiB, 2 X100 for" in footer(unknown, DATED)
    assert footer(unknown, DATED).endswith("no estimate of the cost: no known rate for GPU X100")
    assert "$" not in footer(unknown, DATED)


def test_what_is_not_known_is_left_out() -> None:
    """A lost container's record has times only, a first task waited for nothing."""
    bare = Record("fc-1", "ta-1", 0, running=1203.4, occupied=1203.4)
    assert footer(bare, DATED).startswith("Occupied a container for 1,203 s (running 1,203 s); no estimate")
