"""Records of what was occupied: written, read by another version, and settled."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.cost.usage import LOST, OUT_OF_MEMORY, Record, Reserved, settled
from modalflow.errors import MalformedMessageError


def lost(call: str, start: float, seconds: float, container: str = "ta-1") -> Record:
    return Record(call, container, start, outcome=LOST, running=seconds, occupied=seconds)


def test_a_record_is_read_as_it_was_written() -> None:
    """Nothing is lost on the way, and what is as usual is not written at all."""
    record = Record(
        "fc-1", "ta-1", 12.5, "d", "t", "r", 3, 2, reserved=Reserved(2, 4096, "T4", ("us-east",)), running=1.5
    )
    assert Record.from_line(record.to_line()) == record
    assert "idle" not in record.to_line() and record.to_line().endswith("}\n")


def test_a_record_of_a_newer_version_is_read() -> None:
    """A field that this version does not know is passed over, in the record and in what was reserved."""
    wire = json.loads(Record("fc-1", "ta-1", 1.0, reserved=Reserved()).to_line())
    wire["disk"] = wire["reserved"]["disk"] = {"of": "the future"}
    assert Record.from_line(json.dumps(wire)) == Record("fc-1", "ta-1", 1.0, reserved=Reserved())


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "[]", "null", "{}", '{"function_call_id": "fc-1", "container_id": "ta-1"}',
        '{"function_call_id": "fc-1", "container_id": "ta-1", "taken_at": "now"}',
        '{"function_call_id": "fc-1", "container_id": "ta-1", "taken_at": 1, "running": -1}',
        '{"function_call_id": "fc-1", "container_id": "ta-1", "taken_at": 1, "running": NaN}',
        '{"function_call_id": "fc-1", "container_id": "ta-1", "taken_at": 1, "reserved": 4}',
        '{"function_call_id": "fc-1", "container_id": "ta-1", "taken_at": 1, "reserved": {"cpu": "1"}}',
        '{"function_call_id": "fc-1", "container_id": "ta-1", "taken_at": 1, "running": 1e11}',
        '{"function_call_id": "fc-1", "container_id": "ta-1", "taken_at": 253402300799}',
        '{"function_call_id": 7, "container_id": "ta-1", "taken_at": 1}',
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(line: str) -> None:
    """A task can write to the Volume: whatever is there ends in one kind of error."""
    with pytest.raises(MalformedMessageError):
        Record.from_line(line)


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda kids: st.dictionaries(st.text(), kids), max_leaves=4
    )
)
def test_nothing_else_is_raised(value: object) -> None:
    """As above, for any JSON in any field."""
    wire = {"function_call_id": "fc-1", "container_id": "ta-1", "taken_at": 1.0}
    for name in ("reserved", "running", "map_index", "taken_at"):
        try:
            Record.from_line(json.dumps(wire | {name: value}))
        except MalformedMessageError:
            continue


@pytest.mark.parametrize(
    ("resources", "reserved"),
    [
        ({}, Reserved(0.125, 128)),
        ({"cpu": None, "memory": None, "gpu": None, "region": None}, Reserved(0.125, 128)),
        ({"cpu": [2, 4], "memory": (1024, 2048), "timeout": 60}, Reserved(2, 1024, limit_mib=2048, timeout=60)),
        ({"cpu": 1, "gpu": "H100:2", "region": "us"}, Reserved(1, 128, "H100:2", ("us",))),
        (
            {"region": ["eu", "us-east"], "nonpreemptible": True},
            Reserved(regions=("eu", "us-east"), nonpreemptible=True),
        ),
        ({"gpu": ["H100", "A100"]}, Reserved(gpu="H100,A100")),
    ],
)
def test_what_was_asked_for_is_read_as_modal_takes_it(resources: dict[str, object], reserved: Reserved) -> None:
    """Of (request, limit) the request counts; what nobody asked for is Modal's default."""
    assert Reserved.read(resources) == reserved


def test_what_was_used_counts_where_it_is_more_than_was_asked_for() -> None:
    """Modal bills the higher of the two, for cores and for memory."""
    frugal = Record(
        "fc-1", "ta-1", 0, reserved=Reserved(2, 2048), occupied=10, cpu_seconds=3, peak_mib=100, worker_mib=50
    )
    assert (frugal.core_seconds, frugal.gib_seconds) == (20, 20)
    greedy = Record("fc-1", "ta-1", 0, reserved=Reserved(), occupied=10, cpu_seconds=30, peak_mib=924, worker_mib=100)
    assert (greedy.core_seconds, greedy.gib_seconds) == (30, 10)


def test_calls_that_were_lost_together_share_their_container() -> None:
    """A killed container that ran four calls was one container."""
    records = settled([lost("a", 100, 10), lost("b", 105, 5), lost("c", 100, 10, "ta-2")])
    assert {r.function_call_id: r.occupied for r in records} == {"a": 7.5, "b": 2.5, "c": 10}


def test_a_killed_container_is_shared_with_the_calls_that_ended_before() -> None:
    """They have reported their shares. Without them, the seconds that two calls ran at once would count double."""
    ended = Record("ended", "ta-1", 100, running=4, occupied=2, outcome="success")
    out_of_memory = Record("b", "ta-1", 100, outcome=OUT_OF_MEMORY, running=10, occupied=10)
    records = settled([out_of_memory, lost("a", 104, 6), ended])
    assert {r.function_call_id: r.occupied for r in records} == {"ended": 2, "a": 3, "b": 5}


def test_a_container_that_was_killed_after_its_record_counts_once() -> None:
    """What the container itself wrote is believed before what another one guessed."""
    own = Record("a", "ta-1", 100, running=4, occupied=4, outcome="success")
    assert settled([lost("a", 100, 10), own]) == settled([own, lost("a", 100, 10)]) == [own]
