"""Records summed."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.cost.rates import DATED
from modalflow.cost.sums import GROUPINGS, summed
from modalflow.cost.usage import LOST, Record, Reserved

RECORDS = st.lists(
    st.builds(
        Record,
        function_call_id=st.uuids().map(str),
        container_id=st.sampled_from(["ta-1", "ta-2"]),
        taken_at=st.floats(0, 1e9),
        dag_id=st.sampled_from(["", "d", "e"]),
        run_id=st.sampled_from(["r", "s"]),
        task_id=st.just("t"),
        outcome=st.sampled_from(["success", "failed", "deferred", LOST]),
        reserved=st.none()
        | st.builds(Reserved, st.floats(0, 64), st.floats(0, 1e6), st.sampled_from(["", "T4", "H100:2", "X1"])),
        running=st.floats(0, 1e5),
        occupied=st.floats(0, 1e5),
        cpu_seconds=st.floats(0, 1e6),
    ),
    max_size=6,
)


def record(call: str, **values: object) -> Record:
    known = {
        "dag_id": "d",
        "run_id": "r",
        "task_id": "t",
        "try_number": 1,
        "reserved": Reserved(1, 1024),
        "occupied": 2.0,
    }
    return Record(call, "ta-1", 100.0, **known | values)  # type: ignore[arg-type]


@settings(max_examples=40)
@given(RECORDS, st.randoms(use_true_random=False), st.sampled_from(sorted(GROUPINGS)))
def test_the_order_of_records_does_not_matter(records: list[Record], random: object, by: str) -> None:
    """Files are read side by side, so that the same question must have the same answer, to the last digit."""
    shuffled = list(records)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summed(records, DATED, by) == summed(shuffled, DATED, by)


@settings(max_examples=40)
@given(RECORDS, st.sampled_from(sorted(GROUPINGS)))
def test_the_groups_add_up_to_the_whole(records: list[Record], by: str) -> None:
    """However it is cut, nothing is counted twice or left out."""
    groups, whole = summed(records, DATED, by)
    assert sum(each.calls for each in groups.values()) == whole.calls == len(records)
    assert sum((each.dollars for each in groups.values()), Decimal(0)) == whole.dollars
    assert sum((each.occupied for each in groups.values()), Decimal(0)) == whole.occupied


def test_the_parts_of_a_deferred_try_are_one_task() -> None:
    """What ran before the deferral, and after it, is summed."""
    groups, _ = summed([record("fc-1", running=1.0, outcome="deferred"), record("fc-2", running=2.0)], DATED)
    assert list(groups) == [("d", "r")]
    assert (groups["d", "r"].tasks, groups["d", "r"].calls, groups["d", "r"].running) == (1, 2, Decimal(3))


def test_gpus_are_summed_by_model() -> None:
    """Two H100 for two seconds are four H100 seconds."""
    calls = [record("fc-1", reserved=Reserved(gpu="H100:2")), record("fc-2", reserved=Reserved(gpu="T4"))]
    assert summed(calls, DATED)[1].gpu_seconds == {"H100": Decimal(4), "T4": Decimal(2)}


def test_what_has_no_rate_is_counted_apart() -> None:
    """The sum holds what could be priced, and says what could not."""
    whole = summed(
        [record("fc-1"), record("fc-2", reserved=Reserved(gpu="X100")), record("fc-3", reserved=None)], DATED
    )[1]
    assert whole.dollars == DATED.dollars(record("fc-1"))
    assert whole.unpriced == {"GPU X100": 1, "unknown resources": 1}


@pytest.mark.parametrize(
    ("by", "key"),
    [("run", ("d", "r")), ("dag", ("d",)), ("task", ("d", "t")), ("try", ("d", "r", "t[3]", "1")),
     ("profile", ("gpu",)), ("day", ("1970-01-01",))],
)  # fmt: skip
def test_there_are_several_ways_to_sum(by: str, key: tuple[str, ...]) -> None:
    """Each has as many columns as its keys have parts."""
    groups, _ = summed([record("fc-1", profile="gpu", map_index=3)], DATED, by)
    assert list(groups) == [key] and len(GROUPINGS[by][0]) == len(key)
