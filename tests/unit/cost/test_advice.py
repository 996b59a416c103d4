"""Advice from usage records: what could be saved, what nearly ran out, and what waits."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest

from modalflow.cost.advice import MONTH, Advice, advise
from modalflow.cost.rates import DATED
from modalflow.cost.usage import OUT_OF_MEMORY, Record, Reserved

NOW = 1_795_960_800.0
DAY = 86_400.0
#: The tests' records are of ten days, so a month has three times as many.
SINCE = NOW - 10 * DAY
LARGE = Reserved(cpu=4, memory_mib=16_384, timeout=3600.0)


def runs(number: int, task: str = "fit", **fields: Any) -> list[Record]:
    """Return runs of 600 s, the first one ten days ago, each alone in a container of its own."""
    values: dict[str, Any] = {
        "reserved": LARGE,
        "running": 600.0,
        "occupied": 600.0,
        "cpu_seconds": 300.0,
        "peak_mib": 900.0,
        "worker_mib": 100.0,
        "outcome": "success",
        "profile": "default",
    } | fields
    return [
        Record(f"fc-{task}-{n}", f"ta-{task}-{n}", SINCE + n * DAY / 10, dag_id="etl", task_id=task, **values)
        for n in range(number)
    ]


def advice_on(records: list[Record], **granted: Any) -> Advice:
    return advise(records, DATED, {"default": granted}, SINCE, NOW)


def test_a_task_that_asks_for_too_much() -> None:
    """It saves the difference between its records as they are and as they would be, at the rate of a month."""
    records = runs(100)
    [advice] = advice_on(records).tasks
    assert (advice.dag_id, advice.task_id, advice.profile) == ("etl", "fit", "default")
    assert (advice.needs_mib, advice.needs_cores) == (1536.0, 1.0)
    assert (advice.used_mib, advice.used_cores) == (1000.0, 0.5)
    assert advice.runs_a_month == pytest.approx(300)
    fits = [dataclasses.replace(each, reserved=Reserved(1, 1536, timeout=3600.0)) for each in records]
    saves = sum(DATED.dollars(each) for each in records) - sum(DATED.dollars(each) for each in fits)
    assert advice.saves == pytest.approx(saves * Decimal(MONTH / (10 * DAY)))
    assert advice.dollars == pytest.approx(sum(DATED.dollars(each) for each in records) * 3)


def test_the_largest_saving_comes_first() -> None:
    """Tasks that fit, and those whose use is unknown, are not listed."""
    fits = runs(500, "fits", reserved=Reserved(1, 1536))
    unknown = runs(500, "unknown", peak_mib=0.0, worker_mib=0.0, cpu_seconds=0.0)
    found = advice_on([*runs(10, "small"), *runs(100, "large"), *fits, *unknown])
    assert [each.task_id for each in found.tasks] == ["large", "small"]
    assert (found.at_risk, found.idle, found.cold) == ([], [], [])


@pytest.mark.parametrize(
    ("fields", "risk", "limit", "timeout"),
    [
        ({"outcome": OUT_OF_MEMORY, "limit_mib": 2048.0}, "ran out of memory in 10 of 10 runs", 4096.0, 0.0),
        ({"reserved": Reserved(1, 1024, limit_mib=1050.0)}, "used up to 95% of its memory limit", 3072.0, 0.0),
        ({"reserved": Reserved(1, 1536, timeout=650.0)}, "took up to 92% of its timeout", 0.0, 1300.0),
    ],
)
def test_tasks_that_nearly_ran_out(fields: dict[str, Any], risk: str, limit: float, timeout: float) -> None:
    """Each has its reason and a larger limit."""
    [advice] = advice_on(runs(10, **fields)).at_risk
    assert list(advice.risks) == [risk]
    assert (advice.limit_mib, advice.timeout) == (limit, timeout)


def test_what_was_lost_for_want_of_time_is_prevented() -> None:
    """A run that ended at its timeout was paid for nothing."""
    records = runs(10, reserved=Reserved(1, 1536, timeout=600.0), outcome="failed")
    [advice] = advice_on(records).at_risk
    assert advice.prevents == pytest.approx(sum(DATED.dollars(each) for each in records) * 3)
    [granted] = advice_on(runs(10, reserved=Reserved(1, 1536)), timeout=600).at_risk
    assert granted.risks == ("took up to 100% of its timeout",), "the profile's timeout counts for older records"


def test_tasks_that_share_containers_are_one_row() -> None:
    """Their container needs room for as many as it may run at once, so the profile is to change."""
    shared = runs(100, "a", occupied=150.0) + runs(100, "b", occupied=150.0, peak_mib=300.0)
    own = runs(100, "own", reserved=Reserved(4, 8192))
    found = advise(shared + own, DATED, {"default": {"cpu": 4.0, "memory": 16_384, "concurrency": 4}}, SINCE, NOW)
    profile, task = sorted(found.tasks, key=lambda each: each.is_of_profile, reverse=True)
    assert (profile.is_of_profile, profile.profile) == (True, "default")
    assert profile.runs_a_month == pytest.approx(600)
    assert profile.needs_mib == 6144.0, "4 times 900 MiB, the worker, and a margin"
    assert (task.task_id, task.needs_mib) == ("own", 1536.0)


def test_idle_containers_cost_money() -> None:
    """The time between tasks is a share of what they cost."""
    [idle] = advice_on(runs(100, reserved=Reserved(1, 1536), idle=300.0, occupied=600.0)).idle
    assert (idle.profile, idle.idle_share) == ("default", 0.5)
    half = sum(DATED.dollars(each) for each in runs(100, reserved=Reserved(1, 1536), occupied=300.0, cpu_seconds=0.0))
    assert idle.dollars == pytest.approx(half * 3)


def test_a_cold_pool_beside_a_warm_one() -> None:
    """Options of a few tasks start a container for each; another set of the profile has enough for them."""
    odd = runs(10, "odd", reserved=Reserved(1, 1536, timeout=3600.0), starting=7.0)
    warm = [dataclasses.replace(each, container_id="ta-one") for each in runs(50, reserved=LARGE, cpu_seconds=2400.0)]
    [cold] = advice_on([*odd, *warm]).cold
    assert (cold.profile, cold.asks, cold.tasks) == ("default", odd[0].reserved, ["etl.odd"])
    assert (cold.calls_a_container, cold.starting, cold.larger) == (1.0, 7.0, LARGE)
    assert advice_on(odd).cold == [], "there is no other set"


def test_nothing_is_extrapolated_from_an_hour() -> None:
    """A day is the least that a month is made of."""
    records = [dataclasses.replace(each, taken_at=NOW - 3600.0) for each in runs(10)]
    [advice] = advice_on(records).tasks
    assert advice.runs_a_month == pytest.approx(300)
    assert advise([], DATED, {}, SINCE, NOW) == Advice(0.0, Decimal(0))
