"""What is left of a paused profile, and its row in the list: from snapshots and the ledger."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest
from click.testing import CliRunner

from modalflow.cli.profiles.profile import _page, _progress, _row_wire, profile
from modalflow.operations.inventory import Inventory, ProfileState
from modalflow.operations.profiles import draining
from modalflow.operations.profiles.draining import Remaining, remaining
from modalflow.operations.profiles.listing import profile_rows
from modalflow.protocol.messages import Entry, State
from modalflow.protocol.profile_holds import DRAINING, ProfileHold, ProfileHolds
from modalflow.protocol.snapshot import InFlight, Snapshot

NOW = 1_795_977_600.0
HOLD = ProfileHold("gpu", "ann@host", NOW - 600, "new drivers", DRAINING)
RUNS = Entry("r", State.RUNNING, "fc-r", "ta-1", "o", "runs", "p", started_at=NOW - 900, profile="gpu")
NOTICED = Snapshot("p", "host", 7, version="0.5", published_at=NOW, paused={"gpu": HOLD.id})


def inventory(*executors: Snapshot, entries: tuple[Entry, ...] = (), hold: ProfileHold = HOLD) -> Inventory:
    states = [ProfileState("default", 1, 0), ProfileState("gpu", 2, 0, hold=hold)]
    return Inventory(NOW, executors, entries, states, holds=ProfileHolds({"gpu": hold}))


def left(*executors: Snapshot, entries: tuple[Entry, ...] = ()) -> Remaining:
    return remaining(inventory(*executors, entries=entries), HOLD)


def with_calls(*calls: InFlight, **counts: Any) -> Snapshot:
    return dataclasses.replace(NOTICED, calls=calls, **counts)


def test_a_profile_is_drained_when_all_have_noticed_and_nothing_runs() -> None:
    """Tasks that wait for the resumption, and work of other profiles, keep it from nothing."""
    held = InFlight("w", "w", "waiting", NOW, profile="gpu", reason=HOLD.short_sentence)
    other = InFlight("o", "o", "submitted", NOW, "fc-o", "default")
    found = left(with_calls(held, other, held_by_profile={"gpu": 3000}, on_modal={"default": 1}))
    assert found == Remaining(waiting=3000) and found.done and _progress(found) == ""


@pytest.mark.parametrize(
    ("executors", "entries", "words"),
    [
        ([NOTICED], (RUNS,), "1 running"),
        ([NOTICED], (dataclasses.replace(RUNS, profile=""),), "1 of an unknown profile"),
        (
            [with_calls(InFlight("r", "r", "submitted", NOW, "fc-r", "gpu"))],
            (),
            "1 on Modal without a container",
        ),
        ([with_calls(on_modal={"gpu": 5000})], (), "5,000 on Modal without a container"),
        ([dataclasses.replace(NOTICED, paused={})], (), "not noticed yet by host (process 7, modalflow 0.5)"),
        ([dataclasses.replace(NOTICED, paused={"gpu": 1})], (), "not noticed yet by host (process 7, modalflow 0.5)"),
        ([dataclasses.replace(NOTICED, paused=None)], (), "too old to pause a profile"),
    ],
)
def test_a_profile_is_not_drained_while_anything_may_run(
    executors: list[Snapshot], entries: tuple[Entry, ...], words: str
) -> None:
    """The progress of the command names what it waits for: work, and executors that may still submit some."""
    found = left(*executors, entries=entries)
    assert not found.done and words in _progress(found)


def test_running_work_counts_once() -> None:
    """An executor counts what it has on Modal, and the ledger has the part of it that runs."""
    call = InFlight("r", "r", "submitted", NOW, "fc-r", "gpu")
    found = left(with_calls(call, on_modal={"gpu": 1}), entries=(RUNS,))
    assert (found.running, found.submitted) == (1, 0)


def test_without_reports_a_pause_gets_time() -> None:
    """With `status_interval = 0`, an executor reports nothing: it may be there, and gets some intervals to notice."""
    assert left().done
    early = dataclasses.replace(HOLD, since=NOW - 1)
    assert not remaining(inventory(hold=early), early).done


def test_a_drain_ends_if_the_profile_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would report a profile as drained whose tasks start again."""
    found = inventory(NOTICED, entries=(RUNS,))
    states = iter([found, dataclasses.replace(found, holds=ProfileHolds())])
    monkeypatch.setattr(draining, "take_inventory", lambda site, profiles: next(states))
    monkeypatch.setattr(draining, "POLL", 0.0)
    left = draining.wait_until_drained(cast(Any, None), "gpu")
    assert next(left).running == 1
    with pytest.raises(draining.ResumedError, match="Profile 'gpu' was resumed meanwhile"):
        next(left)


def test_a_long_reason_continues_below_its_row() -> None:
    """At a word, and whole; a pipe gets one line for each profile."""
    reason = " ".join(f"word{number:02}" for number in range(40))
    rows = profile_rows(inventory(NOTICED, hold=dataclasses.replace(HOLD, reason=reason)))
    piped, shown = list(_page(rows, "")), list(_page(rows, "", 100))
    assert len(piped) == 3 and piped[2].endswith(reason)
    assert len(shown) > 4 and max(map(len, shown)) <= 100
    assert all(line.startswith("    word") for line in shown[3:])
    assert " ".join(" ".join(shown[2:]).split()) == " ".join(piped[2].split())
    result = CliRunner().invoke(profile, ["pause", "gpu", "--reason", "x" * 301])
    assert result.exit_code == 2
    assert "it has 301 characters; expected at most 300" in " ".join(result.output.split())


def test_the_list_has_every_profile() -> None:
    """Those in use, paused ones with who and why, and a paused one that is no longer deployed."""
    found = inventory(NOTICED, entries=(RUNS,))
    gone = ProfileHold("old", "bob", NOW)
    rows = profile_rows(dataclasses.replace(found, holds=found.holds.with_hold(gone)))
    assert [(row.profile, row.state, row.running, row.problem) for row in rows] == [
        ("default", "active", 0, ""),
        ("gpu", "draining", 1, ""),
        ("old", "paused", 0, "not deployed"),
    ]
    page = list(_page(rows, "a warning"))
    assert page[2].split() == [
        *("gpu", "draining", "2", "1", "0", "0"),
        *["ann@host", "since", "2026-11-29", "18:30", "UTC:", "new", "drivers"],
    ]
    assert "a warning" in page[-1]
    wire = _row_wire(rows[1])
    assert (wire["state"], wire["by"], wire["since"], wire["reason"]) == (
        "draining",
        "ann@host",
        HOLD.since,
        "new drivers",
    )
    assert profile_rows(inventory(NOTICED))[1].state == "drained"
