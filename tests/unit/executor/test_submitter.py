"""The submitter, with Modal's answers played: one refused call stops no other, and none is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from modal import exception

from modalflow.executor.mailbox import UpdateKind
from modalflow.executor.submission import submission_queue
from modalflow.executor.submission.resources import Resources
from modalflow.protocol.messages import Deployment, Kind
from modalflow.support import backoff
from tests.wired import kinds, request, wired

Answer = Callable[[str, str], Coroutine[Any, Any, str]]

DEPLOYED = Deployment("", 1, "", "", ("default", "gpu"), {}, 0.0)


class PlayedApi:
    """Answers spawns as the test says, and remembers how many were under way at once."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.spawned: list[str] = []
        self.wires: list[dict[str, Any]] = []
        self.under_way = self.most = 0
        self.deployed = DEPLOYED

    async def spawn(self, profile: str, resources: Resources, wire: dict[str, Any]) -> str:
        self.spawned.append(wire["label"])
        self.wires.append(wire)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            return await self.answer(profile, wire["label"])
        finally:
            self.under_way -= 1

    async def claim(self, entry: Any) -> bool:
        return True

    def forget_handles(self) -> None: ...

    async def record(self) -> Deployment:
        """The record of what is deployed, which a stopped app leaves behind."""
        return self.deployed


class Stage:
    """A submitter that runs, and what it works with."""

    def __init__(self, answer: Answer, concurrency: int = 8, **settings: Any) -> None:
        self.api = PlayedApi(answer)
        self.wiring = wired(self.api, submit_concurrency=concurrency, max_option_sets=0, **settings)
        self.calls, self.submitter = self.wiring.calls, self.wiring.submitter
        self.submitter.start()

    def submit(self, *names: str, profile: str = "default") -> None:
        self.wiring.intake.accept([request(name, Kind.COMMAND, profile) for name in names])

    async def started(self, *names: str) -> None:
        updates = self.wiring.outbox.updates
        async with asyncio.timeout(30):
            while not set(names) <= {update.key for update in updates if update.kind is UpdateKind.STARTED}:
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def short_pauses() -> Iterator[None]:
    with backoff.testing(0.01):
        yield


async def taken(profile: str, name: str) -> str:
    return f"fc-{name}"


async def test_many_at_once_within_the_bound_and_in_order() -> None:
    """As many spawns as allowed are under way, and they begin in the order of the heartbeat."""
    stage = Stage(taken, concurrency=8)
    names = [str(n) for n in range(100)]
    stage.submit(*names)
    await stage.started(*names)
    assert stage.api.spawned == names
    assert stage.api.most == 8
    assert stage.submitter.waiting == 0


async def test_workloads_that_are_submitted_together_get_turns() -> None:
    """Each stays further behind the first, which starts at once. A command asks nothing of Airflow and gets no turn."""
    stage = Stage(taken)
    stage.submit("command")
    stage.wiring.intake.accept([request(name) for name in ("first", "second", "third")])
    await stage.started("command", "first", "second", "third")
    wires = {wire["label"]: wire for wire in stage.api.wires}
    assert [wires[name]["start_after"] for name in ("command", "first")] == [0.0, 0.0]
    assert 0.0 < wires["second"]["start_after"] < wires["third"]["start_after"] < 1.0
    assert wires["command"]["burst_began_at"] == 0.0
    assert wires["first"]["burst_began_at"] == wires["third"]["burst_began_at"] > 0.0


async def test_one_that_always_fails_spoils_no_other() -> None:
    """A call that Modal cannot take, for whatever reason, is tried again by itself; all others go through."""
    errors = [exception.InternalError("broken"), ValueError("a bug"), exception.ServiceError("away")]

    async def answer(profile: str, name: str) -> str:
        if name == "bad":
            raise errors[stage.api.spawned.count("bad") % 3]
        return f"fc-{name}"

    stage = Stage(answer)
    names = [str(n) for n in range(50)]
    stage.submit("bad", *names)
    await stage.started(*names)
    async with asyncio.timeout(10):
        while stage.api.spawned.count("bad") < 4:
            await asyncio.sleep(0.001)
    assert stage.calls.of_key("bad") is not None


async def test_exhausted_function_is_not_hammered() -> None:
    """While one Function's limit is reached, its submissions pause together; another Function's go through."""
    open_again = asyncio.Event()

    async def answer(profile: str, name: str) -> str:
        if profile == "gpu" and not open_again.is_set():
            raise exception.ResourceExhaustedError("backlog")
        return f"fc-{name}"

    stage = Stage(answer)
    waiting = [f"gpu-{n}" for n in range(200)]
    # Long enough for the other Function's, however busy the machine is.
    with backoff.testing(1.0):
        stage.submit(*waiting, profile="gpu")
        stage.submit("one", "two")
        await stage.started("one", "two")
    assert len(stage.api.spawned) <= 8 + 2, "the rest waits for the pause"
    open_again.set()
    await stage.started(*waiting)


