"""Claims and outcomes, against a ledger that loses answers and requests as a network does."""

from __future__ import annotations

import asyncio
import dataclasses
import queue
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modalflow.protocol.messages import Entry, State
from modalflow.worker.ledger import Claim, Ledger, RetryPolicy

SHORT = RetryPolicy(total=1, one_try=0.2, pause=0.001)


class Rpc:
    """A method with the ``aio`` of Modal's SDK. ``lost`` calls raise; ``lost_answers`` calls take effect and raise."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.lost = self.lost_answers = 0

    def aio(self, *arguments: Any, **options: Any) -> Awaitable[Any]:
        async def call() -> Any:
            if self.lost:
                self.lost -= 1
                raise ConnectionError("request lost")
            answer = self._method(*arguments, **options)
            if self.lost_answers:
                self.lost_answers -= 1
                raise ConnectionError("answer lost")
            return answer

        return call()


class Entries:
    """What of modal.Dict the worker uses."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.put = Rpc(self._put)
        self.get = Rpc(self.entries.get)

    def _put(self, key: str, value: str, *, skip_if_exists: bool = False) -> bool:
        if skip_if_exists and key in self.entries:
            return False
        self.entries[key] = value
        return True


class Events:
    """What of modal.Queue the worker uses."""

    def __init__(self) -> None:
        self.sent: list[Entry] = []
        self.is_full = False
        self.put = Rpc(self._put)

    def _put(self, value: str, *, block: bool, partition: str) -> None:
        assert not block and partition
        if self.is_full:
            raise queue.Full
        self.sent.append(Entry.from_json(value))


@pytest.fixture
def entries() -> Entries:
    return Entries()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def ledger(entries: Entries, events: Events) -> Ledger:
    return Ledger(entries, events, retry=SHORT)


CLAIM = Entry("w1", State.RUNNING, "fc-1", "ta-1", "owner-1", partition="p")


def ended(entry: Entry, reason: str | None = None) -> Entry:
    return dataclasses.replace(entry, state=State.FAILED, reason=reason)


async def test_one_of_two_claims_wins(ledger: Ledger) -> None:
    """The first claim is ours, that of another function call is a duplicate."""
    other = dataclasses.replace(CLAIM, function_call_id="fc-2", owner="owner-2")
    assert (await ledger.claim(CLAIM))[0] is Claim.OURS
    assert await ledger.claim(other) == (Claim.DUPLICATE, CLAIM)


async def test_a_claim_whose_answer_was_lost_is_still_ours(ledger: Ledger, entries: Entries) -> None:
    """A claim that took effect unheard is recognised by its owner when it is repeated."""
    entries.put.lost_answers = 1
    assert (await ledger.claim(CLAIM))[0] is Claim.OURS


async def test_the_same_function_call_in_another_container_finds_its_work_lost(ledger: Ledger) -> None:
    """An input that Modal gave to a second container is known by the function call of the claim."""
    await ledger.claim(CLAIM)
    again = dataclasses.replace(CLAIM, container_id="ta-2", owner="owner-2")
    assert await ledger.claim(again) == (Claim.LOST, CLAIM)


async def test_ended_work_is_not_claimed_again(ledger: Ledger) -> None:
    """A terminal entry stays what it is."""
    await ledger.claim(CLAIM)
    await ledger.finish(ended(CLAIM))
    again = dataclasses.replace(CLAIM, owner="owner-2")
    assert await ledger.claim(again) == (Claim.ENDED, ended(CLAIM))


async def test_the_outcome_is_stored_before_it_is_announced(ledger: Ledger, entries: Entries, events: Events) -> None:
    """Whoever reads an event finds the outcome in the ledger, though the ledger needed several tries."""
    await ledger.claim(CLAIM)
    entries.put.lost = entries.get.lost = 2
    await ledger.finish(ended(CLAIM, "why"))
    assert Entry.from_json(entries.entries["w1"]) == ended(CLAIM, "why") == events.sent[0]


async def test_a_container_that_was_taken_for_lost_does_not_contradict(
    ledger: Ledger, entries: Entries, events: Events
) -> None:
    """Once another container has ended the work, the first one's outcome is neither stored nor announced."""
    await ledger.claim(CLAIM)
    verdict = ended(dataclasses.replace(CLAIM, owner="owner-2"), "lost")
    await ledger.take_over(verdict)
    await ledger.finish(dataclasses.replace(CLAIM, state=State.SUCCESS))
    assert Entry.from_json(entries.entries["w1"]) == verdict
    assert events.sent == [verdict]


async def test_forgotten_work_leaves_nothing_in_the_ledger(ledger: Ledger, entries: Entries, events: Events) -> None:
    """Where the executor has removed the entry, the outcome is announced only."""
    await ledger.claim(CLAIM)
    entries.entries.clear()
    await ledger.finish(ended(CLAIM))
    assert not entries.entries and events.sent == [ended(CLAIM)]


async def test_a_full_partition_fails_nothing(ledger: Ledger, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that cannot be sent is given up: the ledger has the outcome."""
    monkeypatch.setattr("modalflow.worker.ledger.EVENT_RETRY", RetryPolicy(total=0.01, one_try=0.01, pause=0.001))
    await ledger.claim(CLAIM)
    events.is_full = True
    await ledger.finish(ended(CLAIM))
    assert events.sent == []


async def test_a_refusal_does_not_overwrite_a_claim(ledger: Ledger, entries: Entries, events: Events) -> None:
    """Work that somebody has claimed meanwhile is theirs."""
    await ledger.claim(CLAIM)
    await ledger.refuse(ended(dataclasses.replace(CLAIM, owner="owner-2")))
    assert Entry.from_json(entries.entries["w1"]) == CLAIM and events.sent == []


async def test_a_ledger_that_hangs_is_given_up_in_the_end(ledger: Ledger, entries: Entries) -> None:
    """A call without an answer ends with its patience, not never."""

    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    ledger = Ledger(entries, None, retry=RetryPolicy(total=0.02, one_try=0.005, pause=0.001))
    entries.get.aio = hang  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        await ledger.finish(ended(CLAIM))


async def test_a_claim_without_an_answer_is_ended_by_its_owner(
    ledger: Ledger, entries: Entries, events: Events
) -> None:
    """A container that is stopped while it claims says how it ended; otherwise nobody would know why."""
    await ledger.claim(CLAIM)
    await ledger.refuse(ended(CLAIM))
    assert Entry.from_json(entries.entries[CLAIM.work_id]).state is State.FAILED
    assert [entry.state for entry in events.sent] == [State.FAILED]
