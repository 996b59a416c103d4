"""Paused profiles in the executor, with Modal played: what is held, recalled, released and reported."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from modal import exception

from modalflow.executor.holds import profile_watch
from modalflow.executor.lifecycle import recovery
from modalflow.executor.lifecycle.call import Phase
from modalflow.executor.mailbox import UpdateKind
from modalflow.protocol import profile_holds
from modalflow.protocol.profile_holds import ProfileHold, ProfileHolds
from modalflow.protocol.snapshot import Snapshot
from tests.unit.executor.test_budgets import PlayedAirflow, PlayedModal, Stage, budget, task
from tests.wired import notes, request

WORDS = "profile gpu is paused by ann@host since 2026-11-29 18:30 UTC (new drivers), resume it with `modalflow profile"


class PausingModal(PlayedModal):
    """A played Modal with a record of paused profiles."""

    def __init__(self, containers: int) -> None:
        super().__init__(containers)
        self.record: object = None
        self.fails = False
        self.ledger_fails = False
        self.record_readings = 0

    async def profile_holds(self) -> ProfileHolds:
        self.record_readings += 1
        if self.fails:
            raise exception.ConnectionError("no network")
        return ProfileHolds.from_json(self.record)

    async def ledger(self) -> Any:
        if self.ledger_fails:
            raise exception.ConnectionError("no network")
        return await super().ledger()

    def pause(self, profile: str = "gpu") -> ProfileHold:
        hold = ProfileHold(profile, "ann@host", 1_795_977_000.0, "new drivers")
        self.record = ProfileHolds({profile: hold}).to_json()
        return hold


class PausedStage(Stage):
    """An executor's engine without its thread, whose paused profiles are read when the test says so."""

    modal: PausingModal

    def __init__(self, budgets: str = "[]", containers: int = 10, **settings: Any) -> None:
        super().__init__(budgets, containers, modal=PausingModal, **settings)

    async def until_read(self, condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await self.wiring.profiles.round()
                await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recovery, "PAUSE", 0.05)
    yield


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_paused_profile_gets_nothing_new() -> None:
    """Its tasks wait with the reason, in the task's log, the audit log and `modalflow status`. Other profiles go on,
    and so do callbacks. After the resumption they run in their order. A round costs one RPC."""
    stage = PausedStage(sweep_interval=0.1)
    hold = stage.modal.pause()
    await stage.wiring.profiles.round()
    stage.submit("first", "second", profile="gpu")
    stage.submit("other")
    stage.wiring.intake.accept([request("callback", profile="gpu")])
    await stage.until_read(lambda: {"other", "callback"} <= set(stage.modal.begun))
    assert stage.modal.readings == 0, "the ledger is not read while nothing can be recalled"
    await asyncio.sleep(0.2)
    await stage.wiring.wait_reasons.round()
    [text] = [text for path, text in notes(stage.wiring) if path == "first"]
    assert text.startswith("Not submitted to Modal yet, after ") and WORDS in text
    assert text in stage.reasons(UpdateKind.WAITING)
    await stage.wiring.publisher.publish()
    snapshot = Snapshot.from_json(stage.modal.published[stage.wiring.partition])
    [first] = [call for call in snapshot.calls if call.label == "first"]
    assert first.reason == hold.short_sentence
    assert (snapshot.held, snapshot.held_by_profile) == (2, {"gpu": 2})
    assert snapshot.paused == {"gpu": hold.id} and snapshot.on_modal == {"default": 1, "gpu": 1}
    stage.modal.record = None
    await stage.until_read(lambda: {"first", "second"} <= set(stage.modal.begun))
    assert stage.modal.begun[-2:] == ["first", "second"]
    assert not stage.reasons(UpdateKind.FAILED) and not len(stage.wiring.admission)


async def test_what_no_container_has_begun_comes_back() -> None:
    """A task in Modal's queue is recalled, and begins once after the resumption. A running one goes on."""
    stage = PausedStage(containers=1)
    stage.submit("runs", "queued", profile="gpu")
    await stage.until_read(lambda: stage.modal.spawned == 2)
    stage.modal.pause()
    await stage.until_read(lambda: len(stage.wiring.admission) == 1)
    [held] = stage.wiring.admission.held
    assert held.call.work_id == "queued" and "fc-2" in stage.modal.cancelled and "fc-1" not in stage.modal.cancelled
    assert any(WORDS in text and "taken off Modal's queue" in text for path, text in notes(stage.wiring))
    readings = stage.modal.readings
    for _ in range(5):
        await stage.wiring.profiles.round()
    assert stage.modal.readings == readings, "the ledger is read only while something can be recalled"
    stage.end("runs")
    assert stage.modal.begun == ["runs"], "the free container gets nothing"
    stage.modal.record = None
    await stage.until_read(lambda: stage.modal.begun == ["runs", "queued"])


async def test_recalled_tasks_keep_their_place() -> None:
    """After the resumption, tasks start in the order in which Airflow queued them, also those that were on Modal."""
    stage = PausedStage(containers=0, submit_concurrency=1)
    stage.submit("a", "b", profile="gpu")
    await stage.until_read(lambda: stage.modal.spawned == 2)
    stage.modal.pause()
    await stage.wiring.profiles.round()
    stage.submit("c", profile="gpu")
    await stage.until_read(lambda: len(stage.wiring.admission) == 3)
    stage.modal.containers = 10
    stage.modal.record = None
    await stage.until_read(lambda: len(stage.modal.begun) == 3)
    assert stage.modal.begun == ["a", "b", "c"]


