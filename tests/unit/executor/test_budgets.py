"""Budgets in the executor, with Modal played: what is held, refused, recalled and reported."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey
from modal import exception

from modalflow.config.budgets import read_budgets
from modalflow.cost.rates import DATED, Rates
from modalflow.executor.budgets import budget_watch
from modalflow.executor.lifecycle import recovery
from modalflow.executor.lifecycle.airflow_state import AirflowState, StateAnswer, StateQuery
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.decision import Action, Decision
from modalflow.executor.mailbox import Adoption, SubmitRequest, UpdateKind
from modalflow.executor.modal_api.call_status import PENDING
from modalflow.executor.modal_executor import ModalExecutor
from modalflow.executor.reporting.publisher import Identity
from modalflow.protocol.messages import Entry, State
from modalflow.protocol.snapshot import Snapshot
from modalflow.protocol.spending_report import SPENDING, SpendingReport, SpendingRow
from tests.wired import notes, request, wired

#: Cores for about half a dollar a second, so that a test is short.
CORES = 36_000.0
WAIT = Decision(Action.WAIT)
PRICE = float(DATED.hourly["cpu_hour_cost"]) * CORES / 3600


class PlayedModal:
    """A Modal with so many containers, each for one call; calls end when the test says so."""

    def __init__(self, containers: int) -> None:
        self.containers = containers
        self.backlog: deque[tuple[str, str]] = deque()
        self.entries: dict[str, Entry] = {}
        self.running: dict[str, Entry] = {}
        self.begun: list[str] = []
        self.cancelled: set[str] = set()
        self.published: dict[str, str] = {}
        self.reports: list[SpendingReport] = []
        self.logs = SimpleNamespace(add_lines=lambda lines: None)
        self.spawned = self.readings = 0

    async def spawn(self, profile: str, resources: object, wire: dict[str, Any]) -> str:
        self.spawned += 1
        function_call_id = f"fc-{self.spawned}"
        await asyncio.sleep(0)
        self.backlog.append((function_call_id, wire["work_id"]))
        self.fill()
        return function_call_id

    def fill(self) -> None:
        while self.backlog and len(self.running) < self.containers:
            function_call_id, work_id = self.backlog.popleft()
            if function_call_id in self.cancelled or work_id in self.entries:
                continue
            entry = Entry(
                work_id, State.RUNNING, function_call_id, f"ta-{work_id}", "own", label=work_id, started_at=time.time()
            )
            self.running[work_id] = self.entries[work_id] = entry
            self.begun.append(work_id)

    def end(self, work_id: str) -> Entry:
        entry = self.running.pop(work_id)
        ended = dataclasses.replace(entry, state=State.SUCCESS, finished_at=time.time())
        self.entries[work_id] = ended
        self.fill()
        return ended

    async def claim(self, entry: Entry) -> bool:
        await asyncio.sleep(0)
        return self.entries.setdefault(entry.work_id, entry) is entry

    async def entry(self, work_id: str) -> Entry | None:
        return self.entries.get(work_id)

    async def take_entry(self, work_id: str) -> Entry | None:
        return self.entries.pop(work_id, None)

    async def ledger(self) -> list[Entry]:
        self.readings += 1
        return list(self.entries.values())

    async def cancel(self, function_call_id: str) -> None:
        self.cancelled.add(function_call_id)

    async def call_status(self, function_call_id: str) -> Any:
        return PENDING

    async def publish(self, key: str, text: str) -> None:
        self.published[key] = text

    async def withdraw_older_than(self, moment: float) -> None: ...

    async def spending_reports(self) -> list[SpendingReport]:
        return self.reports

    async def read_usage(self, files: Any, keep: Any) -> bool:
        return False

    def rates(self) -> Rates:
        return DATED


class Stage:
    """An executor's engine without its thread, whose budgets are checked when the test says so."""

    def __init__(
        self, budgets: str, containers: int = 10, modal: type[PlayedModal] = PlayedModal, **settings: Any
    ) -> None:
        self.modal = modal(containers)
        self.wiring = wired(self.modal, budgets=read_budgets("", budgets), max_option_sets=0, **settings)
        deployment = self.wiring.connection.deployment
        assert deployment is not None
        granted = {"default": {"cpu": CORES}, "gpu": {"cpu": CORES}}
        self.wiring.connection.deployment = dataclasses.replace(deployment, granted=granted)
        self.wiring.submitter.start()

    def submit(self, *names: str, dag: str = "etl", profile: str = "default") -> None:
        self.wiring.intake.accept([task(name, dag, profile) for name in names])

    def end(self, work_id: str) -> None:
        self.wiring.tracker.on_event(self.modal.end(work_id), self.wiring.partition)

    async def known(self) -> None:
        await self.wiring.keeper.read()
        await self.wiring.budgets.round()

    async def waiting(self, name: str) -> Call:
        """Submit the first task of a Modal without containers; return its call."""
        self.submit(name)
        await self.until(lambda: self.modal.spawned == 1)
        call = self.wiring.calls.get(name)
        assert call is not None
        return call

    def give_up(self, name: str) -> None:
        """Give a task up, as Airflow does with one that is queued for too long."""
        call = self.wiring.calls.get(name)
        assert call is not None
        self.wiring.outcomes.revoke(call.key, "it was queued for too long")

    async def recalled(self, call: Call) -> None:
        """Recall a call, and wait for what follows at once."""
        assert self.wiring.budgets._recall.recall(call, "no money")
        async with asyncio.timeout(5):
            while len(self.wiring.rpcs):
                await asyncio.sleep(0.001)

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await self.wiring.budgets.round()
                await asyncio.sleep(0.01)

    def reasons(self, kind: UpdateKind) -> list[str]:
        return [update.reason or "" for update in self.wiring.outbox.updates if update.kind is kind]


