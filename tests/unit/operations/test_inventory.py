"""Snapshots joined with the ledger: each work id once, with the newest that is known of it."""

from __future__ import annotations

import dataclasses

from modalflow.operations.inventory import Inventory
from modalflow.protocol.messages import Entry, State
from modalflow.protocol.snapshot import SILENT_FOR, InFlight, Snapshot

NOW = 10_000.0


def entry(work_id: str, state: State, partition: str = "p") -> Entry:
    return Entry(work_id, state, f"fc-{work_id}", "ta-1", "owner", f"label {work_id}", partition, started_at=NOW - 5)


def snapshot(*calls: InFlight, partition: str = "p", age: float = 0.0, more: int = 0) -> Snapshot:
    return Snapshot(partition, "host", 7, published_at=NOW - age, calls=calls, more=more)


def told(*executors: Snapshot, entries: list[Entry]) -> dict[str, tuple[str, str]]:
    work = Inventory(NOW, executors, entries).work()
    assert len({each.work_id for each in work}) == len(work)
    return {each.work_id: (each.state, each.executor) for each in work}


def test_the_ledger_says_what_runs() -> None:
    """An executor knows that a call was submitted; that it runs, or has ended, is in the ledger."""
    calls = [InFlight(name, name, "submitted", NOW - 60, f"fc-{name}", "gpu") for name in ("a", "b", "c")]
    executor = snapshot(InFlight("w", "w", "waiting", NOW), *calls)
    found = told(executor, entries=[entry("a", State.RUNNING), entry("b", State.SUCCESS)])
    assert found == {"a": ("running", "host/7"), "c": ("submitted", "host/7"), "w": ("waiting", "host/7")}
    totals = Inventory(NOW, [executor], [entry("a", State.RUNNING)]).totals()
    assert totals["gpu"] == {"running": 1, "submitted": 2}


def test_unfinished_work_has_its_moments() -> None:
    """From the executor's row until a container claims it; then from the claim, also if it was adopted later."""
    calls = [InFlight(name, name, "submitted", NOW - 60, f"fc-{name}", spawned_at=NOW - 50) for name in ("a", "b", "c")]
    claims = [
        dataclasses.replace(
            entry("a", State.RUNNING), submitted_at=NOW - 90, spawned_at=NOW - 80, container_started_at=NOW - 9
        ),
        entry("b", State.RUNNING),
    ]
    work = {each.work_id: each for each in Inventory(NOW, [snapshot(*calls)], claims).work()}
    moments = {name: (each.submitted_at, each.spawned_at, each.container_started_at) for name, each in work.items()}
    assert moments == {
        "a": (NOW - 90, NOW - 80, NOW - 9),
        "b": (NOW - 60, NOW - 50, 0.0),
        "c": (NOW - 60, NOW - 50, 0.0),
    }


def test_what_runs_for_nobody_is_told() -> None:
    """The work of an executor that is gone, or silent, is there without it; what it had not begun is not told."""
    silent = snapshot(InFlight("b", "b", "submitted", NOW), partition="q", age=SILENT_FOR + 60)
    found = told(silent, entries=[entry("a", State.RUNNING, "q"), entry("x", State.RUNNING, "nobody's")])
    assert found == {"a": ("running", ""), "x": ("running", "")}


def test_what_just_began_has_its_executor() -> None:
    """Work that an executor has not told of yet is known to be its own by the partition of its claim."""
    assert told(snapshot(), entries=[entry("new", State.RUNNING)]) == {"new": ("running", "host/7")}


def test_running_comes_first_and_the_oldest_of_each() -> None:
    """What costs money, and what has taken longest, is at the top."""
    calls = [InFlight(name, name, "submitted", since) for name, since in (("young", NOW - 1), ("old", NOW - 99))]
    work = Inventory(NOW, [snapshot(*calls, more=3)], [entry("a", State.RUNNING)]).work()
    assert [each.work_id for each in work] == ["a", "old", "young"]
    assert Inventory(NOW, [snapshot(*calls, more=3)], []).unlisted == 3
