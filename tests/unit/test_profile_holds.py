"""The record of paused profiles: what any program may have written there, and the words for it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from modalflow.errors import MalformedMessageError
from modalflow.protocol.profile_holds import DRAINING, LONGEST_REASON, ProfileHold, ProfileHolds
from modalflow.protocol.snapshot import Snapshot
from modalflow.protocol.spending_report import SpendingReport
from tests.strange import JSON_VALUES, TEXTS

HOLD = ProfileHold("gpu", "ann@host", 1_795_977_000.25, "new drivers")


def test_what_is_written_is_what_is_read() -> None:
    """Every field survives, a newer command's fields and modes are passed over, and nothing is paused without one."""
    holds = ProfileHolds().with_hold(HOLD).with_hold(ProfileHold("cpu", "bob", 1.0, mode=DRAINING))
    assert ProfileHolds.from_json(holds.to_json()) == holds
    wire = json.loads(holds.to_json())
    wire["newer"] = 1
    wire["profiles"]["gpu"] |= {"until": 5, "mode": "newer"}
    read = ProfileHolds.from_json(json.dumps(wire))
    assert not read.problem and read.by_profile["gpu"].mode == "newer" and len(read.by_profile) == 2
    assert ProfileHolds.from_json(None) == ProfileHolds()
    assert holds.without("gpu").by_profile.keys() == {"cpu"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"profiles": 1}', '{"profiles": []}', 7, {"gpu": 1}, "[" * 100_000])
def test_a_malformed_record_pauses_nothing(text: object) -> None:
    """It has a problem with the fix, and no error."""
    read = ProfileHolds.from_json(text)
    assert not read.by_profile and read.problem
    assert "To write it again, run `modalflow profile pause NAME`" in read.warning


@pytest.mark.parametrize("hold", [1, None, {}, {"since": "x"}, {"since": -1}, {"since": 1e300}, {"by": 1, "since": 1}])
def test_a_malformed_part_costs_no_other_one(hold: object) -> None:
    """The other profiles stay paused."""
    wire = json.loads(ProfileHolds({"gpu": HOLD}).to_json())
    wire["profiles"]["cpu"] = hold
    read = ProfileHolds.from_json(json.dumps(wire))
    assert read.by_profile == {"gpu": HOLD} and read.problem.startswith("profile cpu: ")


@settings(deadline=None, max_examples=50)
@given(JSON_VALUES | TEXTS, TEXTS, JSON_VALUES | TEXTS)
def test_no_writer_can_make_a_reader_fail(since: object, by: str, reason: object) -> None:
    """Whatever was written, the words of a hold are one bounded line, and its id fits into a snapshot."""
    wire = {"profiles": {by: {"since": since, "by": by, "reason": reason}, "gpu": reason}}
    for hold in ProfileHolds.from_json(json.dumps(wire)).by_profile.values():
        assert len(hold.sentence) < 3 * LONGEST_REASON + 2 * len(by) and "\n" not in hold.short_sentence
        snapshot = Snapshot("p", paused={"gpu": hold.id})
        assert Snapshot.from_json(snapshot.to_json()) == snapshot


def test_a_name_is_one_bounded_line() -> None:
    """It is in logs, tables and reports, and any program of the workspace can write the record."""
    read = ProfileHolds.from_json(json.dumps({"profiles": {"gpu\n" * 500: {"since": 1, "mode": "x" * 500}}}))
    [(name, hold)] = read.by_profile.items()
    assert name == hold.profile and "\n" not in name and max(len(name), len(hold.mode)) <= 128


def test_a_huge_record_pauses_nothing() -> None:
    """Every executor would report each of its profiles every few seconds."""
    read = ProfileHolds.from_json(ProfileHolds({f"p{n}": HOLD for n in range(2000)}).to_json())
    assert not read.by_profile and "expected at most 100,000" in read.warning


def test_its_words_have_all_that_a_user_needs() -> None:
    """Who, since when, why, and how to end it."""
    begin = "profile gpu is paused by ann@host since 2026-11-29 18:30 UTC"
    end = "resume it with `modalflow profile resume gpu`"
    assert HOLD.sentence == f"{begin} (new drivers), {end}"
    assert HOLD.short_sentence == f"{begin}, {end}"


def test_other_readers_of_the_dict_pass_it_over() -> None:
    """Older schedulers and commands read all of it as snapshots."""
    text = ProfileHolds({"gpu": HOLD}).to_json()
    for report in (Snapshot, SpendingReport):
        with pytest.raises(MalformedMessageError):
            report.from_json(text)