def task(name: str, dag: str = "etl", profile: str = "default") -> SubmitRequest:
    return request(name, profile=profile, key=TaskInstanceKey(dag, name, "run", 1, -1))


def budget(action: str, dollars: float, scope: str = '"dag": "etl", ') -> str:
    return f'[{{{scope}"per": "day", "dollars": {dollars}, "action": "{action}"}}]'


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(budget_watch, "LEDGER_INTERVAL", 0.05)
    monkeypatch.setattr(recovery, "PAUSE", 0.05)
    yield


async def test_a_thousand_queued_tasks_exceed_a_budget_by_what_ran_and_no_more() -> None:
    """Ten run when the budget is used up. None of the others begins: not those that Modal has in its queue, and not
    those that come later, even if containers become free. Once there is money again, all of them run, in their order.
    """
    names = [f"task-{n}" for n in range(1000)]
    stage = Stage(budget("hold", 5.0), containers=10, submit_concurrency=64)
    await stage.known()
    stage.submit(*names)
    began = time.time()
    await stage.until(lambda: len(stage.wiring.admission) == 990)
    assert 10 * PRICE * (time.time() - began) >= 5.0, "nothing is held before the budget is used up"
    stage.submit("late")
    assert len(stage.wiring.admission) == 991
    for name in names[:10]:
        stage.end(name)
    await stage.until(lambda: not stage.modal.running)
    await stage.wiring.budgets.round()
    assert stage.modal.begun == names[:10], "free containers get nothing"
    assert all(call.phase is Phase.QUEUED for call in stage.wiring.calls)
    # The next reading of records, of which there are none here, shows that nothing was spent. All that runs is cheap.
    stage.modal.containers = 2000
    stage.wiring.keeper._costs.use(Rates(dict.fromkeys(DATED.hourly, Decimal("1e-9")), "test"))
    await stage.known()
    await stage.until(lambda: len(stage.modal.begun) == 1001)
    assert stage.modal.begun == [*names, "late"]
    assert not stage.reasons(UpdateKind.FAILED)


