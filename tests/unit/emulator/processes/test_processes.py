"""A container's outputs: pipes that are read while it writes, and until nothing is left."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest

from modalflow.emulator.processes import process
from modalflow.emulator.processes.process import LinePipe


class Output:
    """A pipe, and what it delivered."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.pipe = LinePipe(self.found.append)

    def write(self, data: bytes) -> None:
        os.write(self.pipe.writer, data)

    async def until(self, *expected: str) -> None:
        async with asyncio.timeout(10):
            while self.found != [*expected]:
                await asyncio.sleep(0.01)


@pytest.fixture
async def output() -> AsyncIterator[Output]:
    made = Output()
    yield made
    made.pipe.close()


async def test_the_beginning_of_a_line_is_delivered_soon(output: Output) -> None:
    """A prompt is delivered although nothing follows it, and not before half a second has passed."""
    started = time.monotonic()
    output.write(b"one\nContinue? ")
    await output.until("one\n", "Continue? ")
    assert time.monotonic() - started >= process.BEGUN_AFTER
    output.write(b"yes\n")
    await output.until("one\n", "Continue? ", "yes\n")


async def test_a_writer_of_single_bytes_makes_few_deliveries(output: Output) -> None:
    """The beginnings of a line come in steps of half a second, however small the writes are."""
    started = time.monotonic()
    while time.monotonic() - started < 1.2:
        output.write(b".")
        await asyncio.sleep(0.001)
    output.pipe.drain()
    took = time.monotonic() - started
    assert 2 <= len(output.found) <= took / process.BEGUN_AFTER + 1
    assert set("".join(output.found)) == {"."}


async def test_lines_that_end_are_not_cut(output: Output) -> None:
    """Somebody who writes a line in parts, but quickly, gets it delivered whole."""
    for number in range(3):
        output.write(b"a line ")
        await asyncio.sleep(0.01)
        output.write(b"in parts %d\n" % number)
    await output.until(*(f"a line in parts {number}\n" for number in range(3)))


async def test_drain_delivers_what_was_written_and_nothing_twice(output: Output) -> None:
    """What was written before is delivered at once, an unfinished line too; the pipe goes on."""
    output.write(b"one\ntwo")
    output.pipe.drain()
    assert output.found == ["one\n", "two"]
    await asyncio.sleep(0)
    output.write(b"\xe2\x82")
    output.pipe.drain()
    output.write(b"\xac\n")
    await output.until("one\n", "two", "€\n")


async def test_drain_does_not_wait_for_a_writer_that_never_stops(output: Output) -> None:
    """Only what the pipe held when it began has to be delivered: a result does not wait for a chatty thread."""
    reads = 0
    original = os.read

    def read(descriptor: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        data = original(descriptor, size)
        os.write(output.pipe.writer, data)
        return data

    os.set_blocking(output.pipe.writer, False)
    output.write(b"x" * 4096)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "read", read)
        output.pipe.drain()
    assert reads <= process.PIPE_CAPACITY // 4096 + 1


async def test_the_end_delivers_what_is_left(output: Output) -> None:
    """When the process is gone the rest comes, a broken character too, and the descriptors are closed."""
    output.write(b"last words \xe2")
    output.pipe.close_writer()
    output.pipe.end()
    assert "".join(output.found) == "last words �"
