"""Repeated calls: one effect, one answer, in bounded memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from google.protobuf.message import Message
from modal_proto import api_pb2

from modalflow.emulator.rpc.idempotency import RememberedAnswers
from modalflow.emulator.state.journal import Journal
from tests.support import killed


class Counter:
    """A handler that counts its effects."""

    def __init__(self, size: int = 1) -> None:
        self.effects = 0
        self.size = size
        self.released = asyncio.Event()
        self.released.set()

    async def __call__(self) -> Message:
        self.effects += 1
        await self.released.wait()
        return api_pb2.DictPopResponse(found=True, value=bytes(self.size))


async def test_repetition_has_the_same_answer_and_no_effect() -> None:
    """A retried call gets what the first one got."""
    answers, handler = RememberedAnswers(journal=Journal()), Counter()
    assert await answers.once(("DictPop", "k"), handler) == await answers.once(("DictPop", "k"), handler)
    assert handler.effects == 1
    await answers.once(("DictPop", "other"), handler)
    assert handler.effects == 2


async def test_caller_that_goes_away_does_not_undo_half_an_effect() -> None:
    """A connection lost while the call is under way: the repetition waits for that same work."""
    answers, handler = RememberedAnswers(journal=Journal()), Counter()
    handler.released.clear()
    first = asyncio.ensure_future(answers.once(("QueuePut", "k"), handler))
    await asyncio.sleep(0)
    first.cancel()
    second = asyncio.ensure_future(answers.once(("QueuePut", "k"), handler))
    await asyncio.sleep(0)
    handler.released.set()
    assert isinstance(await second, api_pb2.DictPopResponse)
    assert handler.effects == 1


async def test_failure_is_not_remembered() -> None:
    """What failed is tried again."""
    answers = RememberedAnswers(journal=Journal())

    async def fails() -> Message:
        raise RuntimeError("once")

    with pytest.raises(RuntimeError):
        await answers.once(("QueuePut", "k"), fails)
    handler = Counter()
    await answers.once(("QueuePut", "k"), handler)
    assert handler.effects == 1


@pytest.mark.parametrize(("most", "most_bytes"), [(2, 10_000), (1_000, 250)])
async def test_memory_is_bounded(most: int, most_bytes: int) -> None:
    """Neither many answers nor large ones add up: the oldest go first."""
    answers, handler = RememberedAnswers(most, most_bytes, journal=Journal()), Counter(size=100)
    for n in range(10):
        await answers.once(("DictPop", str(n)), handler)
    await answers.once(("DictPop", "9"), handler)
    assert handler.effects == 10
    await answers.once(("DictPop", "0"), handler)
    assert handler.effects == 11


async def test_an_answer_is_kept_with_its_effect(tmp_path: Path) -> None:
    """At whatever moment a kill comes, effect and answer are both there or both not; the repetition tells which."""
    (tmp_path / "first").mkdir()
    journal = Journal(tmp_path / "first")
    table = journal.table("things", int)
    answers = RememberedAnswers(journal=journal)

    async def handler() -> Message:
        await asyncio.sleep(0)
        table.put("", "a", 1)
        return api_pb2.DictPopResponse(found=True, value=b"1")

    call = asyncio.ensure_future(answers.once(("DictPop", "k"), handler))
    moments = []
    while not call.done():
        moments.append(killed(tmp_path / "first"))
        await asyncio.sleep(0)
    await journal.settled()
    moments.append(killed(tmp_path / "first"))
    journal.close()

    seen = []
    for folder in moments:
        left = Journal(folder)
        again, counter = RememberedAnswers(journal=left, types={"DictPop": api_pb2.DictPopResponse}), Counter()
        await again.once(("DictPop", "k"), counter)
        there = bool(list(left.table("things", int).load()))
        assert there is (counter.effects == 0)
        seen.append(there)
        left.close()
    assert seen[0] is False and seen[-1] is True


async def test_a_delivery_is_made_once(tmp_path: Path) -> None:
    """Who hangs up while nothing is there takes nothing; what was delivered is delivered again to a repetition."""
    answers, items, arrived = RememberedAnswers(journal=Journal()), [b"1", b"2"], asyncio.Event()

    async def handler() -> Message:
        await arrived.wait()
        return api_pb2.QueueGetResponse(values=[items.pop(0)])

    def is_delivery(answer: Message) -> bool:
        return isinstance(answer, api_pb2.QueueGetResponse) and bool(answer.values)

    hung_up = asyncio.ensure_future(answers.delivered(("Get", "k"), handler, is_delivery))
    await asyncio.sleep(0)
    hung_up.cancel()
    await asyncio.wait([hung_up])
    arrived.set()
    first = await answers.delivered(("Get", "k"), handler, is_delivery)
    assert await answers.delivered(("Get", "k"), handler, is_delivery) == first
    assert items == [b"2"]
