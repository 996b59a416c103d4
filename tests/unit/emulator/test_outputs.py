"""How outputs are handed over: at once after a pause, several together while they come fast."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from modal_proto import api_pb2

from modalflow.emulator.calls import calls as calls_module
from modalflow.emulator.calls.function_call import FunctionCall
from tests.unit.emulator.test_call_records import Kept, success

#: Longer than any of these tests takes: an answer that is held stays so until something releases it.
HELD = 600.0


class Map:
    """A map of a few inputs, and a client that follows it."""

    def __init__(self, kept: Kept, call: FunctionCall) -> None:
        self.kept, self.call = kept, call
        self.seen = "0-0"

    @classmethod
    async def of(cls, folder: Path, number: int) -> Map:
        kept = Kept(folder)
        return cls(kept, await kept.map(*(b"%d" % n for n in range(number))))

    def end(self, *numbers: int) -> None:
        for number in numbers:
            item = self.kept.runner.submitted[number]
            item.call.resolve(item, success(b"x" * 1000))

    async def next(self, timeout: float = HELD, **more: Any) -> list[int]:
        """Return the indices of what the next answer brings."""
        answer = await self.kept.outputs(self.call.call_id, last_entry_id=self.seen, timeout=timeout, **more)
        self.seen = answer.last_entry_id
        return list(answer.idxs)


async def _steps(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def long_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "OUTPUTS_GATHERED", HELD)


async def test_the_first_output_after_a_pause_is_not_held(tmp_path: Path) -> None:
    """A client that waits for the first output of a map has it as soon as it is there."""
    mapped = await Map.of(tmp_path, 3)
    following = asyncio.ensure_future(mapped.next())
    await _steps()
    mapped.end(1)
    assert await following == [1]


async def test_outputs_that_come_fast_are_handed_over_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs that come right after an answer share the next one, which comes once the interval is over."""
    mapped = await Map.of(tmp_path, 5)
    mapped.end(0)
    assert await mapped.next() == [0]
    monkeypatch.setattr(calls_module, "OUTPUTS_GATHERED", 0.2)
    following = asyncio.ensure_future(mapped.next())
    for number in (3, 1, 2):
        await _steps()
        mapped.end(number)
    await _steps()
    assert not following.done()
    assert await following == [3, 1, 2]


async def test_the_end_of_a_map_is_not_held(tmp_path: Path) -> None:
    """With its last output a map is over: everything that is left is handed over at once."""
    mapped = await Map.of(tmp_path, 4)
    mapped.end(0)
    assert await mapped.next() == [0]
    following = asyncio.ensure_future(mapped.next())
    mapped.end(1)
    await _steps()
    assert not following.done()
    mapped.end(2, 3)
    assert await following == [1, 2, 3]


async def test_a_client_waits_no_longer_than_it_asked_to(tmp_path: Path) -> None:
    """A request that does not wait, or not that long, is answered in its time with what is there."""
    mapped = await Map.of(tmp_path, 3)
    mapped.end(0)
    assert await mapped.next() == [0]
    mapped.end(1)
    assert await mapped.next(timeout=0) == [1]
    following = asyncio.ensure_future(mapped.next(timeout=0.05))
    mapped.end(2)
    assert await following == [2]


async def test_the_output_of_one_input_is_not_held(tmp_path: Path) -> None:
    """A client that asks for certain inputs has nothing to gather."""
    mapped = await Map.of(tmp_path, 3)
    mapped.end(0)
    assert await mapped.next() == [0]
    mapped.seen = "0-0"
    following = asyncio.ensure_future(mapped.next(start_idx=2, end_idx=2))
    await _steps()
    mapped.end(2)
    assert await following == [2]


async def test_cleared_outputs_leave_no_results_in_memory(tmp_path: Path) -> None:
    """A client that clears what it took has it in the answer; of the results nothing is kept."""
    mapped = await Map.of(tmp_path, 3)
    mapped.end(0, 1)
    answer = await mapped.kept.outputs(mapped.call.call_id, clear=True)
    assert [output.result.data for output in answer.outputs] == [b"x" * 1000] * 2
    assert not any(output.HasField("result") for output in mapped.call.outputs)


async def test_the_blob_of_a_cleared_output_is_still_in_use(tmp_path: Path) -> None:
    """A result that is a blob may be downloaded after it was cleared."""
    mapped = await Map.of(tmp_path, 1)
    [item] = mapped.kept.runner.submitted
    item.call.resolve(item, api_pb2.GenericResult(data_blob_id="bl-1"))
    await mapped.kept.outputs(mapped.call.call_id, clear=True)
    assert mapped.kept.calls.blobs() >= {"bl-1"}
