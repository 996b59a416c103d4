"""Which work a user means."""

from __future__ import annotations

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey

from modalflow.executor.workloads import label_of
from modalflow.operations.inventory import Work
from modalflow.operations.targets import NothingMatchesError, Target, matching

RUN = "manual__2026-01-01T00:00:00+00:00"


def label(task: str = "load", index: int = -1, number: int = 1, dag: str = "etl", run: str = RUN) -> str:
    return label_of(TaskInstanceKey(dag, task, run, number, index))


@pytest.mark.parametrize(
    ("target", "matches"),
    [
        (Target("etl", "load", RUN), True),
        (Target("etl", "load", RUN, map_index=3), True),
        (Target("etl", "load", RUN, map_index=4), False),
        (Target("etl", "load", RUN, try_number=2), True),
        (Target("etl", "load", RUN, try_number=1), False),
        (Target("etl", "loa", RUN), False),
        (Target("etl", "load", RUN[:-1]), False),
        (Target("et", "l.load", RUN), False),
        (Target(".*", "load", RUN), False),
    ],
)
def test_a_label_is_that_of_one_target(target: Target, matches: bool) -> None:
    """What is left out stands for any; what is given is compared whole, and is no pattern."""
    assert target.matches(label(index=3, number=2)) is matches


def test_a_task_in_a_group_is_found() -> None:
    """Dots in names are nothing special."""
    assert Target("my.dag", "group.load", RUN).matches(label("group.load", dag="my.dag"))


def work(number: int, of: str) -> Work:
    return Work(f"work-{number}", of, "running", 0.0, function_call_id=f"fc-{number}")


def test_all_that_is_meant_is_found() -> None:
    """Without a map index all mapped instances are meant; an id means one."""
    there = [work(n, label(index=n)) for n in range(3)] + [work(7, label("other"))]
    assert matching(there, Target("etl", "load", RUN)) == there[:3]
    assert matching(there, Target("etl", "load", RUN, map_index=1)) == [there[1]]
    assert matching(there, "fc-7") == matching(there, "work-7") == [there[3]]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Target("etl", "lod", RUN), f"The nearest: etl.load run {RUN} try 1"),
        ("fc-8", "The nearest: fc-7"),
        ("something else", "is under way on Modal. What"),
    ],
)
def test_what_is_not_there_is_answered_with_the_nearest(wanted: Target | str, said: str) -> None:
    """A typing mistake costs one more look, not a search."""
    with pytest.raises(NothingMatchesError) as refused:
        matching([work(7, label())], wanted)
    assert said in str(refused.value)