async def test_tasks_wait_with_a_reason() -> None:
    """The task's log, `modalflow status` and the audit log have the budget, what is spent and when it has money again.
    Other DAGs go on, and so do callbacks of this one."""
    stage = Stage(budget("hold", 0.01), sweep_interval=0.1)
    await stage.known()
    stage.submit("first")
    await stage.until(lambda: bool(stage.wiring.gate.used_up))
    stage.submit("held")
    stage.submit("other", dag="other")
    stage.wiring.intake.accept([request("callback")])
    await stage.until(lambda: {"other", "callback"} <= set(stage.modal.begun))
    assert "held" not in stage.modal.begun
    await asyncio.sleep(0.2)
    await stage.wiring.wait_reasons.round()
    [text] = [text for path, text in notes(stage.wiring) if path == "held"]
    assert text.startswith("Not submitted to Modal yet, after ")
    assert "the budget of DAG etl, $0.01 a day is used up: $" in text
    assert "of it by running or just ended tasks (an estimate). The next day begins at " in text
    assert text in stage.reasons(UpdateKind.WAITING)
    await stage.wiring.publisher.publish()
    snapshot = Snapshot.from_json(stage.modal.published[stage.wiring.partition])
    [held] = [call for call in snapshot.calls if call.label == "held"]
    assert held.reason == "held by the budget of DAG etl, $0.01 a day"
    assert snapshot.held == 1
    assert snapshot.budgets[0].startswith("hold: the budget of DAG etl, $0.01 a day is used up")


async def test_refused_tasks_fail_before_they_start() -> None:
    """The reason says how to go on, and nothing is submitted."""
    stage = Stage(budget("refuse", 0.0))
    await stage.known()
    stage.submit("refused")
    await stage.until(lambda: bool(stage.reasons(UpdateKind.FAILED)))
    [reason] = stage.reasons(UpdateKind.FAILED)
    assert reason.startswith("Not started: a budget refuses this task: the budget of DAG etl, $0.00 a day is used up")
    assert "Raise the budget in [modal_executor] budgets" in reason
    assert stage.modal.begun == []
    assert stage.wiring.metrics.counts["refused_by_budget"] == stage.wiring.metrics.counts["lost.over-budget"] == 1


async def test_a_budget_of_a_team_holds_its_executor_alone() -> None:
    """Each team has an executor of its own, and the budgets of all teams: only its own count."""
    limit = budget("hold", 0.0, scope='"team": "ml", ')
    ours, theirs = (Stage(limit, identity=Identity(team=team)) for team in ("ml", "ops"))
    for stage in (ours, theirs):
        await stage.known()
        stage.submit("task")
    await theirs.until(lambda: theirs.modal.begun == ["task"])
    await ours.until(lambda: len(ours.wiring.admission) == 1)
    [call] = [held.call for held in ours.wiring.admission.held]
    assert ours.wiring.admission.reason(call).startswith("the budget of team ml, $0.00 a day is used up")


