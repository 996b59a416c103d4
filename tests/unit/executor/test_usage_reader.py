"""Usage records are read once, for budgets and for tasks that size themselves."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from modal import exception

from modalflow.config.budgets import Per, read_budgets
from modalflow.cost.rates import DATED, Rates
from modalflow.cost.usage import Record, Reserved
from modalflow.executor.submission import run_history
from modalflow.executor.wiring import Wiring
from modalflow.names import TaskTry
from tests.wired import wired

BUDGETS = '[{"per": "day", "dollars": 5.0, "action": "hold"}]'
TASK = TaskTry("d", "t", "r", -1, 1)


class PlayedModal:
    """A logs Volume whose passes return these records, one list a pass."""

    def __init__(self) -> None:
        self.passes: list[list[Record]] = []
        self.read = 0
        self.error: Exception | None = None
        self.logs = SimpleNamespace(add_lines=lambda lines: None)

    async def read_usage(self, files: Any, keep: Any) -> bool:
        self.read += 1
        if self.error is not None:
            raise self.error
        keep(self.passes.pop(0) if self.passes else [])
        return bool(self.passes)

    async def spending_reports(self) -> list[Any]:
        return []

    def rates(self) -> Rates:
        return DATED


def record(call: str) -> Record:
    now = time.time()
    return Record(call, "ta", now - 60, *TASK[:4], 1, reserved=Reserved(cpu=4.0), running=50, occupied=50, peak_mib=9)


def engine(budgets: str = BUDGETS) -> tuple[Wiring, PlayedModal]:
    modal = PlayedModal()
    return wired(modal, budgets=read_budgets("", budgets) if budgets else ()), modal


def dollars(wiring: Wiring) -> float:
    return float(sum(wiring.keeper.spent(time.time())[Per.MONTH].values()))


async def test_one_reading_serves_both() -> None:
    """The reading for the budgets is the history of tasks, too. No task waits for another one."""
    wiring, modal = engine()
    modal.passes = [[record("fc-1")], [record("fc-2")]]
    await wiring.keeper.read()
    assert modal.read == 2
    assert len(wiring.history.runs(TASK)) == 2
    assert dollars(wiring) > 0
    assert wiring.history.want()


async def test_the_history_does_not_read_again_what_was_just_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the budgets are read all the time, tasks that size themselves cost no pass."""
    monkeypatch.setattr(run_history, "FRESH", 0.0)
    wiring, modal = engine()
    await wiring.keeper.read()
    read, history = modal.read, wiring.history
    assert await history.pass_if_due() is False
    assert modal.read == read
    monkeypatch.setattr(run_history, "INTERVAL", 0.0)
    await history.pass_if_due()
    assert modal.read == read + 1


async def test_work_counts_once_although_its_record_was_read_for_others() -> None:
    """Until the next reading of the budgets, it counts as just ended; then its record does."""
    wiring, modal = engine()
    await wiring.keeper.read()
    modal.passes = [[record("fc-1")]]
    await wiring.history._reader.read()
    assert dollars(wiring) == 0
    await wiring.keeper.read()
    assert dollars(wiring) > 0
    before = dollars(wiring)
    await wiring.keeper.read()
    assert dollars(wiring) == before


async def test_a_failed_reading_loses_no_record() -> None:
    """What others read after it is kept."""
    wiring, modal = engine()
    modal.error = exception.ConnectionError("away")
    with pytest.raises(exception.ConnectionError):
        await wiring.keeper.read()
    modal.error, modal.passes = None, [[record("fc-1")]]
    await wiring.history._reader.read()
    await wiring.keeper.read()
    assert dollars(wiring) > 0


async def test_without_budgets_nothing_is_kept_for_them() -> None:
    """Only the history is fed."""
    wiring, modal = engine("")
    modal.passes = [[record("fc-1")]]
    await wiring.history._reader.read()
    assert len(wiring.history.runs(TASK)) == 1
    assert not wiring.keeper._early
