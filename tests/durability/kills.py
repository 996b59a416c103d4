"""The kills: workloads run, the control plane is killed at random moments, restarted on the same port, looked at.

The moments are seeded; what runs at such a moment depends on the machine, so the same seed is not the same history.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import modal

from tests.durability.objects import seeded
from tests.durability.plane import Plane
from tests.durability.workload import Lost, Workload
from tests.sdk import client_of
from tests.support import wait_until

#: A control plane is left alone until so many operations were acknowledged since its start, and then a moment more.
OPERATIONS = (5, 60)
MOMENT_SECONDS = 0.05

CHECK_EVERY = 5
ONE_IN_DIES_STARTING = 6
LOAD_SECONDS = 120.0


@dataclass
class Report:
    """What came of it."""

    kills: int = 0
    acknowledged: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    said: str = ""

    def __str__(self) -> str:
        lines = [f"{self.kills} kills; acknowledged (and lost) operations:"]
        lines += [f"  {name}: {count} ({self.lost[name]})" for name, count in self.acknowledged.items()]
        lines += [f"problems: {len(self.problems)}", *self.problems]
        return "\n".join(lines)


def run(folder: Path, kinds: Sequence[type[Workload]], kills: int, seed: int, **options: object) -> Report:
    """Kill a control plane on that folder so many times under all the workloads; report what is wrong afterwards."""
    report, rng = Report(), random.Random(seed)
    with contextlib.ExitStack() as stack:
        plane = stack.enter_context(Plane(folder, **options))
        assert plane.address is not None
        workloads: list[Workload] = []
        for kind in kinds:
            client: modal.Client = stack.enter_context(client_of(plane.address.url, plane.address.variables()))
            workloads.append(kind(client, seeded(seed, kind.name)))
        for workload in workloads:
            workload.prepare()
        with _working(workloads):
            while report.kills < kills:
                _wait_for_load(workloads, rng)
                plane.kill()
                report.kills += 1
                if rng.randrange(ONE_IN_DIES_STARTING) == 0:
                    plane.kill_while_starting(rng)
                    report.kills += 1
                plane.start()
                if report.kills % CHECK_EVERY == 0:
                    _check(workloads)
        for workload in workloads:
            workload.finish()
        report.said = plane.said()
    for workload in workloads:
        report.acknowledged[workload.name] = workload.acknowledged
        report.lost[workload.name] = workload.lost
        report.problems += workload.problems
    return report


def _wait_for_load(workloads: Sequence[Workload], rng: random.Random) -> None:
    wanted = sum(w.acknowledged for w in workloads) + rng.randint(*OPERATIONS)
    wait_until(lambda: sum(w.acknowledged for w in workloads) >= wanted, LOAD_SECONDS, "the load to go on", 0.005)
    # The moment itself: not just after an answer, where nothing is under way.
    threading.Event().wait(rng.uniform(0, MOMENT_SECONDS))


def _check(workloads: Sequence[Workload]) -> None:
    for workload in workloads:
        with workload.turn:
            workload.check()


@contextlib.contextmanager
def _working(workloads: Sequence[Workload]) -> Iterator[None]:
    over = threading.Event()

    def work(workload: Workload) -> None:
        while not over.is_set():
            with workload.turn:
                try:
                    workload.step()
                except Lost:
                    workload.tell("a step did not say what became of a lost operation")
                except Exception as error:  # noqa: BLE001 (told)
                    # A thread's boundary: an answer that no workload expects is a finding, not the end of the run.
                    workload.tell(f"unexpected {error!r}")
            # A lock is not fair: let a check in between.
            over.wait(0.001)

    threads = [threading.Thread(target=work, args=(w,), name=f"workload-{w.name}", daemon=True) for w in workloads]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