async def test_a_warning_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The scheduler's log and Airflow's audit log have it once, and tasks go on."""
    stage = Stage(budget("warn", 0.01, scope=""))
    await stage.known()
    with caplog.at_level(logging.WARNING):
        stage.submit("first")
        await stage.until(lambda: bool(stage.wiring.gate.used_up))
        stage.submit("second")
        await stage.until(lambda: "second" in stage.modal.begun)
    [text] = stage.reasons(UpdateKind.OVER_BUDGET)
    assert [text] == caplog.messages
    assert text.startswith("The budget of all work, $0.01 a day is used up: $")
    assert text.endswith("Its tasks go on, as set in `[modal_executor] budgets`.")
    assert stage.wiring.metrics.counts["over_budget.warn"] == 1
    assert stage.wiring.gate.shares_used()["all.day"] > 1


async def test_nothing_is_submitted_before_the_spend_is_known() -> None:
    """After a restart, tasks of a budget that holds or refuses wait until the records were read; others do not."""
    stage = Stage(budget("refuse", 5.0))
    stage.submit("limited")
    stage.submit("free", dag="other")
    await stage.until(lambda: stage.modal.begun == ["free"])
    [call] = [held.call for held in stage.wiring.admission.held]
    reason = "the budget of DAG etl, $5.00 a day cannot be checked: the records of the costs so far are not read yet"
    assert stage.wiring.admission.reason(call) == reason
    await stage.wiring.keeper.read()
    await stage.until(lambda: "limited" in stage.modal.begun)


async def test_the_work_of_another_scheduler_counts() -> None:
    """Its report is extrapolated, for as long as it may still run; this executor's own report is not counted again."""
    stage = Stage(budget("hold", 5.0))
    rows = [SpendingRow("etl", "default", "", 6.0, 6.0, 0.01)]
    stage.modal.reports = [SpendingReport("another", time.time(), rows)]
    await stage.known()
    stage.submit("held")
    await stage.until(lambda: len(stage.wiring.admission) == 1)
    stage.modal.reports = [SpendingReport(stage.wiring.partition, time.time(), rows)]
    await stage.known()
    await stage.until(lambda: stage.modal.begun == ["held"])
    await stage.wiring.budgets.round()
    call = stage.wiring.calls.get("held")
    assert call is not None
    stage.wiring.tracker.found(call, WAIT, stage.modal.entries["held"])
    await stage.until(lambda: any(running.month for running in stage.wiring.keeper._costs.of_calls.values()))
    await stage.wiring.keeper._report()
    [row] = SpendingReport.from_json(stage.modal.published[SPENDING + stage.wiring.partition]).rows
    assert (row.dag, row.profile) == ("etl", "default")
    assert row.rate == pytest.approx(PRICE, rel=0.01)
    assert row.day > 0


@pytest.mark.parametrize(("started_at", "finished_at"), [(253_402_300_799.0, None), (-2e11, 2e11), (1.0, -2e11)])
async def test_no_time_in_an_entry_keeps_work_from_ending(started_at: float, finished_at: float | None) -> None:
    """A container's answer is data: its outcome is reported, and the next check of the budgets goes on."""
    stage = Stage(budget("hold", 1e9))
    await stage.known()
    stage.submit("strange")
    await stage.until(lambda: stage.modal.begun == ["strange"])
    entry = dataclasses.replace(stage.modal.end("strange"), started_at=started_at, finished_at=finished_at)
    stage.wiring.tracker.on_event(entry, stage.wiring.partition)
    assert [update.kind for update in stage.wiring.outbox.updates][-1] is UpdateKind.SUCCESS
    await stage.wiring.budgets.round()


async def test_a_fault_in_a_check_concerns_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails with the reason, and the others are submitted: also those after as many faults as may be under way."""
    stage = Stage(budget("hold", 1000), submit_concurrency=2)
    await stage.known()
    verdict = stage.wiring.gate.verdict

    def faulty(call: Call) -> Any:
        if call.work_id.startswith("bad"):
            raise ValueError("a bug")
        return verdict(call)

    monkeypatch.setattr(stage.wiring.gate, "verdict", faulty)
    stage.submit("bad-1", "bad-2", "bad-3", "good")
    await stage.until(lambda: stage.modal.begun == ["good"])
    reasons = stage.reasons(UpdateKind.FAILED)
    assert len(reasons) == 3 and "the executor failed while checking its budgets" in reasons[0]
    assert stage.wiring.submitter.waiting == stage.wiring.submitter.under_way == 0


async def test_an_uncounted_cost_keeps_no_work_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record has the cost, so the end is reported."""
    stage = Stage(budget("hold", 1000))
    await stage.known()
    stage.submit("one")
    await stage.until(lambda: stage.modal.begun == ["one"])
    monkeypatch.setattr(stage.wiring.keeper._costs, "ended", mock.Mock(side_effect=ValueError("a bug")))
    stage.end("one")
    assert [update.kind for update in stage.wiring.outbox.updates][-1] is UpdateKind.SUCCESS


