"""The page of `modalflow advise`, as a user reads it."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from modalflow.cli.spending.advise import _page, _wire, change
from modalflow.cli.terminal.since import moment
from modalflow.cost.advice import Advice, ColdAdvice, IdleAdvice, TaskAdvice
from modalflow.cost.rates import DATED
from modalflow.cost.usage import Reserved
from modalflow.names import Names

SITE: Any = SimpleNamespace(names=Names("prod"), control_plane=SimpleNamespace(environment="main"))
TASK = TaskAdvice(
    profile="default",
    dag_id="etl",
    task_id="train",
    runs_a_month=1200.0,
    asks=Reserved(4, 16_384),
    used_mib=3140.0,
    used_cores=1.2,
    needs_mib=4096.0,
    needs_cores=2.0,
    dollars=Decimal(140),
    saves=Decimal("85.2"),
)
LESS = dataclasses.replace(TASK, saves=Decimal(0), needs_cores=8.0, needs_mib=32_768.0)
ADVICE = Advice(
    days=14.0,
    dollars=Decimal(412),
    tasks=[TASK],
    at_risk=[dataclasses.replace(LESS, risks=("took up to 99% of its timeout",), timeout=7200.0)],
    idle=[IdleAdvice("gpu", 0.5, Decimal(30), 60.0)],
    cold=[ColdAdvice("default", Reserved(1, 512, timeout=60.0), 90.0, 1.1, 7.5, ["etl.odd"], Reserved(2, 1024))],
)


def page(advice: Advice) -> list[str]:
    since: Any = moment(SimpleNamespace(), SimpleNamespace(), "2026-11-15")  # type: ignore[arg-type]  # It reads neither.
    return list(_page(SITE, advice, since, DATED, 20))


def test_every_part_has_its_line_to_change() -> None:
    """The largest saving comes first, and each row says what to write."""
    text = "\n".join(page(ADVICE))
    for part in (
        "14.0 days of records; at this rate, a month of 30 days costs about $412.00 with Modal's rates of 2026-10",
        "$85.20         etl  train  default  1,200         4 cores, 16 GiB  1.2 cores, 3.07 GiB  2 cores, 4 GiB",
        'etl.train: executor_config=modalflow.modal_config(cpu=2, memory="4GiB")',
        "took up to 99% of its timeout",
        "etl.train: executor_config=modalflow.modal_config(timeout=7200)",
        'profile gpu: Profile("gpu", scaledown_window=…, …)',
        'etl.odd: modal_config(cpu=2, memory="1GiB")',
    ):
        assert part in text, text
    assert page(Advice(0.0, Decimal(0)))[-1].startswith("  No records: no matching task ended in this time")
    assert page(Advice(14.0, Decimal(1)))[-1] == "No advice: tasks ask for what they use, and containers are busy."


@pytest.mark.parametrize(
    ("advice", "line"),
    [
        ({"asks": Reserved(4, 16_384, limit_mib=20_480)}, 'modal_config(cpu=2, memory=("4GiB", "20GiB"))'),
        ({"saves": Decimal(0), "limit_mib": 6144.0}, 'modal_config(memory="6GiB")'),
        (
            {"saves": Decimal(0), "limit_mib": 6144.0, "asks": Reserved(2, 1024, limit_mib=3072)},
            'modal_config(memory=("1GiB", "6GiB"))',
        ),
        (
            {"dag_id": "", "task_id": ""},
            'Profile("default", cpu=2, memory="4GiB", …), or without a file: modalflow deploy --cpu 2 --memory 4GiB',
        ),
        ({"dag_id": "", "task_id": "", "profile": "big"}, 'Profile("big", cpu=2, memory="4GiB", …)'),
    ],
)
def test_the_line_to_change(advice: dict[str, Any], line: str) -> None:
    """A task that has a limit keeps it, and tasks that share containers change their profile."""
    assert change(dataclasses.replace(TASK, **advice)).endswith(line)


def test_json_has_everything() -> None:
    """Programs get the figures and the line."""
    since: Any = moment(SimpleNamespace(), SimpleNamespace(), "2026-11-15")  # type: ignore[arg-type]  # As above.
    wire = _wire(SITE, ADVICE, since, DATED)
    [less] = wire["ask_for_less"]
    assert less["saves_a_month"] == "85.2" and less["needs"] == {"cpu": 2.0, "memory_mib": 4096.0}
    assert less["change"].startswith("executor_config=")
    assert [len(wire[part]) for part in ("ask_for_more", "idle_containers", "cold_pools")] == [1, 1, 1]
