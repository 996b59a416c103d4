"""The last runs of tasks, and the sizes that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.cost.history import (
    CPU_SIZES,
    KEPT_TASKS,
    LAST_RUNS,
    MEMORY_SIZES,
    History,
    Run,
    cpu_need,
    memory_need,
    percentile,
)
from modalflow.cost.usage import LOST, OUT_OF_MEMORY, Record, Reserved, settled

MODEST = st.floats(10, 100_000)


def record(at: float, used: float = 0.0, *, asked: float = 128, task: str = "t", outcome: str = "success") -> Record:
    reserved = Reserved(0.125, asked)
    call = f"fc-{at}"
    return Record(call, "ta-1", at, "d", task, "r", outcome=outcome, reserved=reserved, peak_mib=used, running=1.0)


def out_of_memory(at: float, had: float) -> Record:
    return replace(record(at, asked=had, outcome=OUT_OF_MEMORY), limit_mib=had)


def runs(*records: Record) -> Sequence[Run]:
    history = History()
    history.add(records)
    return history.runs("d", "t")


def test_a_history_has_the_last_runs_of_a_task_in_their_order() -> None:
    """Records come in any order: mapped siblings are one task, and other tasks do not count."""
    history = History()
    numbers = [3, 1, *range(10, 10 + LAST_RUNS), 2, 4]
    history.add(replace(record(at, used=at), map_index=at) for at in numbers)
    history.add([record(5, task="other"), record(6, outcome=LOST), Record("fc", "ta", 7.0, label="a command")])
    assert [run.memory_mib for run in history.runs("d", "t")] == [*range(10, 10 + LAST_RUNS)]
    assert len(history.runs("d", "other")) == 1
    assert not history.runs("d", "unknown")
    assert len(history) == 2


def test_a_history_is_bounded() -> None:
    """The tasks with the latest runs are kept."""
    history = History()
    history.add(record(at, task=f"t{at}") for at in range(KEPT_TASKS + 1))
    assert len(history) == KEPT_TASKS * 9 // 10
    assert history.runs("d", f"t{KEPT_TASKS}") and not history.runs("d", "t0")


@pytest.mark.parametrize(
    ("used", "size"),
    [([100], 128), ([120], 192), ([1000] * 14, 1536), ([1600] * 3, 2048), ([500_000], 336 * 1024), ([1] * 3, 128)],
)
def test_memory_has_a_margin_and_one_of_few_sizes(used: list[float], size: float) -> None:
    """A fifth more than the 95th percentile, in the next size; never more than Modal has."""
    need = memory_need(runs(*(record(at, each) for at, each in enumerate(used))))
    assert need is not None
    assert (need.size, need.runs) == (size, len(used))


def test_there_is_no_need_without_a_history() -> None:
    """Runs whose use is unknown show nothing."""
    assert memory_need(()) is None and cpu_need(()) is None
    assert memory_need(runs(record(1))) is None


def test_a_run_that_was_out_of_memory_needs_more_than_it_had() -> None:
    """Twice as much by default, even if all other runs used little."""
    history = [record(1, 100), out_of_memory(2, 1024), record(3, 100)]
    need = memory_need(runs(*history))
    assert need is not None and (need.size, need.runs) == (2048, 3)
    grown = memory_need(runs(*history), growth=3)
    assert grown is not None and grown.size == 3072


@given(st.lists(st.tuples(MODEST, st.booleans(), st.sampled_from(MEMORY_SIZES)), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_the_size_is_never_below_the_worst_of_the_last_runs(found: list[tuple[float, bool, float]]) -> None:
    """Whatever a history holds: a run's use fits, and a run that was out of memory gets more than it had."""
    last = runs(
        *(
            out_of_memory(at, used) if killed else record(at, used, asked=asked)
            for at, (used, killed, asked) in enumerate(found)
        )
    )
    need = memory_need(last)
    assert need is not None and need.size in MEMORY_SIZES and need.runs <= LAST_RUNS
    for used, killed, _ in found[-LAST_RUNS:]:
        assert need.size > used if killed else need.size >= used


def simulated(needs: Sequence[float], first: float, *, limited: bool) -> list[float]:
    """Return what each of these runs asks for if its task sizes itself; if ``limited``, it dies if it needs more."""
    history, asked = History(), []
    for at, needed in enumerate(needs):
        need = memory_need(history.runs("d", "t"))
        asked.append(first if need is None else need.size)
        killed = limited and needed > asked[-1]
        history.add([out_of_memory(at, asked[-1]) if killed else record(at, needed, asked=asked[-1])])
    return asked


