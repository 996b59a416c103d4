"""Messages between executor and worker: read without trust, across versions."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.errors import MalformedMessageError
from modalflow.names import TaskTry
from modalflow.protocol.messages import Deployment, Entry, Kind, State, Submission
from modalflow.support.text import REASON
from tests.strange import JSON_VALUES

ENTRY = Entry("work", State.RUNNING, "fc-1", "ta-1", "owner")

NUMBERS = st.integers(-1, 2**31 - 1)


@settings(deadline=None)
@given(
    st.builds(
        Submission,
        work_id=st.text(),
        kind=st.sampled_from(Kind),
        log_path=st.text(),
        partition=st.text(),
        label=st.text(),
        workload=st.none() | st.text(),
        command=st.none() | st.text() | st.lists(st.text()).map(tuple),
        env=st.dictionaries(st.text(), st.text()),
        task=st.none() | st.builds(TaskTry, st.text(), st.text(), st.text(), NUMBERS, NUMBERS),
        start_after=st.floats(0.0, 60.0),
        sized=st.dictionaries(st.sampled_from(["cpu", "memory"]), st.integers(0, 20)),
        asked=st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.integers())),
        spawned_at=st.floats(0.0, 2e9),
    )
)
def test_submission_survives_the_wire(submission: Submission) -> None:
    """What is read is what was written, even through JSON."""
    assert Submission.from_wire(json.loads(json.dumps(submission.to_wire()))) == submission


def test_older_and_newer_executors_are_understood() -> None:
    """One that knows of no bursts sends no turn, which is a turn at once, and no home, which is none; what a newer one
    adds is left out."""
    wire = Submission("w", Kind.WORKLOAD, "l", "p", "x", burst_began_at=7.0, start_after=1.0, home="h").to_wire()
    older = {name: value for name, value in wire.items() if name not in ("burst_began_at", "start_after", "home")}
    assert (Submission.from_wire(older).burst_began_at, Submission.from_wire(older).start_after) == (0.0, 0.0)
    assert Submission.from_wire(older).home == "" and Submission.from_wire(wire).home == "h"
    assert Submission.from_wire(wire | {"of_a_newer_version": 1}).start_after == 1.0


@pytest.mark.parametrize("turn", ["soon", None, float("nan"), float("inf")])
def test_a_turn_that_is_no_time_is_malformed(turn: object) -> None:
    """It is named rather than waited for."""
    wire = Submission("w", Kind.WORKLOAD, "l", "p", "x").to_wire()
    with pytest.raises(MalformedMessageError, match="start_after"):
        Submission.from_wire(wire | {"start_after": turn})


def test_moments_are_optional() -> None:
    """A neighbour that knows nothing of them is understood; one that sends no time is refused."""
    wire = Submission("w", Kind.WORKLOAD, "l", "p", "x").to_wire()
    older = Submission.from_wire({name: wire[name] for name in wire if name not in ("spawned_at", "asked")})
    assert (older.spawned_at, older.asked) == (0.0, {})
    for malformed in ({"spawned_at": "now"}, {"submitted_at": float("nan")}, {"asked": "everything"}):
        with pytest.raises(MalformedMessageError):
            Submission.from_wire(wire | malformed)
    entry = dataclasses.replace(ENTRY, submitted_at=1.5, spawned_at=2.5, container_started_at=3.5)
    assert Entry.from_json(entry.to_json()) == entry
    names = ("submitted_at", "spawned_at", "container_started_at")
    claim = json.loads(ENTRY.to_json())
    assert Entry.from_json(json.dumps({name: claim[name] for name in claim if name not in names})) == ENTRY
    for name in names:
        with pytest.raises(MalformedMessageError, match=name):
            Entry.from_json(json.dumps(claim | {name: math.inf}))


def test_an_entry_names_its_try() -> None:
    """What `modalflow cancel` compares; an older worker's entry has none, and one that is no try is malformed."""
    entry = dataclasses.replace(ENTRY, task=TaskTry("etl", "load.orders", "r", 3, 2))
    wire = json.loads(entry.to_json())
    assert Entry.from_json(entry.to_json()) == entry and wire["task"] == ["etl", "load.orders", "r", 3, 2]
    assert Entry.from_json(json.dumps({name: value for name, value in wire.items() if name != "task"})).task is None
    with pytest.raises(MalformedMessageError):
        Entry.from_json(json.dumps(wire | {"task": "etl.load.orders"}))


