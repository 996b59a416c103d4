"""``make bench-logs``: the age of a log's lines at their read, and the cost of long logs and of order.

Prints a table in Markdown. The worker is deployed to its own local control plane, without Airflow. The reader is the
one of Airflow's API server.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import modal

from benchmarks import machine
from modalflow import control_plane
from modalflow.emulator.local import LocalModal
from modalflow.logs.log_volume import LogVolume
from modalflow.names import DEFAULT_PROFILE, Names
from modalflow.protocol.messages import Kind, Submission
from modalflow.worker.deploy.deployment import deploy

NAMES = Names("bench-logs")

#: Prints the time ten times a second.
TICKS = "import time\nfor n in range({}): print('tick', time.time(), flush=True); time.sleep(0.1)"

#: Prints a hundred megabytes of lines of 100 bytes, as any program does, in blocks.
LONG = "out = open(1, 'w', closefd=False)\nfor n in range(1_000_000): print(f'{n:099}', file=out)\nout.flush()"

#: Writes lines one by one, to both streams in turn.
BOTH = "import os\nfor n in range(50_000): os.write(1 + n % 2, b'%d\\n' % n)"


@dataclass(frozen=True)
class Desk:
    """A deployed worker, with the benchmark's operations."""

    local: LocalModal
    logs: LogVolume

    def spawn(self, program: str) -> tuple[str, Any]:
        """Start a Python program as a raw command; return its log's path and its call."""
        work_id = uuid.uuid4().hex
        submission = Submission(
            work_id=work_id,
            kind=Kind.COMMAND,
            log_path=f"logs/{work_id}",
            partition=work_id,
            label=work_id,
            command=(sys.executable, "-c", program),
        )
        function: Any = modal.Function.from_name(
            NAMES.app, NAMES.function(DEFAULT_PROFILE), client=self.logs.control_plane.client
        )
        return submission.log_path, function.spawn(submission.to_wire())

    def ages(self, ticks: int) -> list[float]:
        """Seconds between a line's print and when it can be read."""
        path, call = self.spawn(TICKS.format(ticks))
        seen: dict[str, float] = {}
        while True:
            text = "".join(self.logs.read(path)[1])
            now = time.time()
            for told in text.split('"tick ')[1:]:
                said = told.partition('"')[0]
                seen.setdefault(said, now - float(said))
            if len(seen) == ticks:
                call.get(timeout=60)
                return list(seen.values())
            time.sleep(0.05)

    def run(self, program: str) -> tuple[str, float]:
        """Run a program to its end. Return its log's path and its seconds, by its own clock."""
        timed = f"import time; began = time.time()\n{program}\nprint('took', time.time() - began)"
        path, call = self.spawn(timed)
        call.get(timeout=300)
        last = "".join(self.logs.read(path)[1]).rpartition('"took ')[2]
        return path, float(last.partition('"')[0])


@contextmanager
def desk() -> Iterator[Desk]:
    with LocalModal() as local:
        os.environ.update(local.env)
        control_plane._known.clear()
        deploy(NAMES, bundles={})
        yield Desk(local, LogVolume(control_plane.connect(), NAMES))


#: Both streams go to a reader without storage.
_FORGOTTEN = '{ { "$@"; } 2>&1 1>&3 | cat >/dev/null; } 3>&1 | cat >/dev/null'


def alone(program: str) -> float:
    """Return the seconds of a program with discarded output."""
    began = time.monotonic()
    subprocess.run(["/bin/sh", "-c", _FORGOTTEN, "sh", sys.executable, "-c", program], check=True)
    return time.monotonic() - began


def _ages(title: str, ages: Sequence[float]) -> str:
    ordered = sorted(ages)
    middle, most = statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
    return f"| {title} (s): p50, p95, most | {middle:.2f} | {most:.2f} | {ordered[-1]:.2f} |"


def rows() -> Iterator[str]:
    with desk() as here:
        here.run("pass")  # One-time starts are done from here on.
        yield _ages("age of a line", here.ages(150))
        fault = here.local.faults.add("VolumeCommit:delay=3s")
        yield _ages("the same where a commit takes 3 s", here.ages(300))
        here.local.faults.clear([fault.id])
        path, took = here.run(LONG)
        sizes = [file.size for file in here.logs.volume.listdir(path)]
        title = f"a log of {sum(sizes) / 1e6:.0f} MB: its program (s), the same without a log, its largest file (MiB)"
        yield f"| {title} | {took:.1f} | {alone(LONG):.1f} | {max(sizes) / 2**20:.2f} |"
        reader = LogVolume(here.logs.control_plane, NAMES)
        reads = []
        for _ in range(2):
            began = time.monotonic()
            reader.read(path)
            reads.append(time.monotonic() - began)
        yield f"| the same: to read it, to read it again (s) | {reads[0]:.2f} | {reads[1]:.2f} | |"
        path, took = here.run(BOTH)
        text = "".join(here.logs.read(path)[1])
        numbers = [int(line.partition('"')[0]) for line in text.split('"event":"')[2:] if line[0].isdigit()]
        wrong = sum(before > after for before, after in itertools.pairwise(numbers))
        title = "50,000 writes to both streams in turn: the program (s), the same without a log, lines out of order"
        yield f"| {title} | {took:.2f} | {alone(BOTH):.2f} | {wrong} |"


def main() -> None:
    before = machine.load()
    table = list(rows())
    print(f"{machine.describe()}; load before {before:.1f}, after {machine.load():.1f}\n")
    print("| | | | |\n|---|---:|---:|---:|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
