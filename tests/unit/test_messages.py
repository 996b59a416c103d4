"""Messages between executor and worker: read without trust, across versions."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalflow.errors import MalformedMessageError
from modalflow.messages import Deployment, Entry, Kind, State, Submission
from modalflow.names import TaskTry

ENTRY = Entry("work", State.RUNNING, "fc-1", "ta-1", "owner")


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
        task=st.none() | st.builds(TaskTry, st.text(), st.text(), st.text(), st.integers(), st.integers()),
    )
)
def test_submission_survives_the_wire(submission: Submission) -> None:
    """What is read is what was written, even through JSON."""
    assert Submission.from_wire(json.loads(json.dumps(submission.to_wire()))) == submission


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


@given(st.dictionaries(st.sampled_from([*json.loads(ENTRY.to_json()), "x"]), st.integers() | st.text() | st.none()))
def test_no_entry_raises_anything_else(wire: dict[str, object]) -> None:
    """Any JSON object is an entry or that one error."""
    with contextlib.suppress(MalformedMessageError):
        Entry.from_json(json.dumps(wire))


def test_token_is_not_in_a_repr() -> None:
    """A submission may be logged."""
    assert "secret" not in repr(Submission("w", Kind.WORKLOAD, "l", "p", "x", workload='{"token": "secret"}'))


def test_deployment_survives() -> None:
    """The record that deploy writes is what the executor reads."""
    deployment = Deployment("0.4.0", 1, "3.3.2", "3.11.7", ("default",), {"dags": "/opt"}, 1.0)
    assert Deployment.from_json(deployment.to_json()) == deployment
