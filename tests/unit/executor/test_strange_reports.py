"""Whatever a container or Modal reports of a workload, a scheduler is handed what it can store, and raises nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Coroutine
from typing import Any
from unittest import mock

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey
from hypothesis import given, settings
from hypothesis import strategies as st
from modal import exception

from modalflow.errors import MalformedMessageError
from modalflow.executor.engine import Engine
from modalflow.executor.lifecycle.call import MAX_ERRORS, Call
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.mailbox import Update, UpdateKind
from modalflow.executor.modal_api.call_status import PENDING, RETURNED, CallStatus, call_status_of
from modalflow.executor.modal_executor import ModalExecutor
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.workloads import external_id, stored_work_id
from modalflow.protocol.messages import Entry, Kind, State
from modalflow.reasons import Cause
from modalflow.support.text import STORED
from tests.strange import JSON_VALUES, TEXTS
from tests.wired import notes, request, wired

WORK = "work-1"
KEY = TaskInstanceKey("dag", "task", "run", 1, -1)

#: What a ledger or a queue could hold for WORK: an entry with any field replaced by anything.
BASE = json.loads(Entry(WORK, State.FAILED, "fc-1", "ta-1", "owner", reason="because").to_json())
FIELDS = st.sampled_from([name for name in BASE if name != "work_id"])
REPORTS = st.one_of(
    st.dictionaries(FIELDS, JSON_VALUES, max_size=3).map(lambda changed: json.dumps(BASE | changed)),
    st.dictionaries(st.sampled_from(["reason", "container_id", "function_call_id", "cause", "final_state"]), TEXTS).map(
        lambda changed: json.dumps(BASE | changed)
    ),
    TEXTS,
    JSON_VALUES,
)


class FakeModal:
    """Modal, as far as events and look-ups go: it returns what it was made with, read as the real one reads it."""

    def __init__(self, reports: list[Any], status: CallStatus = RETURNED) -> None:
        self.reports = reports
        self.status = status

    async def next_events(self, partition: str, most: int, wait: float) -> list[Entry]:
        if not self.reports:
            raise asyncio.CancelledError
        found = []
        for report in self.reports:
            with contextlib.suppress(MalformedMessageError):
                found.append(Entry.from_json(report))
        self.reports = []
        return found

    async def entry(self, work_id: str) -> Entry | None:
        return Entry.from_json(self.reports[0]) if self.reports else None

    async def call_status(self, function_call_id: str) -> CallStatus:
        return self.status

    async def claim(self, entry: Entry) -> bool:
        return True

    async def forget(self, work_id: str) -> None: ...

    async def cancelled_by(self, work_id: str) -> str:
        return ""


class Scheduler:
    """A started executor with the engine's objects, and with what it has reported to Airflow."""

    def __init__(self, modal: FakeModal, key: Any = KEY) -> None:
        self.loop = asyncio.new_event_loop()
        self.wiring = wired(modal, loop=self.loop, submit_attempts=1, sweep_interval=1.0)
        self.outbox = self.wiring.outbox
        self.executor = ModalExecutor()
        engine = mock.create_autospec(Engine, instance=True, held=0)
        engine.take_updates.side_effect = self.outbox.take
        self.executor._engines[""] = engine
        self.submit(key, WORK)
        call = self.wiring.calls.get(WORK)
        assert call is not None
        self.call = call

    def submit(self, key: Any, work_id: str) -> None:
        self.wiring.intake.accept([request(work_id, Kind.COMMAND, key=key)])
        call = self.wiring.calls.get(work_id)
        assert call is not None
        call.spawning()
        call.submitted("fc-1", 0.0)
        self.executor.running.add(key)
        self.executor._origins[key] = work_id

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run something on the engine's loop, and what it spawns there."""
        self.loop.run_until_complete(self._until_idle(coroutine))

    async def _until_idle(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await coroutine
        async with asyncio.timeout(30):
            while len(self.wiring.rpcs):
                await asyncio.sleep(0.001)

    def heartbeats(self) -> dict[Any, Any]:
        """What is reported to Airflow, which has to store it, in some heartbeats; its event log is checked as well."""
        told: dict[Any, Any] = {}
        for _ in range(3):
            self.executor.heartbeat()
            told |= self.executor.get_event_buffer()
        for event in self.executor._unsaved_events:
            assert_storable(event.extra)
        for _, info in told.values():
            assert_storable(info)
        for _, text in notes(self.wiring):
            text.encode()
        self.loop.close()
        return told


def assert_storable(text: Any) -> None:
    """PostgreSQL refuses NUL and surrogates, MySQL more than 65,535 bytes."""
    if text is not None:
        assert type(text) is str
        assert len(text.encode("utf-8")) < 65_535
        assert len(text) <= STORED
        assert not any(character < " " and character not in "\t\n" for character in text)


@settings(max_examples=30, deadline=None)
@given(st.lists(REPORTS, max_size=3))
def test_events_of_any_form_harm_nobody(reports: list[Any]) -> None:
    """Events that cannot be read are passed over; of the others, what Airflow is told can be stored."""
    scheduler = Scheduler(FakeModal(reports))
    scheduler.run(scheduler.wiring.events.run())
    scheduler.heartbeats()
    assert scheduler.call.settled == (KEY not in scheduler.executor.running)


@settings(max_examples=30, deadline=None)
@given(REPORTS, st.booleans(), TEXTS)
def test_a_look_up_ends_what_has_ended(report: Any, ended: bool, words: str) -> None:
    """Where Modal says that a call has ended, its workload ends, whatever is in the ledger."""
    status = call_status_of(exception.RemoteError(words)) if ended else PENDING
    scheduler = Scheduler(FakeModal([report], status))
    with mock.patch("modalflow.executor.lifecycle.tracker.EXPLANATION_WAIT", 0.01):
        scheduler.run(scheduler.wiring.sweeper.check(scheduler.call))
    told = scheduler.heartbeats()
    assert not ended or scheduler.call.settled
    assert scheduler.call.settled == (KEY not in scheduler.executor.running)
    assert set(told) <= {KEY}


class Breaking(FakeModal):
    """Modal behind a connection that breaks, which the SDK reports as an error of Python's."""

    async def call_status(self, function_call_id: str) -> CallStatus:
        raise AttributeError("'NoneType' object has no attribute 'send_request'")

    async def cancelled_by(self, work_id: str) -> str:
        raise AttributeError("'NoneType' object has no attribute 'send_request'")


def test_a_connection_that_breaks_fails_nothing_at_once() -> None:
    """What nobody foresaw may pass; what does not pass ends the workload rather than being asked for ever."""
    scheduler = Scheduler(Breaking([]))
    for _ in range(MAX_ERRORS - 1):
        scheduler.run(scheduler.wiring.sweeper.check(scheduler.call))
        assert not scheduler.call.settled
    scheduler.run(scheduler.wiring.sweeper.check(scheduler.call))
    state, info = scheduler.heartbeats()[KEY]
    assert (str(state), "send_request" in info) == ("failed", True)


def test_an_end_is_delivered_without_modals_word_on_it() -> None:
    """The ledger has the outcome of a cancelled call; that Modal cannot be asked who did so changes nothing of it."""
    scheduler = Scheduler(Breaking([]))
    entry = Entry.from_json(json.dumps(BASE | {"cause": "cancelled", "reason": "it was cancelled"}))

    async def arrive() -> None:
        scheduler.wiring.tracker.on_event(entry, scheduler.wiring.partition)

    scheduler.run(arrive())
    assert scheduler.heartbeats()[KEY][1] == "it was cancelled"


@pytest.mark.parametrize("broken", ["deliver", "fail"])
def test_a_fault_of_our_own_ends_that_workload_alone(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is raised while an event is taken, its workload fails with a reason, and the next event is taken."""
    other = TaskInstanceKey("dag", "other", "run", 1, -1)
    texts = [json.dumps(BASE), json.dumps(BASE | {"work_id": "work-2", "state": "success"})]
    scheduler = Scheduler(FakeModal(texts))
    scheduler.submit(other, "work-2")
    original = Tracker.deliver

    def deliver(self: Tracker, call: Call, entry: Entry) -> None:
        if call.work_id == WORK:
            raise RuntimeError("not thought of \x00")
        original(self, call, entry)

    faults: list[Any] = [mock.patch.object(Tracker, "deliver", deliver)]
    if broken == "fail":
        faults.append(mock.patch.object(Outcomes, "fail", side_effect=RuntimeError("nor of this")))
    with contextlib.ExitStack() as stack:
        for fault in faults:
            stack.enter_context(fault)
        scheduler.run(scheduler.wiring.events.run())
    told = scheduler.heartbeats()
    assert [str(told[key][0]) for key in (KEY, other)] == ["failed", "success"]
    assert "not thought of \\x00" in told[KEY][1]
    assert "not thought of" in caplog.text


@pytest.mark.parametrize("broken", ["success", "log_task_event", "running_state"])
def test_what_airflow_does_not_take_ends_that_workload_alone(broken: str) -> None:
    """Where Airflow's own method raises for one workload, all others are reported, and none is left running."""
    keys = [TaskInstanceKey("dag", f"task_{number}", "run", 1, -1) for number in range(3)]
    scheduler = Scheduler(FakeModal([]))
    scheduler.executor.running.discard(KEY)
    for key in keys:
        scheduler.submit(key, key.task_id)
    base = ModalExecutor.__mro__[2]
    original = getattr(base, broken)

    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        if keys[1] in (*args, kwargs.get("ti_key")):
            raise ValueError("A string literal cannot contain NUL (0x00) characters.")
        return original(self, *args, **kwargs)

    for key in keys:
        scheduler.outbox.add(Update(UpdateKind.STARTED, key, key.task_id, key.task_id, "fc-1"))
        scheduler.outbox.add(Update(UpdateKind.WAITING, key, key.task_id, key.task_id, "fc-1", "it waits"))
    with mock.patch.object(base, broken, refuse):
        scheduler.executor.heartbeat()
        for key in keys:
            kind = UpdateKind.FAILED if broken == "log_task_event" else UpdateKind.SUCCESS
            scheduler.outbox.add(Update(kind, key, key.task_id, key.task_id, "fc-1", "because"))
        told = scheduler.heartbeats()
    ends = [str(told[key][0]) for key in keys]
    assert (
        ends
        == {
            "success": ["success", "failed", "success"],
            "log_task_event": ["failed"] * 3,
            "running_state": ["success"] * 3,
        }[broken]
    )
    assert not scheduler.executor.running


@settings(deadline=None)
@given(TEXTS, st.uuids())
def test_an_external_id_fits_and_is_adopted_by(call_id: str, work_id: uuid.UUID) -> None:
    """Airflow stores 250 characters, and an adopting scheduler reads the work id out of them."""
    stored = external_id(str(work_id), call_id)
    assert len(stored) <= 250
    assert stored_work_id(stored) == str(work_id)
    assert_storable(stored)


@settings(deadline=None)
@given(TEXTS)
def test_no_ending_of_modals_is_unreadable(words: str) -> None:
    """What Modal reports of a function call becomes a status with words of a bounded length."""
    for error in (exception.RemoteError, exception.ExecutionError, exception.InternalFailure):
        status = call_status_of(error(words))
        assert status.ended
        assert isinstance(status.cause, Cause)


def test_what_was_reported_cannot_forge_lines_of_the_schedulers_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each argument of a log call is one line, and so is what a traceback ends with."""
    log = logger("modalflow.executor.forged")
    with caplog.at_level(logging.INFO):
        log.warning("%s: %s (%d, %.1f)", "label", RuntimeError("one\n2026-01-01 INFO all is well\x1b[2J"), 3, 1.5)
        try:
            raise RuntimeError("two\x1b[2J\udce9")
        except RuntimeError:
            log.exception("It failed")
    assert caplog.messages[0] == "label: one\\n2026-01-01 INFO all is well\\x1b[2J (3, 1.5)"
    assert "\x1b" not in caplog.text
    assert "Traceback" in caplog.text and "two\\x1b[2J\\udce9" in caplog.text


@pytest.mark.parametrize("details", [("f", 1, 1, 5), (b"f", "one", "two", b"three")])
def test_a_traceback_that_cannot_be_formatted_costs_its_frames_alone(
    caplog: pytest.LogCaptureFixture, details: tuple[Any, ...]
) -> None:
    """The traceback module raises for a SyntaxError with odd attributes before Python 3.13; a log call must not."""
    try:
        raise SyntaxError("odd", details)
    except SyntaxError:
        logger("modalflow.executor.forged").exception("It failed")
    assert "It failed" in caplog.text and "\nSyntaxError: odd" in caplog.text