async def test_work_that_cannot_end_in_order_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last resort for its end counts its cost, and forgets it."""
    stage = Stage(budget("hold", 1000))
    await stage.known()
    stage.submit("one")
    await stage.until(lambda: stage.modal.begun == ["one"])
    call = stage.wiring.calls.get("one")
    assert call is not None
    stage.wiring.tracker.found(call, WAIT, stage.modal.entries["one"])
    call.spawn_unconfirmed = True
    monkeypatch.setattr(stage.wiring.claims, "keep", mock.Mock(side_effect=ValueError("a bug")))
    monkeypatch.setattr(stage.wiring.outcomes, "settle", mock.Mock(side_effect=ValueError("a bug")))
    with stage.wiring.outcomes.guarding("one", "testing"):
        int("a bug")
    assert stage.reasons(UpdateKind.FAILED)
    costs = stage.wiring.keeper._costs
    assert costs._without_record(time.time()) and not costs._not_begun and not costs._terms_of


async def test_adopted_work_counts_from_its_beginning() -> None:
    """A scheduler that has just started knows what the tasks of the last one cost."""
    stage = Stage(budget("hold", 5.0))
    started_at = time.time() - 20.0
    entry = Entry("adopted", State.RUNNING, "fc-1", "ta-1", "own", started_at=started_at)
    stage.modal.entries["adopted"] = entry
    key = TaskInstanceKey("etl", "adopted", "run", 1, -1)
    await stage.known()
    stage.wiring.adopter.adopt([Adoption(key, "adopted", "fc-1", "log", "adopted")])
    await stage.until(lambda: bool(stage.wiring.gate.used_up))
    [balance] = stage.wiring.gate.used_up
    assert float(balance.running) >= 20 * PRICE * 0.9 or time.localtime(started_at).tm_mday != time.localtime().tm_mday


async def test_a_lost_answer_to_a_recall_loses_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Modal does not answer, the call goes on as before, and is recalled at one of the next checks."""
    stage = Stage(budget("hold", 0.5), containers=1)
    await stage.known()
    claims = 0

    async def claim(entry: Entry) -> bool:
        nonlocal claims
        claims += 1
        if claims == 1:
            raise exception.ConnectionError("away")
        return stage.modal.entries.setdefault(entry.work_id, entry) is entry

    monkeypatch.setattr(stage.modal, "claim", claim)
    stage.submit("runs", "recalled")
    await stage.until(lambda: len(stage.wiring.admission) == 1)
    assert claims == 2
    assert stage.modal.begun == ["runs"]
    assert set(stage.modal.entries) == {"runs"}


async def test_a_call_that_began_before_its_recall_ends_in_order() -> None:
    """If a container has the work before the recall claims it, its end is reported."""
    stage = Stage(budget("hold", 1000))
    await stage.known()
    stage.submit("late")
    await stage.until(lambda: stage.modal.begun == ["late"])
    call = stage.wiring.calls.get("late")
    assert call is not None
    await stage.recalled(call)
    assert call.phase is Phase.RUNNING and call.function_call_id == "fc-1"
    stage.end("late")
    assert [update.work_id for update in stage.wiring.outbox.updates if update.kind is UpdateKind.SUCCESS] == ["late"]


