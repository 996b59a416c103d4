"""Repeated calls: one effect, one answer, in bounded memory."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.message import Message
from modal_proto import api_pb2

from modalflow.emulator.answers import Answers


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
    answers, handler = Answers(), Counter()
    assert await answers.once(("DictPop", "k"), handler) == await answers.once(("DictPop", "k"), handler)
    assert handler.effects == 1
    await answers.once(("DictPop", "other"), handler)
    assert handler.effects == 2


async def test_caller_that_goes_away_does_not_undo_half_an_effect() -> None:
    """A connection lost while the call is under way: the repetition waits for that same work."""
    answers, handler = Answers(), Counter()
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
    answers = Answers()

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
    answers, handler = Answers(most, most_bytes), Counter(size=100)
    for n in range(10):
        await answers.once(("DictPop", str(n)), handler)
    await answers.once(("DictPop", "9"), handler)
    assert handler.effects == 10
    await answers.once(("DictPop", "0"), handler)
    assert handler.effects == 11