async def test_an_app_that_is_deployed_again_costs_no_attempt() -> None:
    """Work waits for it, with the reason for its user, and another Function's goes on."""
    deployed = asyncio.Event()

    async def answer(profile: str, name: str) -> str:
        if profile == "gpu" and not deployed.is_set():
            raise exception.NotFoundError("no app")
        return f"fc-{name}"

    stage = Stage(answer)
    stage.submit("away", profile="gpu")
    stage.submit("here")
    await stage.started("here")
    async with asyncio.timeout(10):
        while stage.api.spawned.count("away") < 5:
            await asyncio.sleep(0.001)
    assert "no app" in stage.wiring.connection.obstacle
    deployed.set()
    await stage.started("away")
    assert stage.calls.of_key("away") is not None


async def test_a_function_that_was_never_deployed_fails_its_work_at_once() -> None:
    """Or one that a later deployment has removed: there is nothing to wait for, so the first refusal counts."""

    async def answer(profile: str, name: str) -> str:
        if profile == "gpu":
            raise exception.NotFoundError("no Function")
        return f"fc-{name}"

    stage = Stage(answer)
    stage.api.deployed = dataclasses.replace(DEPLOYED, profiles=("default",))
    stage.submit("one", profile="gpu")
    stage.submit("here")
    await stage.started("here")
    async with asyncio.timeout(10):
        while UpdateKind.FAILED not in kinds(stage.wiring):
            await asyncio.sleep(0.001)
    assert stage.api.spawned.count("one") == 1
    [failed] = [update for update in stage.wiring.outbox.updates if update.kind is UpdateKind.FAILED]
    assert "no Function. Deploy it: `modalflow deploy`" in (failed.reason or "")
    assert stage.submitter.under_way == 0


async def test_a_broken_record_of_what_is_deployed_stops_no_call() -> None:
    """Whatever reading it raises, the known record decides: the call waits for its Function, and holds no place."""
    deployed = asyncio.Event()

    async def answer(profile: str, name: str) -> str:
        if not deployed.is_set():
            raise exception.NotFoundError("no app")
        return f"fc-{name}"

    async def broken() -> Deployment:
        raise AttributeError("a bug of the SDK")

    stage = Stage(answer)
    stage.wiring.connection.deployment = DEPLOYED
    stage.api.record = broken  # type: ignore[method-assign]
    stage.submit("one")
    async with asyncio.timeout(10):
        while stage.api.spawned.count("one") < 2:
            await asyncio.sleep(0.001)
    deployed.set()
    await stage.started("one")
    assert stage.submitter.under_way == 0


async def test_a_function_that_is_away_after_a_failure_at_once_is_waited_for() -> None:
    """Work failed when it was never deployed; that says nothing about a later absence."""
    deployed = asyncio.Event()

    async def answer(profile: str, name: str) -> str:
        if not deployed.is_set():
            raise exception.NotFoundError("no Function")
        return f"fc-{name}"

    stage = Stage(answer)
    stage.api.deployed = dataclasses.replace(DEPLOYED, profiles=("default",))
    stage.submit("early", profile="gpu")
    async with asyncio.timeout(10):
        while UpdateKind.FAILED not in kinds(stage.wiring):
            await asyncio.sleep(0.001)
    stage.api.deployed = DEPLOYED
    stage.submit("later", profile="gpu")
    async with asyncio.timeout(10):
        while stage.api.spawned.count("later") < 3:
            await asyncio.sleep(0.001)
    deployed.set()
    await stage.started("later")
    assert kinds(stage.wiring).count(UpdateKind.FAILED) == 1


async def test_a_spawn_without_an_answer_is_not_failed_at_once() -> None:
    """Modal may have accepted it, so it may run: that its Function is in no record any more does not end it."""
    deployed = asyncio.Event()

    async def answer(profile: str, name: str) -> str:
        if stage.api.spawned.count(name) == 1:
            raise exception.ServiceError("no answer")
        if not deployed.is_set():
            raise exception.NotFoundError("no Function")
        return f"fc-{name}"

    stage = Stage(answer)
    stage.api.deployed = dataclasses.replace(DEPLOYED, profiles=("default",))
    stage.submit("one", profile="gpu")
    async with asyncio.timeout(10):
        while stage.api.spawned.count("one") < 4:
            await asyncio.sleep(0.001)
    assert UpdateKind.FAILED not in kinds(stage.wiring)
    deployed.set()
    await stage.started("one")


