"""Whatever a container or Modal reports of a workload, a scheduler is handed what it can store, and raises nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Coroutine, Iterator
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
from modalflow.executor.lifecycle.decision import PENDING, RETURNED, Policy, Verdict
from modalflow.executor.lifecycle.events import listen
from modalflow.executor.lifecycle.sweeper import Sweeper
from modalflow.executor.lifecycle.tracker import Link, Tracker
from modalflow.executor.mailbox import News, NewsKind, Order
from modalflow.executor.modal_api.call_status import verdict_of
from modalflow.executor.modal_executor import ModalExecutor
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.submission.resources import Resources
from modalflow.executor.workloads import external_id, stored_work_id
from modalflow.protocol.messages import Entry, Kind, State, Submission
from modalflow.reasons import Cause
from modalflow.support.text import STORED
from tests.strange import JSON_VALUES, TEXTS

WORK = "work-1"
KEY = TaskInstanceKey("dag", "task", "run", 1, -1)
POLICY = Policy(task_timeout=3600, submit_attempts=1, retry_commands=False)

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

    def __init__(self, reports: list[Any], verdict: Verdict = RETURNED) -> None:
        self.reports = reports
        self.given = verdict

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

    async def verdict(self, function_call_id: str) -> Verdict:
        return self.given

    async def cancelled_by(self, work_id: str) -> str:
        return ""


class Scheduler:
    """A started executor with the engine's table of calls, and with what it has told Airflow."""

    def __init__(self, modal: FakeModal, key: Any = KEY) -> None:
        self.coroutines: list[Coroutine[Any, Any, Any]] = []
        self.tracker = Tracker("p", POLICY, Link(modal), run=self.coroutines.append)  # type: ignore[arg-type]
        self.tracker.say = lambda log_path, text, level: said.append(text)
        self.said = said = list[str]()
        self.executor = ModalExecutor()
        engine = mock.create_autospec(Engine, instance=True)
        engine.take_news.side_effect = self._news
        self.executor._engines[""] = engine
        self.take(key, WORK)
        call = self.tracker.calls.get(WORK)
        assert call is not None
        self.call = call
        self.call.function_call_id = "fc-1"

    def take(self, key: Any, work_id: str) -> None:
        submission = Submission(work_id, Kind.COMMAND, "a.log", "", "a command", command=("true",))
        self.tracker.take([Order(key, submission, Resources(), None, None)])
        self.executor.running.add(key)
        self.executor._origins[key] = work_id

    def _news(self, most: int) -> Iterator[News]:
        while self.tracker.news:
            yield self.tracker.news.popleft()

    def heartbeats(self) -> dict[Any, Any]:
        """What Airflow is told, and has to store, in some heartbeats; with what it finds in its event log."""
        told: dict[Any, Any] = {}
        for _ in range(3):
            self.executor.heartbeat()
            told |= self.executor.get_event_buffer()
        for event in self.executor._unsaved_events:
            assert_storable(event.extra)
        for _, info in told.values():
            assert_storable(info)
        for text in self.said:
            text.encode()
        for coroutine in self.coroutines:
            coroutine.close()
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
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(listen(scheduler.tracker))
    scheduler.heartbeats()
    assert scheduler.call.settled == (KEY not in scheduler.executor.running)


@settings(max_examples=30, deadline=None)
@given(REPORTS, st.booleans(), TEXTS)
def test_a_look_up_ends_what_has_ended(report: Any, ended: bool, words: str) -> None:
    """Where Modal says that a call has ended, its workload ends, whatever is in the ledger."""
    verdict = verdict_of(exception.RemoteError(words)) if ended else PENDING
    scheduler = Scheduler(FakeModal([report], verdict))
    sweeper = Sweeper(scheduler.tracker, 1.0)
    scheduler.tracker.explain = sweeper.explain
    asyncio.run(sweeper.look(scheduler.call))
    asyncio.run(_explained(scheduler))
    told = scheduler.heartbeats()
    assert not ended or scheduler.call.settled
    assert scheduler.call.settled == (KEY not in scheduler.executor.running)
    assert set(told) <= {KEY}


async def _explained(scheduler: Scheduler) -> None:
    """Carry out the questions about ends that the tracker has started, and nothing else."""
    for coroutine in list(scheduler.coroutines):
        if "explain" in repr(coroutine):
            scheduler.coroutines.remove(coroutine)
            await coroutine


class Breaking(FakeModal):
    """Modal behind a connection that breaks, which the SDK reports as an error of Python's."""

    async def verdict(self, function_call_id: str) -> Verdict:
        raise AttributeError("'NoneType' object has no attribute 'send_request'")

    async def cancelled_by(self, work_id: str) -> str:
        raise AttributeError("'NoneType' object has no attribute 'send_request'")


