"""Two pipes read in the order of the writes, with a real program at their other ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from modalflow.worker.run.command_output import OutputPipes

#: Writes numbers, each to one of the two as it comes, as fast as it can.
_INTERLEAVED = """
import os, random
for number in range(5000):
    os.write(random.choice((1, 2)), b"%d\\n" % number)
os.write(1, b"x" * 200_000)
"""


def test_without_such_pipes_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that has no packets in pipes costs the order of the two streams, and no byte of either."""
    pipe2 = os.pipe2

    def without_packets(flags: int) -> tuple[int, int]:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return pipe2(flags)

    monkeypatch.setattr(os, "pipe2", without_packets)
    written, _ = _read_all(_INTERLEAVED)
    numbers = [[int(line) for line in text.split() if line.isdigit()] for text in written]
    assert sorted(numbers[0] + numbers[1]) == list(range(5000))
    assert all(stream == sorted(stream) for stream in numbers) and written[0].endswith(b"x" * 200_000)


def test_the_order_of_both_streams_is_that_of_the_writes() -> None:
    """Five thousand writes to one or the other at random are read in their order, and a long one in one piece."""
    written, order = _read_all(_INTERLEAVED)
    assert order == list(range(5000))
    assert all(written) and written[0].endswith(b"x" * 200_000)


def _read_all(code: str) -> tuple[list[bytes], list[int]]:
    """What a program writes to each stream, and the numbers in it in the order in which they were read."""
    read, write = os.pipe()
    streams = OutputPipes(read)
    program = subprocess.Popen([sys.executable, "-c", code], stdout=streams.out, stderr=streams.err)
    streams.close_writers()
    order: list[int] = []
    written: list[bytes] = [b"", b""]
    while program.poll() is None:
        for number, data in streams.read(0.2):
            written[number] += data
            order += [int(line) for line in data.split() if line.isdigit()]
    for number, data in streams.read_rest():
        written[number] += data
    streams.close()
    os.close(read)
    os.close(write)
    return written, order