@given(
    st.lists(MODEST, min_size=5, max_size=5),
    st.lists(st.floats(0, 1), max_size=LAST_RUNS - 6),
    st.sampled_from(MEMORY_SIZES),
)
@settings(max_examples=200, deadline=None)
def test_the_size_settles_within_five_runs(used: list[float], later: list[float], first: float) -> None:
    """After five runs of any use, the size stays as long as no run uses more than they did."""
    asked = simulated([*used, *(share * max(used) for share in later), 1.0], first, limited=False)
    assert len(set(asked[5:])) == 1
    assert asked[5] >= max(used)


@given(st.floats(0.1, 16), st.sampled_from([128.0, 512.0, 2048.0]))
@settings(max_examples=200, deadline=None)
def test_the_size_settles_within_five_runs_although_the_first_are_killed(times: float, first: float) -> None:
    """A task that needs up to 16 times as much as it had at first succeeds in the fifth run, and then settles."""
    asked = simulated([first * times] * LAST_RUNS, first, limited=True)
    assert len(set(asked[5:])) == 1
    assert min(asked[4:]) >= first * times


def test_failures_take_no_place_of_other_runs() -> None:
    """A task that fails early for days needs what it needed before. A failure that used more than all counts."""
    well = [record(at, 1000) for at in range(LAST_RUNS)]
    failed = [record(100 + at, 100, outcome="up_for_retry") for at in range(3 * LAST_RUNS)]
    last = runs(*well, *failed)
    assert len(last) == 2 * LAST_RUNS
    need = memory_need(last)
    assert need is not None and need.size == 1536
    worse = memory_need(runs(*well, *failed, record(500, 3000, outcome="failed")))
    assert worse is not None and worse.size == 3072
    alone = memory_need(runs(*failed))
    assert alone is not None and alone.size == 128


def test_a_size_stays_if_a_change_would_hardly_help() -> None:
    """A size that is one step too large stays: another one would be another container pool, which starts cold."""
    kept = memory_need(runs(record(1, 600, asked=1024)))
    smaller = memory_need(runs(record(1, 600, asked=2048)))
    assert kept is not None and smaller is not None
    assert (kept.size, smaller.size) == (1024, 768)


def test_cores_are_the_mean_of_a_run() -> None:
    """Three core-seconds in two seconds are one and a half cores. A run of a moment counts as one of a second."""
    need = cpu_need(runs(replace(record(1), cpu_seconds=3.0, running=2.0)))
    assert need is not None and need.size == 2
    moment = cpu_need(runs(replace(record(1), cpu_seconds=0.1, running=0.01)))
    assert moment is not None and moment.size == 0.125
    assert cpu_need(runs(replace(record(1), cpu_seconds=9e9))) is not None
    assert max(CPU_SIZES) == 64


@given(st.lists(st.tuples(st.floats(0.01, 60), st.sampled_from(CPU_SIZES)), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_the_cores_are_never_below_the_worst_of_the_last_runs(found: list[tuple[float, float]]) -> None:
    """Whatever a history holds, each of its last runs fits."""
    used = [replace(record(at), cpu_seconds=cores, reserved=Reserved(cpu)) for at, (cores, cpu) in enumerate(found)]
    need = cpu_need(runs(*used))
    assert need is not None and need.size in CPU_SIZES
    assert need.size >= max(cores for cores, _ in found[-LAST_RUNS:])


def test_a_percentile_is_one_of_the_values() -> None:
    """The smallest value that 95 of 100 do not exceed; of fewer than 20 values, the largest."""
    assert percentile(range(1, 101)) == 95
    assert percentile([3, 1, 2]) == 3


def test_the_record_of_a_killed_container_is_settled_as_a_lost_one() -> None:
    """Calls side by side share the time; the worker's record of the loss gives way to the executor's with the cause."""
    dead = [replace(out_of_memory(at, 512), function_call_id=f"fc-{at}", running=10.0 - at) for at in (0, 1)]
    lost = replace(dead[0], outcome=LOST)
    for records in ([lost, *dead], [*dead, lost]):
        found = settled(records)
        assert [each.outcome for each in found] == [OUT_OF_MEMORY] * 2
        assert sum(each.occupied for each in found) == pytest.approx(10)
