"""A try that fits: what a try ran out of, from its end to the submission of the next try, by this executor or another.

Modal's answers are played; everything else is the engine's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest
from modal import exception

from modalflow.cost.recorded_call import RecordedCall
from modalflow.cost.usage import OUT_OF_MEMORY, Record, Reserved
from modalflow.executor.mailbox import UpdateKind
from modalflow.executor.modal_api.call_status import PENDING, CallStatus
from modalflow.executor.submission import run_history, size_lookups
from modalflow.executor.submission.resources import Resources, read_executor_config
from modalflow.executor.wiring import Wiring
from modalflow.logs.usage_files import UsageFiles
from modalflow.names import SHORTAGE, TaskTry
from modalflow.protocol.messages import Deployment, Entry, Kind, State, Submission
from modalflow.protocol.shortage import Shortage
from modalflow.reasons import Cause
from tests.wired import kinds, request, wired

TASK = TaskTry("d", "t", "r")
GROWS = {"memory": 1024, "memory_growth": 2, "timeout": 60, "timeout_growth": 2}
DEPLOYMENT = Deployment("", 1, "", "", ("default", "auto"), {}, 0.0, granted={"auto": {"memory": "auto"}})


class PlayedApi:
    """A ledger in memory, function calls that end as the test says, and usage records."""

    def __init__(self) -> None:
        self.ledger: dict[str, str] = {}
        self.status: CallStatus = PENDING
        self.running: dict[str, Entry] = {}
        self.spawned: list[tuple[Resources, Submission]] = []
        self.asked: list[str] = []
        self.records: list[Record] = []
        self.broken = 0
        self.error: Exception = exception.ConnectionError("gone")

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.broken:
            self.broken -= 1
            raise self.error

    async def note(self, key: str) -> object:
        self._ask("note")
        return self.ledger.get(key)

    async def put_note(self, key: str, text: str) -> None:
        self._ask("put_note")
        self.ledger[key] = text

    async def read_usage(self, files: UsageFiles, keep: Callable[[list[Record]], object]) -> bool:
        self._ask("read_usage")
        records, self.records = self.records, []
        keep(records)
        return False

    async def spawn(self, profile: str, resources: Resources, wire: dict[str, Any]) -> str:
        submission = Submission.from_wire(wire)
        self.spawned.append((resources, submission))
        return f"fc-{submission.work_id}"

    async def call_status(self, function_call_id: str) -> CallStatus:
        return self.status

    async def entry(self, work_id: str) -> Entry | None:
        return self.running.get(work_id)

    async def cancelled_by(self, work_id: str) -> str:
        return ""

    async def claim(self, entry: Entry) -> bool:
        return False


@pytest.fixture
def api() -> PlayedApi:
    return PlayedApi()


def engine(api: PlayedApi) -> Wiring:
    """Return an executor; two with one API are two schedulers."""
    wiring = wired(api, sweep_interval=0.1)
    wiring.connection.deployment = DEPLOYMENT
    wiring.submitter.start()
    return wiring


def submit(wiring: Wiring, try_number: int = 1, config: dict[str, Any] | None = None, task: TaskTry = TASK) -> str:
    """Submit a try as Airflow would; return its work id."""
    asked = read_executor_config({"modal": GROWS if config is None else config})
    work_id = f"{task.task_id}-{try_number}-{len(wiring.connection.get().spawned)}"  # type: ignore[attr-defined]
    wanted = dataclasses.replace(
        request(work_id, Kind.COMMAND, profile=asked.profile or "default"),
        resources=asked.resources,
        terms=asked.terms,
    )
    draft = dataclasses.replace(wanted.draft, task=task._replace(try_number=try_number))
    wanted = dataclasses.replace(wanted, draft=draft)
    wiring.intake.accept([wanted])
    return work_id


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def spawned(api: PlayedApi, count: int = 1) -> tuple[dict[str, Any], Submission]:
    """Return the last spawn: what it asks for beyond its profile, and its submission."""
    await until(lambda: len(api.spawned) == count)
    resources, submission = api.spawned[-1]
    return resources.plain(), submission


async def end(wiring: Wiring, api: PlayedApi, work_id: str, cause: Cause, **entry: Any) -> None:
    """End the container of a try, as Modal reports it."""
    call = wiring.calls.get(work_id)
    assert call is not None
    await until(lambda: call.function_call_id)
    api.status = CallStatus(True, "as the test says", cause)
    claimed = Entry(work_id, State.RUNNING, f"fc-{work_id}", "ta-1", "", started_at=time.time() - 5, task=TASK)
    api.running[work_id] = dataclasses.replace(claimed, **entry)
    await wiring.sweeper.check(call)
    assert kinds(wiring)[-1] is UpdateKind.FAILED


async def test_the_try_after_one_that_ran_out_of_memory_gets_more(api: PlayedApi) -> None:
    """From try to try by this executor; its log says from what to what, and the container is asked for it."""
    wiring = engine(api)
    first = submit(wiring)
    asked, submission = await spawned(api)
    assert asked["memory"] == 1024 and not submission.note
    await end(wiring, api, first, Cause.OUT_OF_MEMORY)
    second = submit(wiring, 2)
    asked, submission = await spawned(api, 2)
    assert (asked["memory"], asked["timeout"]) == (2048, 60)
    assert submission.resources["memory"] == 2048 and "memory_growth" not in submission.resources
    assert "2 GiB of memory instead of 1 GiB" in submission.note
    assert submission.asked == GROWS, "what the task asked for stays what it wrote"
    await end(wiring, api, second, Cause.OUT_OF_MEMORY)
    submit(wiring, 3)
    assert (await spawned(api, 3))[0]["memory"] == 4096


async def test_another_scheduler_knows_it_too(api: PlayedApi) -> None:
    """The ledger has it, before the end is reported: after a restart, and for the other one of two schedulers."""
    first = engine(api)
    await end(first, api, submit(first), Cause.OUT_OF_MEMORY)
    submit(engine(api), 2)
    assert (await spawned(api, 2))[0]["memory"] == 2048


async def test_a_try_adopted_from_another_scheduler_counts(api: PlayedApi) -> None:
    """Whoever adopts it knows from the claim what its container had."""
    wiring = engine(api)
    work_id = submit(wiring, config={})
    call = wiring.calls.get(work_id)
    assert call is not None
    await until(lambda: call.function_call_id)
    call.submission = None
    await end(wiring, api, work_id, Cause.OUT_OF_MEMORY, memory_mib=3000.0)
    submit(wiring, 2)
    assert (await spawned(api, 2))[0]["memory"] == 6000


async def test_only_the_end_that_more_prevents_counts(api: PlayedApi) -> None:
    """A lost container or a preemption grows nothing, however many there are; a timeout grows the timeout alone."""
    wiring = engine(api)
    lost = (Cause.CONTAINER_LOST, Cause.CONTAINER_STOPPED, Cause.MODAL_FAILURE, Cause.APP_STOPPED, Cause.TASK_TIMEOUT)
    for number, cause in enumerate(lost, 1):
        await end(wiring, api, submit(wiring, number), cause)
    work_id = submit(wiring, 6)
    asked, submission = await spawned(api, 6)
    assert (asked["memory"], asked["timeout"], submission.note) == (1024, 60, "")
    await end(wiring, api, work_id, Cause.FUNCTION_TIMEOUT)
    submit(wiring, 7)
    asked, submission = await spawned(api, 7)
    assert (asked["memory"], asked["timeout"]) == (1024, 120)
    assert "120 s instead of 60 s" in submission.note


async def test_a_lost_try_in_between_changes_nothing(api: PlayedApi) -> None:
    """What counts is what a try had, not its number: the next one has as much as the lost one."""
    wiring = engine(api)
    await end(wiring, api, submit(wiring, 1), Cause.OUT_OF_MEMORY)
    await end(wiring, api, submit(wiring, 2), Cause.CONTAINER_LOST)
    submit(wiring, 3)
    assert (await spawned(api, 3))[0]["memory"] == 2048


async def test_a_timeout_that_a_worker_sees_as_a_cancellation_counts(api: PlayedApi) -> None:
    """Modal's word about it comes before the outcome is delivered, and so does the note."""
    wiring = engine(api)
    work_id = submit(wiring)
    call = wiring.calls.get(work_id)
    assert call is not None
    await until(lambda: call.function_call_id)
    api.status = CallStatus(True, "", Cause.FUNCTION_TIMEOUT)
    ended = Entry(
        work_id, State.FAILED, f"fc-{work_id}", "ta-1", "", return_code=1, cause=Cause.CANCELLED.value, task=TASK
    )
    wiring.tracker.on_event(ended, wiring.partition)
    await until(lambda: call.settled)
    assert Shortage.from_json(api.ledger[SHORTAGE + TASK.instance]) == Shortage(timeout=60)