def test_a_workload_names_its_own_try() -> None:
    """It travels once: within the workload, or beside a command."""
    ti = {"dag_id": "d", "task_id": "t", "run_id": "r", "try_number": 2, "map_index": None}
    workload = Submission("w", Kind.WORKLOAD, "l", "p", "x", workload=json.dumps({"ti": ti}))
    assert workload.task_try == TaskTry("d", "t", "r", -1, 2) and workload.to_wire()["task"] is None
    callback = Submission("w", Kind.WORKLOAD, "l", "p", "x", workload='{"callback": {}}')
    assert callback.task_try is None


def test_newer_peer_may_add_fields() -> None:
    """A field that this version does not know is passed over."""
    wire = json.loads(ENTRY.to_json()) | {"invented_later": 1}
    assert Entry.from_json(json.dumps(wire)) == ENTRY


@pytest.mark.parametrize(
    "text", [None, 7, "", "{", "[]", "{}", '{"work_id": 1}', ENTRY.to_json().replace("running", "dancing")]
)
def test_malformed_entry_is_refused(text: object) -> None:
    """Whatever a hostile task writes into the ledger, reading it ends in one known error."""
    with pytest.raises(MalformedMessageError):
        Entry.from_json(text)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.sampled_from([*json.loads(ENTRY.to_json()), "x"]), JSON_VALUES))
def test_no_entry_raises_anything_else(wire: dict[str, object]) -> None:
    """Any JSON object is an entry that is safe to store and to calculate with, or that one error."""
    with contextlib.suppress(MalformedMessageError):
        check(Entry.from_json(json.dumps(json.loads(ENTRY.to_json()) | wire)))


@settings(deadline=None)
@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    """The same holds for what is no JSON at all."""
    for read in (Entry.from_json, Deployment.from_json):
        with contextlib.suppress(MalformedMessageError):
            read(text)


def check(entry: Entry) -> None:
    for value in dataclasses.asdict(entry).values():
        if isinstance(value, str):
            value.encode()
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", value)
            assert len(value) <= REASON
        if isinstance(value, int | float):
            assert math.isfinite(float(value))
            assert f"{value} {value:.0f}"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        ENTRY.to_json().replace('"started_at":0.0', '"started_at":NaN'),
        ENTRY.to_json().replace('"started_at":0.0', '"started_at":1e999'),
        ENTRY.to_json().replace('"started_at":0.0', f'"started_at":{10**400}'),
        ENTRY.to_json().replace('"return_code":null', f'"return_code":{10**400}'),
        ENTRY.to_json().replace('"return_code":null', '"return_code":true'),
        ENTRY.to_json().replace('"worker_version":""', '"worker_version":{}'),
        ENTRY.to_json().replace('"owner":"owner"', '"owner":[]'),
    ],
    ids=lambda text: text[-60:],
)
def test_an_entry_that_cannot_be_calculated_with_is_refused(text: str) -> None:
    """Numbers that no arithmetic bears, other types and bottomless nesting are malformed like anything else."""
    with pytest.raises(MalformedMessageError) as caught:
        Entry.from_json(text)
    assert len(str(caught.value)) < 1000


def test_a_reason_of_megabytes_arrives_short() -> None:
    """Whatever wrote it: a neighbouring version of the worker may not have a bound."""
    wire = json.loads(ENTRY.to_json()) | {"reason": "A\x00B " + "é" * 10_000_000, "container_id": "ta\n\x1b[2J"}
    entry = Entry.from_json(json.dumps(wire))
    assert entry.reason is not None
    assert entry.reason.startswith("A\\x00B é")
    assert entry.reason.endswith(" more characters)")
    assert entry.container_id == "ta\\n\\x1b[2J"
    assert len(entry.to_json()) < 1 << 16


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Deployment)]), JSON_VALUES))
def test_no_deployment_record_raises_anything_else(wire: dict[str, object]) -> None:
    """The record is on a Volume that containers can write."""
    known = json.loads(Deployment("0.4.0", 1, "3.3.2", "3.11.7", ("default",), {"dags": "/opt"}, 1.0).to_json())
    with contextlib.suppress(MalformedMessageError):
        deployment = Deployment.from_json(json.dumps(known | wire))
        assert deployment.airflow_version.split(".")
        assert all(isinstance(name, str) for name in (*deployment.profiles, *deployment.volumes.values()))


def test_token_is_not_in_a_repr() -> None:
    """A submission may be logged."""
    assert "secret" not in repr(Submission("w", Kind.WORKLOAD, "l", "p", "x", workload='{"token": "secret"}'))


def test_deployment_survives() -> None:
    """The record that deploy writes is what the executor reads."""
    deployment = Deployment("0.4.0", 1, "3.3.2", "3.11.7", ("default",), {"dags": "/opt"}, 1.0)
    assert Deployment.from_json(deployment.to_json()) == deployment
