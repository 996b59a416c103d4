"""A loss outside of the task's fault: Airflow is asked to run the task again before any failure is reported."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from unittest import mock

import pytest

from modalflow.executor.lifecycle import airflow_state, outcomes
from modalflow.executor.lifecycle.airflow_state import AirflowState, StateAnswer, StateQuery
from modalflow.executor.mailbox import Update, UpdateKind
from modalflow.executor.modal_api.call_status import RETURNED, CallStatus
from modalflow.executor.wiring import Wiring
from modalflow.protocol.messages import Deployment, Entry, Kind, State
from modalflow.reasons import EXPLANATIONS, Cause
from tests.wired import kinds, notes, request, submitted, wired

LOCKED = StateAnswer(AirflowState.LOCKED)
RUNS = StateAnswer(AirflowState.RUNNING)
AGAIN = StateAnswer(AirflowState.GONE, queued_again="Lost, run again.")


@dataclass
class Airflow:
    """A database with these answers about losses, the last of them for good, and one about everything else."""

    answers: list[StateAnswer]
    queries: list[StateQuery] = field(default_factory=list)

    def answer(self, queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        self.queries += queries
        return {query.work_id: self._next(query) for query in queries}

    def renew_queued(self, queries: Sequence[StateQuery]) -> None: ...

    def _next(self, query: StateQuery) -> StateAnswer:
        if query.loss is None:
            return RUNS
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask about a locked row again at once."""
    monkeypatch.setattr(outcomes, "LOCKED_PAUSE", 0.0)


@contextlib.asynccontextmanager
async def lost(airflow: Airflow | None, cause: Cause, **options: Kind) -> AsyncIterator[Wiring]:
    """The engine's objects, whose one call has ended for this cause; Airflow's database answers meanwhile."""
    wiring = wired(None, database=airflow)
    submitted(wiring, "w", "fc-1", **options)
    loop = asyncio.create_task(wiring.queries.run())
    try:
        entry = Entry("w", State.FAILED, "fc-1", "ta-1", "o", "w", reason="Away.", cause=cause.value, return_code=1)
        wiring.outcomes.ended(wiring.calls.get("w"), entry)  # type: ignore[arg-type]
        yield wiring
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_what_runs_again_is_no_failure() -> None:
    """The executor forgets the try without an event; the task's log and the counts say that it runs again."""
    async with lost(Airflow([AGAIN]), Cause.CONTAINER_LOST) as wiring:
        await until(lambda: kinds(wiring))
    assert kinds(wiring) == [UpdateKind.OVER]
    assert notes(wiring) == [("w", "Lost, run again.")]
    assert wiring.metrics.counts["run_again.container-lost"] == 1


async def test_a_start_that_airflow_has_not_heard_of_is_withdrawn() -> None:
    """Airflow would store its function call id for the next try."""
    async with lost(Airflow([AGAIN]), Cause.CONTAINER_LOST) as wiring:
        wiring.outbox.add(Update(UpdateKind.STARTED, "w", "w", "w", "fc-1"))
        wiring.outbox.add(Update(UpdateKind.STARTED, "w", "other", "other", "fc-2"))
        await until(lambda: UpdateKind.OVER in kinds(wiring))
    assert [(update.kind, update.origin) for update in wiring.outbox.updates] == [
        (UpdateKind.STARTED, "other"),
        (UpdateKind.OVER, "w"),
    ]


async def test_a_locked_row_is_asked_for_again() -> None:
    """The scheduler or the API server changes it, or the function call id is not stored yet."""
    async with lost(Airflow([LOCKED, LOCKED, AGAIN]), Cause.CONTAINER_STOPPED) as wiring:
        await until(lambda: kinds(wiring))
    assert kinds(wiring) == [UpdateKind.OVER]


async def test_a_row_that_stays_locked_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits forever: Airflow's own retries apply."""
    monkeypatch.setattr(outcomes, "LOCKED_ATTEMPTS", 3)
    airflow = Airflow([dataclasses.replace(LOCKED, problem="Its row stayed locked.")])
    async with lost(airflow, Cause.CONTAINER_LOST) as wiring:
        await until(lambda: kinds(wiring))
    (update,) = wiring.outbox.updates
    assert (update.kind, update.reason) == (UpdateKind.FAILED, "Away. Its row stayed locked.")
    assert [query.loss is not None for query in airflow.queries] == [True] * 3