async def test_a_final_refusal_counts_the_submissions_that_were_made() -> None:
    """One is not shown as the limit of them."""

    async def answer(profile: str, name: str) -> str:
        raise exception.InvalidError("no such GPU")

    stage = Stage(answer)
    stage.submit("one")
    async with asyncio.timeout(10):
        while UpdateKind.FAILED not in kinds(stage.wiring):
            await asyncio.sleep(0.001)
    [failed] = [update for update in stage.wiring.outbox.updates if update.kind is UpdateKind.FAILED]
    assert stage.api.spawned == ["one"]
    assert "Not started on Modal" in (failed.reason or "") and "submissions" not in (failed.reason or "")


async def test_an_app_that_stays_away_fails_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time of a deployment, also what comes later: the reason says how to deploy."""

    async def answer(profile: str, name: str) -> str:
        raise exception.NotFoundError("no app")

    monkeypatch.setattr(submission_queue, "DEPLOYMENT", 0.1)
    stage = Stage(answer)
    stage.submit("first")
    async with asyncio.timeout(10):
        while UpdateKind.FAILED not in kinds(stage.wiring):
            await asyncio.sleep(0.001)
        stage.submit("second")
        while kinds(stage.wiring).count(UpdateKind.FAILED) < 2:
            await asyncio.sleep(0.001)
    reasons = [update.reason or "" for update in stage.wiring.outbox.updates if update.kind is UpdateKind.FAILED]
    assert all("the worker app is not deployed: no app. Deploy it: `modalflow deploy`" in reason for reason in reasons)


async def test_refused_credentials_cost_no_attempt() -> None:
    """However often they are refused, the work is submitted once they are renewed."""
    renewed = asyncio.Event()

    async def answer(profile: str, name: str) -> str:
        if not renewed.is_set():
            raise exception.AuthError("token")
        return f"fc-{name}"

    stage = Stage(answer)
    stage.submit("one")
    async with asyncio.timeout(30):
        while len(stage.api.spawned) < 5:
            await asyncio.sleep(0.001)
    assert "Modal refused the credentials" in stage.wiring.connection.obstacle
    renewed.set()
    stage.submitter.resume()
    await stage.started("one")
    assert stage.wiring.connection.obstacle == ""
    call = stage.calls.of_key("one")
    assert call is not None
    assert call.attempts == 1
    assert call.may_start_again, "one of the refused may have come through"


async def test_new_start_submits_what_has_no_function_call() -> None:
    """After the engine's thread ended in the middle of it, nothing is left out and what was taken is not repeated."""
    unanswered = asyncio.Event()

    async def answer(profile: str, name: str) -> str:
        if name == "held" and not unanswered.is_set():
            unanswered.set()
            await asyncio.Event().wait()
        return f"fc-{name}"

    stage = Stage(answer, concurrency=1)
    stage.submit("taken", "held", "waiting")
    async with asyncio.timeout(30):
        await unanswered.wait()
    assert kinds(stage.wiring) == [UpdateKind.STARTED]
    stage.submitter.start()
    await stage.started("held", "waiting")
    assert stage.api.spawned == ["taken", "held", "held", "waiting"]


async def test_a_submission_has_the_time_of_its_spawn() -> None:
    """The worker records it, and the snapshot shows it; one that Modal refused has none until the next."""
    refused = asyncio.Event()

    async def answer(profile: str, name: str) -> str:
        if refused.is_set():
            return f"fc-{name}"
        refused.set()
        raise exception.ResourceExhaustedError("later")

    began = time.time()
    stage = Stage(answer)
    stage.submit("one")
    await stage.started("one")
    first, second = (wire["spawned_at"] for wire in stage.api.wires)
    call = stage.calls.of_key("one")
    assert call is not None and began <= first < second == call.spawned_at <= time.time()
    call.postponed()
    assert call.spawned_at == 0.0


async def test_submissions_name_the_relays_key_and_transport() -> None:
    """Each has the key of this moment; work that goes directly has neither."""
    stage = Stage(taken, relay_transport="tunnel")
    stage.submit("direct")
    await stage.started("direct")
    stage.wiring.connection.relay = "key"
    stage.submit("relayed")
    await stage.started("direct", "relayed")
    assert [(wire["relay"], wire["relay_transport"]) for wire in stage.api.wires] == [("", "queues"), ("key", "tunnel")]