def test_a_connection_that_breaks_fails_nothing_at_once() -> None:
    """What nobody foresaw may pass; what does not pass ends the workload rather than being asked for ever."""
    scheduler = Scheduler(Breaking([]))
    sweeper = Sweeper(scheduler.tracker, 1.0)
    for _ in range(MAX_ERRORS - 1):
        asyncio.run(sweeper.look(scheduler.call))
        assert not scheduler.call.settled
    asyncio.run(sweeper.look(scheduler.call))
    state, info = scheduler.heartbeats()[KEY]
    assert (str(state), "send_request" in info) == ("failed", True)


def test_an_end_is_delivered_without_modals_word_on_it() -> None:
    """The ledger has the outcome of a cancelled call; that Modal cannot be asked who did so changes nothing of it."""
    scheduler = Scheduler(Breaking([]))
    entry = Entry.from_json(json.dumps(BASE | {"cause": "cancelled", "reason": "it was cancelled"}))
    asyncio.run(Sweeper(scheduler.tracker, 1.0).explain(scheduler.call, entry))
    assert scheduler.heartbeats()[KEY][1] == "it was cancelled"


@pytest.mark.parametrize("broken", ["deliver", "fail"])
def test_a_fault_of_our_own_ends_that_workload_alone(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is raised while an event is taken, its workload fails with a reason, and the next event is taken."""
    other = TaskInstanceKey("dag", "other", "run", 1, -1)
    texts = [json.dumps(BASE), json.dumps(BASE | {"work_id": "work-2", "state": "success"})]
    scheduler = Scheduler(FakeModal(texts))
    scheduler.take(other, "work-2")
    original = Tracker.deliver

    def deliver(self: Tracker, call: Call, entry: Entry) -> None:
        if call.work_id == WORK:
            raise RuntimeError("not thought of \x00")
        original(self, call, entry)

    faults: list[Any] = [mock.patch.object(Tracker, "deliver", deliver)]
    if broken == "fail":
        faults.append(mock.patch.object(Tracker, "fail", side_effect=RuntimeError("nor of this")))
    with contextlib.ExitStack() as stack, contextlib.suppress(asyncio.CancelledError):
        for fault in faults:
            stack.enter_context(fault)
        asyncio.run(listen(scheduler.tracker))
    told = scheduler.heartbeats()
    assert [str(told[key][0]) for key in (KEY, other)] == ["failed", "success"]
    assert "not thought of \\x00" in told[KEY][1]
    assert "not thought of" in caplog.text


@pytest.mark.parametrize("broken", ["success", "log_task_event", "running_state"])
def test_what_airflow_does_not_take_ends_that_workload_alone(broken: str) -> None:
    """Where Airflow's own method raises for one workload, all others' news are told, and none is left running."""
    keys = [TaskInstanceKey("dag", f"task_{number}", "run", 1, -1) for number in range(3)]
    scheduler = Scheduler(FakeModal([]))
    scheduler.executor.running.discard(KEY)
    for key in keys:
        scheduler.take(key, key.task_id)
    base = ModalExecutor.__mro__[2]
    original = getattr(base, broken)

    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        if keys[1] in (*args, kwargs.get("ti_key")):
            raise ValueError("A string literal cannot contain NUL (0x00) characters.")
        return original(self, *args, **kwargs)

    for key in keys:
        scheduler.tracker.news.append(News(NewsKind.STARTED, key, key.task_id, key.task_id, "fc-1"))
        scheduler.tracker.news.append(News(NewsKind.WAITING, key, key.task_id, key.task_id, "fc-1", "it waits"))
    with mock.patch.object(base, broken, refuse):
        scheduler.executor.heartbeat()
        for key in keys:
            kind = NewsKind.FAILED if broken == "log_task_event" else NewsKind.SUCCESS
            scheduler.tracker.news.append(News(kind, key, key.task_id, key.task_id, "fc-1", "because"))
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
    """What Modal says of a function call becomes a verdict with words of a bounded length."""
    for error in (exception.RemoteError, exception.ExecutionError, exception.InternalFailure):
        verdict = verdict_of(error(words))
        assert verdict.ended
        assert isinstance(verdict.cause, Cause)


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
    """The traceback module raises for a SyntaxError with odd attributes, and a log call must not."""
    try:
        raise SyntaxError("odd", details)
    except SyntaxError:
        logger("modalflow.executor.forged").exception("It failed")
    assert "It failed\nSyntaxError: odd" in caplog.text