class SlowAirflow(Airflow):
    """A database that answers its first question when the test permits it."""

    def __init__(self, answers: list[StateAnswer]) -> None:
        super().__init__(answers)
        self.may_answer = threading.Event()
        self.under_way = self.most = 0

    def answer(self, queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        answers = super().answer(queries)
        self.may_answer.wait(30)
        self.under_way -= 1
        return answers


async def test_a_late_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow database queues the task again after the time limit: no failure is reported, and it is asked only once.
    No second question takes another of the scheduler's connections meanwhile."""
    monkeypatch.setattr(airflow_state, "TIMEOUT", 0.05)
    airflow = SlowAirflow([AGAIN, RUNS])
    async with lost(airflow, Cause.CONTAINER_LOST) as wiring:
        await until(lambda: airflow.queries)
        await asyncio.sleep(0.3)
        assert not kinds(wiring)
        airflow.may_answer.set()
        await until(lambda: kinds(wiring))
    assert kinds(wiring) == [UpdateKind.OVER]
    assert notes(wiring) == [("w", "Lost, run again.")]
    assert (len(airflow.queries), airflow.most) == (1, 1)


async def test_a_database_that_is_away_for_a_moment_costs_no_retry() -> None:
    """A loss is asked about again; another question has no answer."""
    airflow = Airflow([LOCKED, AGAIN])
    answer = airflow.answer

    def away(queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        if len(airflow.answers) == 2:
            answer(queries)
            raise OSError("connection refused")
        return answer(queries)

    airflow.answer = away  # type: ignore[method-assign]
    async with lost(airflow, Cause.CONTAINER_LOST) as wiring:
        await until(lambda: kinds(wiring))
    assert kinds(wiring) == [UpdateKind.OVER]


async def test_a_database_that_stays_away_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user reads why a retry was used."""
    monkeypatch.setattr(outcomes, "LOCKED_ATTEMPTS", 3)
    airflow = Airflow([AGAIN])
    monkeypatch.setattr(airflow, "answer", mock.Mock(side_effect=OSError("connection refused")))
    async with lost(airflow, Cause.CONTAINER_LOST) as wiring:
        await until(lambda: kinds(wiring))
    (update,) = wiring.outbox.updates
    assert update.kind is UpdateKind.FAILED
    assert "Airflow's database did not answer (" in str(update.reason)
    assert "connection refused" in str(update.reason)


async def test_a_failure_says_why_it_does_not_run_again() -> None:
    """In the reason, and in the task's log."""
    used_up = dataclasses.replace(RUNS, problem="It has run again 3 times.")
    async with lost(Airflow([used_up]), Cause.MODAL_FAILURE) as wiring:
        await until(lambda: kinds(wiring))
    (update,) = wiring.outbox.updates
    assert (update.kind, update.reason) == (UpdateKind.FAILED, "Away. It has run again 3 times.")
    assert ("w", "It has run again 3 times.") in notes(wiring)


@pytest.mark.parametrize("cause", [cause for cause in Cause if not EXPLANATIONS[cause].lost_to])
async def test_what_a_task_did_itself_is_a_failure(cause: Cause) -> None:
    """No other cause asks for another run."""
    airflow = Airflow([AGAIN])
    async with lost(airflow, cause) as wiring:
        await until(lambda: kinds(wiring))
    assert kinds(wiring) == [UpdateKind.FAILED]
    assert not any(query.loss for query in airflow.queries)


@dataclass
class PlayedApi:
    """What Modal and the ledger have about the end of a call."""

    by: str = ""
    status: CallStatus = RETURNED

    async def cancelled_by(self, work_id: str) -> str:
        return self.by

    async def call_status(self, function_call_id: str) -> CallStatus:
        return self.status


@pytest.mark.parametrize(
    ("api", "again"),
    [
        (PlayedApi(), True),
        (PlayedApi(status=CallStatus(True, "", Cause.CANCELLED)), True),
        (PlayedApi(by="alice"), False),
        (PlayedApi(status=CallStatus(True, "a user cancelled input in-1", Cause.CANCELLED)), False),
        (PlayedApi(status=CallStatus(True, "ran for 2 s", Cause.FUNCTION_TIMEOUT)), False),
    ],
)
async def test_a_container_that_is_stopped_for_a_task_is_no_loss(api: PlayedApi, again: bool) -> None:
    """By a user or for its timeout: Modal knows what the container does not."""
    wiring = wired(api, database=Airflow([AGAIN]))
    submitted(wiring, "w", "fc-1")
    loop = asyncio.create_task(wiring.queries.run())
    try:
        cause = Cause.CONTAINER_STOPPED.value
        entry = Entry("w", State.FAILED, "fc-1", "ta-1", "o", "w", wiring.partition, reason="Away.", cause=cause)
        wiring.tracker.on_event(entry, wiring.partition)
        await until(lambda: kinds(wiring))
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
    assert kinds(wiring) == [UpdateKind.OVER if again else UpdateKind.FAILED]


def test_the_causes_outside_of_a_tasks_fault() -> None:
    """Memory, time, its own exit, a cancellation and everything before its start are not among them."""
    assert {cause for cause in Cause if EXPLANATIONS[cause].lost_to} == {
        Cause.CONTAINER_LOST,
        Cause.CONTAINER_STOPPED,
        Cause.APP_STOPPED,
        Cause.MODAL_FAILURE,
        Cause.ZYGOTE_KILLED,
    }


async def test_without_a_database_nothing_runs_again() -> None:
    """No scheduler could queue it."""
    async with lost(None, Cause.CONTAINER_LOST) as wiring:
        assert kinds(wiring) == [UpdateKind.FAILED]


@pytest.mark.parametrize(
    ("own", "of_profile", "default", "leaves"),
    [(None, None, 3, True), (None, None, 0, False), (0, 2, 3, False), (None, 0, 3, False), (2, 0, 0, True)],
)
async def test_a_container_knows_who_reports_its_stop(
    own: int | None, of_profile: int | None, default: int, leaves: bool
) -> None:
    """The executor, if it may run the task again: by the task, its profile, or the setting."""
    wiring = wired(None, database=Airflow([AGAIN]), infrastructure_retries=default)
    granted = {} if of_profile is None else {"default": {"infrastructure_retries": of_profile}}
    wiring.connection.deployment = Deployment("", 1, "", "", ("default",), {}, 0.0, granted=granted)
    wiring.connection.api = wiring.connection.api or object()  # type: ignore[assignment]
    wiring.intake.accept([dataclasses.replace(request("w"), infrastructure_retries=own)])
    call = wiring.calls.get("w")
    assert call is not None
    assert call.submission is not None
    assert call.submission.executor_reports_stop is leaves