@pytest.mark.parametrize(
    ("try_number", "config"), [(1, GROWS), (2, {"memory": 1024}), (5, {}), (3, {"memory_limit": 4096})]
)
async def test_an_ordinary_task_costs_no_rpc(api: PlayedApi, try_number: int, config: dict[str, Any]) -> None:
    """A first try, and a task that does not grow, are submitted at once."""
    submit(engine(api), try_number, config)
    await spawned(api)
    assert not api.asked


async def test_a_next_try_costs_one_rpc(api: PlayedApi) -> None:
    """A task that grows, and did not run out of anything."""
    submit(engine(api), 2)
    assert (await spawned(api))[0]["memory"] == 1024
    assert api.asked == ["note"]


#: The SDK raises the second if a connection breaks.
ERRORS = pytest.mark.parametrize("error", [exception.ConnectionError("gone"), AttributeError("unary_unary")])


@ERRORS
async def test_a_read_that_fails_is_repeated(api: PlayedApi, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Nothing is submitted with too little because Modal did not answer."""
    api.error = error
    monkeypatch.setattr(size_lookups, "FIRST_PAUSE", 0.01)
    api.ledger[SHORTAGE + TASK.instance] = Shortage(1024).to_json()
    api.broken = 3
    submit(engine(api), 2)
    assert (await spawned(api))[0]["memory"] == 2048


@ERRORS
async def test_a_write_that_fails_delays_no_end(api: PlayedApi, error: Exception) -> None:
    """The end is reported; this executor remembers it itself."""
    api.error = error
    wiring = engine(api)
    work_id = submit(wiring)
    await spawned(api)
    api.broken = 1
    await end(wiring, api, work_id, Cause.OUT_OF_MEMORY)
    assert not api.ledger
    submit(wiring, 2)
    assert (await spawned(api, 2))[0]["memory"] == 2048


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"memory_mib": "much"}', '{"memory_mib": NaN}', "null", '{"memory_mib": -5, "timeout": -5}'],
)
async def test_a_note_that_cannot_be_read_is_none(api: PlayedApi, text: str) -> None:
    """Anyone with the Dict can write there."""
    api.ledger[SHORTAGE + TASK.instance] = text
    submit(engine(api), 2)
    assert (await spawned(api))[0]["memory"] == 1024


async def test_a_call_that_is_revoked_meanwhile_is_not_submitted(api: PlayedApi) -> None:
    """The look-up leaves nothing behind."""
    wiring = engine(api)
    work_id = submit(wiring, 2)
    call = wiring.calls.get(work_id)
    assert call is not None
    wiring.outcomes.revoke(call.key, "as the test says")
    submit(wiring, 2, task=TASK._replace(task_id="other"))
    await spawned(api)
    assert [submission.work_id for _, submission in api.spawned] == ["other-2-0"]
    assert wiring.calls.get(work_id) is None


async def test_the_end_is_a_usage_record(api: PlayedApi) -> None:
    """The container that was killed cannot write it. It has what the try had, and where it ran."""
    wiring = engine(api)
    work_id = submit(wiring)
    await end(wiring, api, work_id, Cause.OUT_OF_MEMORY)
    (line,) = [line for line in wiring.notes._waiting if not line.log_path]
    assert line.path.startswith("modalflow-usage/2") and line.path.endswith(f"/executor-{work_id}.jsonl")
    call = RecordedCall.from_line(line.content.decode())
    record, timeline = call.record, call.timeline
    assert timeline.claimed_at == pytest.approx(record.taken_at, abs=0.01) and timeline.asked == GROWS
    assert timeline.cause == "out-of-memory" and "ta-1" in timeline.reason
    assert (record.dag_id, record.task_id, record.outcome, record.limit_mib) == ("d", "t", OUT_OF_MEMORY, 1024)
    assert record.container_id == "ta-1" and 4 < record.occupied < 60
    assert record.reserved is not None and record.reserved.memory_mib == 1024


def used(count: int, mib: float, task: TaskTry = TASK) -> list[Record]:
    """Return records of runs that used so much memory."""
    asked = Reserved(memory_mib=5000)
    return [
        Record(f"fc-{n}", "ta", float(n), *task[:3], n, reserved=asked, peak_mib=mib, running=1.0) for n in range(count)
    ]


@pytest.mark.parametrize("config", [{"memory": "auto"}, {"profile": "auto"}])
async def test_a_task_sizes_itself_from_its_last_runs(api: PlayedApi, config: dict[str, Any]) -> None:
    """In the task or in its profile; the worker is informed from how many runs."""
    wiring = engine(api)
    wiring.tasks.spawn(wiring.history.run())
    api.records = used(14, 1500)
    submit(wiring, config=config)
    asked, submission = await spawned(api)
    assert asked == {"memory": 2048}
    assert submission.resources["memory"] == 2048 and submission.sized == {"memory": 14}


async def test_many_tasks_that_size_themselves_cost_one_pass(api: PlayedApi) -> None:
    """However many come, in whatever tries; without a history, they get what their profile has."""
    wiring = engine(api)
    wiring.tasks.spawn(wiring.history.run())
    for number in range(50):
        submit(wiring, config={"memory": "auto"}, task=TaskTry("d", f"t{number}", "r"))
    asked, submission = await spawned(api, 50)
    assert api.asked == ["read_usage"]
    assert asked == {} and submission.sized == {"memory": 0}


async def test_tasks_do_not_wait_for_a_history_that_cannot_be_read(
    api: PlayedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pass that failed, and after their patience, they have what their profile has."""
    wiring = engine(api)
    monkeypatch.setattr(run_history, "PATIENCE", 0.01)
    submit(wiring, config={"memory": "auto"})
    assert (await spawned(api))[0] == {}
    monkeypatch.setattr(run_history, "PATIENCE", 60.0)
    api.broken = 1
    wiring.tasks.spawn(wiring.history.run())
    submit(wiring, config={"memory": "auto"}, task=TASK._replace(task_id="other"))
    assert (await spawned(api, 2))[0] == {}


async def test_a_thread_that_ends_during_a_look_up_loses_nothing(api: PlayedApi) -> None:
    """The next thread looks it up again."""
    wiring = engine(api)
    api.ledger[SHORTAGE + TASK.instance] = Shortage(1024).to_json()
    api.broken = 1
    submit(wiring, 2)
    await until(lambda: api.asked)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)
    wiring.tasks.restart()
    wiring.submitter.start()
    wiring.intake.place_all()
    assert (await spawned(api))[0]["memory"] == 2048


def test_a_task_instance_is_known_by_its_name() -> None:
    """Other tasks, runs and mapped siblings have their own notes."""
    assert TASK.instance == TASK._replace(try_number=7).instance
    changes: list[dict[str, Any]] = [{"dag_id": "d2"}, {"task_id": "t2"}, {"run_id": "r2"}, {"map_index": 1}]
    assert len({TASK.instance, *(TASK._replace(**each).instance for each in changes)}) == 5
