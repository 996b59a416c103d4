"""Calls through the engine's real objects, whatever Modal, workers and Airflow do, in whatever order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from modal import exception

from modalflow.executor.lifecycle.airflow_state import AirflowState, StateAnswer, StateQuery
from modalflow.executor.lifecycle.call import Phase
from modalflow.executor.mailbox import Adoption, UpdateKind
from modalflow.executor.modal_api.call_status import PENDING, RETURNED, CallStatus
from modalflow.executor.submission.resources import Resources
from modalflow.protocol.messages import Deployment, Entry, Kind, State
from modalflow.reasons import Cause
from modalflow.support import backoff
from tests.wired import request, wired

#: What Modal answers to a spawn, besides a function call id.
REFUSALS: dict[str, Exception] = {
    "rate limit": exception.ResourceExhaustedError("busy"),
    "transient": exception.InternalError("broken"),
    "lost answer": exception.ConnectionError("away"),
    "not deployed": exception.NotFoundError("no app"),
    "refused": exception.InvalidError("no such GPU"),
}
#: How a worker reports an end: success, or failure with a cause.
ENDS = ["", "failed", Cause.CANCELLED.value, Cause.API_UNREACHABLE.value, Cause.CONTAINER_LOST.value]

#: Which of the things that there are: how many there are depends on the engine, and so on time.
WHICH = st.integers(0, 11)


class PlayedModal:
    """Modal as a model: function calls, the ledger, and what they say."""

    def __init__(self) -> None:
        self.refusal = ""
        self.is_slow = False
        self.calls: dict[str, str] = {}
        """Function call id → work id."""
        self.statuses: dict[str, CallStatus] = {}
        self.ledger: dict[str, Entry] = {}
        self.claims: dict[str, set[str]] = {}
        """Work id → the function calls that have run it."""

    async def spawn(self, profile: str, resources: Resources, wire: Mapping[str, Any]) -> str:
        await asyncio.sleep(0)
        while self.is_slow:
            await asyncio.sleep(0.001)
        if self.refusal and self.refusal != "lost answer":
            raise REFUSALS[self.refusal]
        function_call_id = f"fc-{len(self.calls)}"
        self.calls[function_call_id] = wire["work_id"]
        if self.refusal:
            raise REFUSALS[self.refusal]
        return function_call_id

    async def call_status(self, function_call_id: str) -> CallStatus:
        return self.statuses.get(function_call_id, PENDING)

    async def entry(self, work_id: str) -> Entry | None:
        return self.ledger.get(work_id)

    async def claim(self, entry: Entry) -> bool:
        return self.ledger.setdefault(entry.work_id, entry) is entry

    async def take_entry(self, work_id: str) -> Entry | None:
        return self.ledger.pop(work_id, None)

    async def forget(self, work_id: str) -> None:
        self.ledger.pop(work_id, None)

    async def cancel(self, function_call_id: str) -> None:
        self.statuses[function_call_id] = CallStatus(True, "cancelled", Cause.CANCELLED)

    async def cancelled_by(self, work_id: str) -> str:
        return ""

    def forget_handles(self) -> None: ...

    async def record(self) -> Deployment:
        return Deployment("", 1, "", "", ("default", "gpu"), {}, 0.0)

    def begins(self, function_call_id: str, partition: str) -> bool:
        """Let a container claim the work of a function call, as a worker does."""
        work_id = self.calls[function_call_id]
        if work_id in self.ledger or self.statuses.get(function_call_id, PENDING).ended:
            return False
        self.ledger[work_id] = Entry(
            work_id, State.RUNNING, function_call_id, "ta-1", "o", work_id, partition, started_at=time.time()
        )
        return True

    def ends(self, work_id: str, cause: str) -> Entry:
        """Let the worker of a claimed work id report its end; return the event."""
        claimed = self.ledger[work_id]
        if cause != Cause.API_UNREACHABLE.value:
            self.claims.setdefault(work_id, set()).add(claimed.function_call_id)
        state = State.FAILED if cause else State.SUCCESS
        known = cause if cause in {each.value for each in Cause} else ""
        entry = dataclasses.replace(claimed, state=state, finished_at=time.time(), return_code=0, reason="why")
        self.ledger[work_id] = entry = dataclasses.replace(entry, cause=known)
        self.statuses[claimed.function_call_id] = RETURNED
        return entry


class PlayedAirflow:
    """Airflow's database as a model: what it has for each work id."""

    def __init__(self) -> None:
        self.states: dict[str, AirflowState] = {}
        self.away = False

    def renew_queued(self, queries: Sequence[StateQuery]) -> None: ...

    def answer(self, queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        if self.away:
            raise OSError("no database")
        answers = {}
        for query in queries:
            state = self.states.get(query.work_id, AirflowState.WAITING)
            again = query.with_request and state is AirflowState.WAITING
            answers[query.work_id] = StateAnswer(state, request(query.work_id) if again else None)
        return answers


class Unexpected(logging.Handler):
    """Notes each error that the executor did not foresee."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.texts.append(self.format(record))


class Lives(RuleBasedStateMachine):
    """An engine without its thread, in a world that may do anything."""

    @initialize()
    def begins(self) -> None:
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(backoff.testing(0.001))
        for name, value in {
            "airflow_state.GATHER": 0.0,
            "outcomes.FIRST_CHECK": 1000.0,
            "tracker.EXPLANATION_WAIT": 0.002,
            "tracker.EXPLANATION_POLL": 0.001,
        }.items():
            self.stack.enter_context(mock.patch(f"modalflow.executor.lifecycle.{name}", value))
        self.unexpected = Unexpected()
        log = logging.getLogger("modalflow.executor")
        log.addHandler(self.unexpected)
        self.stack.callback(log.removeHandler, self.unexpected)
        self.loop = asyncio.new_event_loop()
        self.modal, self.airflow = PlayedModal(), PlayedAirflow()
        self.wiring = wired(self.modal, database=self.airflow, loop=self.loop, submit_attempts=2, max_option_sets=0)
        self.asking = self.loop.create_task(self.wiring.queries.run())
        self.wiring.submitter.start()
        self.work_ids: list[str] = []
        self.revoked: set[str] = set()

    def settle(self, turns: int = 3) -> None:
        """Let the loop run until nothing more happens of its own accord, or for a moment."""

        async def wait() -> None:
            for _ in range(turns):
                await asyncio.sleep(0.003)

        self.loop.run_until_complete(wait())

    @precondition(lambda self: len(self.work_ids) < 4)
    @rule(kind=st.sampled_from([Kind.WORKLOAD, Kind.COMMAND]))
    def submit(self, kind: Kind) -> None:
        self.work_ids.append(f"w{len(self.work_ids)}")
        self.wiring.intake.accept([request(self.work_ids[-1], kind)])
        self.settle()

    @precondition(lambda self: len(self.work_ids) < 4)
    @rule(known=st.booleans())
    def adopt(self, known: bool) -> None:
        work_id = f"w{len(self.work_ids)}"
        self.work_ids.append(work_id)
        function_call_id = f"fc-{len(self.modal.calls)}" if known else None
        if function_call_id:
            self.modal.calls[function_call_id] = work_id
        self.wiring.adopter.adopt([Adoption(work_id, work_id, function_call_id, work_id, work_id)])
        self.settle()

    @rule(refusal=st.sampled_from(["", "", *REFUSALS]), is_slow=st.booleans())
    def modal_answers(self, refusal: str, is_slow: bool) -> None:
        self.modal.refusal, self.modal.is_slow = refusal, is_slow
        self.settle()

    @rule(which=WHICH)
    def container_begins(self, which: int) -> None:
        if function_calls := list(self.modal.calls):
            self.modal.begins(function_calls[which % len(function_calls)], self.wiring.partition)

    @rule(which=WHICH, cause=st.sampled_from(ENDS), is_lost=st.booleans())
    def container_ends(self, which: int, cause: str, is_lost: bool) -> None:
        self.container_begins(which)
        running = sorted(name for name, entry in self.modal.ledger.items() if entry.state is State.RUNNING)
        if running:
            event = self.modal.ends(running[which % len(running)], cause)
            if not is_lost:
                self.wiring.tracker.on_event(event, self.wiring.partition)
            self.settle()

    @rule(which=WHICH, cause=st.sampled_from([Cause.CONTAINER_LOST, Cause.NO_OUTCOME, Cause.NOT_STARTABLE]))
    def function_call_ends(self, which: int, cause: Cause) -> None:
        if function_calls := list(self.modal.calls):
            self.modal.statuses[function_calls[which % len(function_calls)]] = CallStatus(True, "", cause)

    @rule()
    def sweep(self) -> None:
        self.loop.run_until_complete(self._look_up_all())
        self.settle()

    async def _look_up_all(self) -> None:
        await asyncio.gather(*(self.wiring.sweeper.check(call) for call in self.wiring.calls))

    @rule(which=WHICH, state=st.sampled_from([AirflowState.WAITING, AirflowState.RUNNING, AirflowState.GONE]))
    def airflow_has(self, which: int, state: AirflowState) -> None:
        if self.work_ids:
            self.airflow.states[self.work_ids[which % len(self.work_ids)]] = state

    @rule(away=st.booleans())
    def database_is(self, away: bool) -> None:
        self.airflow.away = away

    @rule()
    def thread_is_restarted(self) -> None:
        self.wiring.submitter.stop()
        self.wiring.submitter.start()
        self.settle()

    @precondition(lambda self: self.work_ids)
    @rule(which=WHICH)
    def revoke(self, which: int) -> None:
        work_id = self.work_ids[which % len(self.work_ids)]
        if self.wiring.calls.of_key(work_id) is not None:
            self.revoked.add(work_id)
        self.wiring.outcomes.revoke(work_id, "it took too long")
        self.settle()

    @invariant()
    def nothing_is_unexpected(self) -> None:
        if hasattr(self, "unexpected"):
            assert self.unexpected.texts == []

    @invariant()
    def ends_once(self) -> None:
        if hasattr(self, "wiring"):
            origins = [update.origin for update in self._ends()]
            assert len(origins) == len(set(origins))

    @invariant()
    def runs_once(self) -> None:
        if hasattr(self, "modal"):
            assert all(len(calls) == 1 for calls in self.modal.claims.values())

    def _ends(self) -> Iterator[Any]:
        kinds = (UpdateKind.SUCCESS, UpdateKind.FAILED, UpdateKind.OVER)
        return (update for update in self.wiring.outbox.updates if update.kind in kinds and not update.repeated)

    def teardown(self) -> None:
        if not hasattr(self, "wiring"):
            return
        try:
            self._heal()
            assert not len(self.wiring.calls), self.wiring.calls.describe("", 0.0, 0.0)
            ended = {update.origin for update in self._ends()}
            assert ended | self.revoked == set(self.work_ids)
            assert self.unexpected.texts == []
        finally:
            self.asking.cancel()
            self.loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(self.loop), return_exceptions=True))
            self.loop.close()
            self.stack.close()

    def _heal(self) -> None:
        """Let everything work, and every container end what it has: then every call must end."""
        self.modal.refusal, self.modal.is_slow, self.airflow.away = "", False, False
        for _ in range(60):
            self.settle(2)
            if not len(self.wiring.calls) and len({update.origin for update in self._ends()} | self.revoked) == len(
                self.work_ids
            ):
                return
            for function_call_id in list(self.modal.calls):
                if not self.modal.begins(function_call_id, self.wiring.partition):
                    self.modal.statuses.setdefault(function_call_id, RETURNED)
            for work_id, entry in list(self.modal.ledger.items()):
                if entry.state is State.RUNNING:
                    self.modal.ends(work_id, "")
            for call in self.wiring.calls:
                if call.phase is Phase.ADOPTED:
                    self.airflow.states[call.origin] = AirflowState.GONE
            self.sweep()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_each_refusal_is_one_that_the_sdk_raises(refusal: str) -> None:
    """The model's errors are the SDK's own."""
    assert isinstance(REFUSALS[refusal], exception.Error)
