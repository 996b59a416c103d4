"""Two pipes read in the order of the writes, with a real program at their other ends."""

from __future__ import annotations

import os
import subprocess
import sys

from modalflow.worker.streams import Streams

#: Writes numbers, each to one of the two as it comes, as fast as it can.
_INTERLEAVED = """
import os, random
for number in range(5000):
    os.write(random.choice((1, 2)), b"%d\\n" % number)
os.write(1, b"x" * 200_000)
"""


def test_the_order_of_both_streams_is_that_of_the_writes() -> None:
    """Five thousand writes to one or the other at random are read in their order, and a long one in one piece."""
    read, write = os.pipe()
    streams = Streams(read)
    program = subprocess.Popen([sys.executable, "-c", _INTERLEAVED], stdout=streams.out, stderr=streams.err)
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
    assert order == list(range(5000))
    assert all(written) and written[0].endswith(b"x" * 200_000)