async def test_a_pause_goes_before_a_budget() -> None:
    """A budget that refuses fails no task of a paused profile. After the resumption it does."""
    stage = PausedStage(budget("refuse", 0.0))
    await stage.known()
    stage.modal.pause()
    await stage.wiring.profiles.round()
    stage.submit("task", profile="gpu")
    await stage.wiring.budgets.round()
    assert stage.wiring.admission.by_profile() == {"gpu": 1} and not stage.reasons(UpdateKind.FAILED)
    stage.modal.record = None
    await stage.until_read(lambda: bool(stage.reasons(UpdateKind.FAILED)))
    assert "a budget refuses this task" in stage.reasons(UpdateKind.FAILED)[0]


async def test_a_malformed_record_costs_no_task(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and pauses nothing."""
    stage = PausedStage()
    stage.modal.record = '{"profiles": {"gpu": {"since": "yesterday"}}}'
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await stage.wiring.profiles.round()
        stage.submit("task", profile="gpu")
        await stage.until_read(lambda: stage.modal.begun == ["task"])
    [text] = warnings(caplog)
    assert "The record of paused profiles is malformed" in text and "profile gpu: " in text


async def test_a_record_that_cannot_be_read_changes_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Modal does not answer, the last known pauses count, and the log has one line."""
    monkeypatch.setattr(profile_holds, "INTERVAL", 0.01)
    stage = PausedStage()
    stage.modal.pause()
    await stage.wiring.profiles.round()
    stage.modal.fails = True
    with caplog.at_level(logging.WARNING):
        watching = asyncio.create_task(stage.wiring.profiles.run())
        before = stage.modal.record_readings
        await stage.until(lambda: stage.modal.record_readings > before + 3)
        stage.submit("task", profile="gpu")
        assert len(stage.wiring.admission) == 1
        watching.cancel()
    [text] = warnings(caplog)
    assert "The paused profiles could not be read, so the last known ones count (" in text


async def test_nothing_is_submitted_before_the_pauses_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarted scheduler waits for its first reading, but not forever."""
    stage = PausedStage()
    known = asyncio.create_task(stage.wiring.profiles.known())
    await asyncio.sleep(0.01)
    assert not known.done()
    await stage.wiring.profiles.round()
    await known
    monkeypatch.setattr(profile_watch, "FIRST_READING", 0.01)
    await PausedStage().wiring.profiles.known()


async def test_a_long_pause_loses_no_task() -> None:
    """Airflow does not give a task up that waits for a profile, and a released one gets a new token. One that a user
    has marked or cleared meanwhile leaves."""
    airflow = PlayedAirflow()
    stage = PausedStage(database=airflow, queued_timeout=0.2, sweep_interval=0.01)
    asking = asyncio.create_task(stage.wiring.queries.run())
    stage.modal.pause()
    await stage.wiring.profiles.round()
    stage.wiring.intake.accept([task("held", profile="gpu"), task("marked", profile="gpu")])
    await asyncio.sleep(0.1)
    await stage.wiring.held_tasks.renew()
    assert sorted(airflow.renewed) == ["held", "marked"]
    airflow.gone.add("marked")
    await stage.wiring.wait_reasons.round()
    await stage.until_read(lambda: len(stage.wiring.admission) == 1)
    stage.modal.record = None
    await stage.until_read(lambda: stage.modal.begun == ["held"])
    assert airflow.requests == 1
    asking.cancel()


async def test_an_unreadable_ledger_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """The pause counts, and what waits on Modal is recalled once the ledger can be read."""
    stage = PausedStage(containers=0)
    stage.submit("first", profile="gpu")
    await stage.until_read(lambda: stage.modal.spawned == 1)
    stage.modal.pause()
    stage.modal.ledger_fails = True
    for _ in range(3):
        await stage.wiring.profiles.round()
    assert [each.partition(" (")[0] for each in warnings(caplog)] == [
        "What runs in paused profiles could not be read; the next check tries again"
    ]
    stage.modal.ledger_fails = False
    await stage.until_read(lambda: len(stage.wiring.admission) == 1)


async def test_a_change_while_a_call_is_recalled_ends_well() -> None:
    """A profile that is paused and resumed again and again runs each task once."""
    stage = PausedStage(containers=0)
    names = [f"task-{n}" for n in range(20)]
    stage.submit(*names, profile="gpu")
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        stage.modal.pause()
        await stage.wiring.profiles.round()
        await asyncio.sleep(0.03)
        stage.modal.record = None
        await stage.wiring.profiles.round()
        await asyncio.sleep(0.02)
    stage.modal.containers = 100
    stage.modal.fill()
    await stage.until_read(lambda: len(stage.modal.begun) >= len(names))
    assert sorted(stage.modal.begun) == sorted(names)
    assert all(call.phase is not Phase.SETTLED for call in stage.wiring.calls)