@pytest.mark.parametrize("error", [exception.ConnectionError("away"), AttributeError("unary_unary")])
async def test_a_call_goes_on_after_a_failed_recall(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """If Modal does not answer a recall and a container begins the work later, its end is reported."""
    stage = Stage(budget("hold", 1000), containers=0)
    await stage.known()
    call = await stage.waiting("late")

    async def claim(_: Entry) -> bool:
        raise error

    with monkeypatch.context() as away:
        away.setattr(stage.modal, "claim", claim)
        await stage.recalled(call)
    assert call.phase is Phase.WAITING
    stage.modal.containers = 1
    stage.modal.fill()
    stage.end("late")
    assert [update.work_id for update in stage.wiring.outbox.updates if update.kind is UpdateKind.SUCCESS] == ["late"]


async def test_a_recall_whose_claim_was_written_without_an_answer_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If only the answer to the claim is lost, the next recall cancels the function call and frees the claim."""
    stage = Stage(budget("hold", 1000), containers=0)
    await stage.known()
    call = await stage.waiting("late")

    async def written(entry: Entry) -> bool:
        stage.modal.entries[entry.work_id] = entry
        raise exception.ConnectionError("away")

    with monkeypatch.context() as away:
        away.setattr(stage.modal, "claim", written)
        await stage.recalled(call)
    await stage.recalled(call)
    assert stage.modal.cancelled == {"fc-1"}
    await stage.until(lambda: stage.modal.spawned == 2)
    assert not stage.modal.entries


async def test_a_recalled_call_keeps_its_claim_until_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Modal does not answer the cancellation, a container that gets the function call finds the claim."""
    stage = Stage(budget("hold", 1000), containers=0)
    await stage.known()
    call = await stage.waiting("late")
    with monkeypatch.context() as away:
        away.setattr(stage.modal, "cancel", _is_away)
        await stage.recalled(call)
    assert stage.modal.entries["late"].state is State.FAILED and call.phase is Phase.RETRYING
    await stage.until(lambda: stage.modal.spawned == 2)
    assert stage.modal.cancelled == {"fc-1"} and not stage.modal.entries


async def test_a_recalled_call_keeps_its_claim_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that fetched the input just before the cancellation finds the claim, and does not begin the work."""
    monkeypatch.setattr(recovery, "PAUSE", 0.3)
    stage = Stage(budget("hold", 1000), containers=0)
    await stage.known()
    call = await stage.waiting("late")
    await stage.recalled(call)
    assert stage.modal.cancelled == {"fc-1"} and stage.modal.entries["late"].state is State.FAILED
    await stage.until(lambda: stage.modal.spawned == 2)
    assert not stage.modal.entries


async def test_work_given_up_during_its_recall_is_cancelled() -> None:
    """If Airflow gives up a task while it is recalled, its function call is cancelled, even if it has begun."""
    stage = Stage(budget("hold", 1000))
    await stage.known()
    stage.submit("late")
    await stage.until(lambda: stage.modal.begun == ["late"])
    call = stage.wiring.calls.get("late")
    assert call is not None
    assert stage.wiring.budgets._recall.recall(call, "no money")
    stage.give_up("late")
    await stage.until(lambda: stage.modal.cancelled == {"fc-1"}, seconds=5)


async def _is_away(_: object) -> Any:
    raise exception.ConnectionError("away")


class PlayedAirflow:
    """A database that has every task as queued."""

    def __init__(self) -> None:
        self.renewed: list[str] = []
        self.requests = 0
        self.gone: set[str] = set()

    def answer(self, queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        self.requests += sum(query.with_request for query in queries)
        return {
            query.work_id: StateAnswer(AirflowState.GONE)
            if query.work_id in self.gone
            else StateAnswer(AirflowState.WAITING, task(query.work_id) if query.with_request else None)
            for query in queries
        }

    def renew_queued(self, queries: Sequence[StateQuery]) -> None:
        self.renewed += [query.work_id for query in queries]


@contextlib.asynccontextmanager
async def used_up(**settings: Any) -> AsyncIterator[tuple[Stage, PlayedAirflow]]:
    """A budget used up by the running task `first`, with an Airflow that answers."""
    airflow = PlayedAirflow()
    stage = Stage(budget("hold", 0.01), database=airflow, **settings)
    asking = asyncio.create_task(stage.wiring.queries.run())
    await stage.known()
    stage.submit("first")
    await stage.until(lambda: bool(stage.wiring.gate.used_up))
    yield stage, airflow
    asking.cancel()


async def test_airflow_does_not_give_up_a_task_that_is_held_for_long() -> None:
    """Its time in the queue begins again and again. When it is released, its request is made again with a new token."""
    async with used_up(queued_timeout=0.2) as (stage, airflow):
        stage.submit("held")
        await stage.wiring.held_tasks.renew()
        assert airflow.renewed == []
        await asyncio.sleep(0.1)
        await stage.wiring.held_tasks.renew()
        assert airflow.renewed == ["held"]
        stage.end("first")
        stage.wiring.keeper._costs.use(Rates(dict.fromkeys(DATED.hourly, Decimal("1e-9")), "test"))
        await stage.known()
        await stage.until(lambda: "held" in stage.modal.begun)
        assert airflow.requests == 1
        stage.end("held")
        assert not stage.wiring.claims._kept, "it was submitted once, so its entry leaves the ledger"


async def test_a_held_task_that_ends_frees_its_slot_and_holds_up_no_other() -> None:
    """A task that Airflow has given up during its hold counts as held no more, and the others are released."""
    async with used_up(queued_timeout=0.2) as (stage, _):
        stage.submit("given-up", "held")
        stage.give_up("given-up")
        await stage.wiring.budgets.round()
        assert len(stage.wiring.admission) == 1 and stage.wiring.submitter.waiting == 1
        stage.submit("given-up-later", "held-later")
        await asyncio.sleep(0.1)
        stage.give_up("given-up-later")
        stage.wiring.keeper._costs.use(Rates(dict.fromkeys(DATED.hourly, Decimal("1e-9")), "test"))
        await stage.known()
        await stage.until(lambda: {"held", "held-later"} <= set(stage.modal.begun))
        assert not {"given-up", "given-up-later"} & set(stage.modal.begun)


async def test_a_held_task_ends_if_airflow_has_gone_on() -> None:
    """Airflow notifies no executor if a user marks or clears a queued task, and a hold may last for a month."""
    async with used_up(sweep_interval=0.01) as (stage, airflow):
        stage.submit("marked", "held")
        await asyncio.sleep(0.05)
        airflow.gone.add("marked")
        await stage.wiring.wait_reasons.round()
        await stage.until(lambda: len(stage.wiring.admission) == 1, seconds=5)
        assert stage.wiring.calls.get("marked") is None and stage.wiring.calls.get("held") is not None


async def test_a_used_up_budget_reads_the_ledger_seldom_if_nothing_can_be_recalled() -> None:
    """Adopted work that waits could keep it in doubt for as long as it waits, and a reading costs the whole ledger."""
    async with used_up() as (stage, _):
        key = TaskInstanceKey("etl", "adopted", "run", 1, -1)
        stage.wiring.adopter.adopt([Adoption(key, "adopted", "fc-9", "log", "adopted")])
        call = stage.wiring.calls.get("adopted")
        assert call is not None
        await stage.until(lambda: call.phase is Phase.WAITING and stage.wiring.gate.in_doubt)
        readings = stage.modal.readings
        await stage.until(lambda: stage.modal.readings > readings)
        for _ in range(20):
            await stage.wiring.budgets.round()
            await asyncio.sleep(0.01)
        assert stage.modal.readings == readings + 1


async def test_a_used_up_budget_without_a_task_is_forgotten_with_its_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's audit log needs a task. What waits for one does not pile up over the days."""
    stage = Stage(budget("warn", 0.0))
    await stage.known()
    watch = stage.wiring.budgets
    [today] = [event.period for event in watch._to_audit]
    monkeypatch.setattr(budget_watch, "local_day", lambda moment, zone: today + timedelta(days=1))
    await watch.round()
    assert [event.period for event in watch._to_audit] == [today + timedelta(days=1)]
    stage.submit("first")
    await stage.until(lambda: not watch._to_audit)
    assert len(stage.reasons(UpdateKind.OVER_BUDGET)) == 1


def test_held_tasks_take_no_slot() -> None:
    """Otherwise those of one DAG would keep all other tasks of Airflow from running."""
    executor = ModalExecutor(parallelism=8)
    executor.running |= {TaskInstanceKey("etl", f"task-{n}", "run", 1, -1) for n in range(8)}
    assert (executor.slots_available, executor.slots_occupied) == (0, 8)
    executor._engines[""] = cast(Any, SimpleNamespace(held=5))
    assert (executor.slots_available, executor.slots_occupied) == (5, 3)
    assert executor.parallelism - len(executor.running) == 5, "as BaseExecutor.heartbeat counts"
