"""Money: the dated table, Modal's own answer, and what there is no rate for."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import pytest

from modalflow.cost.rates import DATED, Rates, UnknownRateError, money
from modalflow.cost.usage import Record, Reserved

HOUR = Record("fc-1", "ta-1", 0, occupied=3600, reserved=Reserved(1, 1024))


def asking(**changes: object) -> Record:
    assert HOUR.reserved is not None
    return dataclasses.replace(HOUR, reserved=dataclasses.replace(HOUR.reserved, **changes))  # type: ignore[arg-type]


def test_an_hour_costs_the_hourly_rates() -> None:
    """A core and a GiB for an hour, and the GPUs beside them."""
    assert DATED.dollars(HOUR) == Decimal("0.0473") + Decimal("0.008")
    assert DATED.dollars(asking(gpu="T4")) == Decimal("0.0553") + Decimal("0.59")
    assert DATED.dollars(asking(gpu="h100:2")) == Decimal("0.0553") + 2 * Decimal("3.95")


@pytest.mark.parametrize(
    ("gpu", "hourly"),
    [
        ("T4", "0.59"), ("L4", "0.80"), ("A10", "1.10"), ("A10G", "1.10"), ("L40S", "1.95"), ("A100", "2.10"),
        ("A100-40GB", "2.10"), ("A100-80GB", "2.50"), ("RTX-PRO-6000", "3.03"), ("H100", "3.95"), ("H100!", "3.95"),
        ("H200", "4.54"), ("B200", "6.25"), ("B300", "7.10"), ("a100-80gb:8", "20.00"),
    ],
)  # fmt: skip
def test_every_gpu_that_modal_has_is_in_the_table(gpu: str, hourly: str) -> None:
    """By the names that `gpu=` takes."""
    assert DATED.gpu(gpu) == Decimal(hourly)


@pytest.mark.parametrize("gpu", ["X100", "any", "B200+", "H100,A100", "T4:many", "A100:80GB"])
def test_a_gpu_without_a_rate_is_said_and_not_guessed(gpu: str) -> None:
    """There is no sum without it: half a price would be a wrong one."""
    with pytest.raises(UnknownRateError, match="GPU"):
        DATED.dollars(asking(gpu=gpu))


def test_a_record_that_does_not_say_what_was_asked_for_has_no_price() -> None:
    """The container may have had a GPU."""
    with pytest.raises(UnknownRateError, match="unknown resources"):
        DATED.dollars(dataclasses.replace(HOUR, reserved=None))


@pytest.mark.parametrize(
    ("regions", "factor"),
    [((), 1), (("us",), "1.5"), (("us-east",), "1.75"), (("us-east-1", "eu-west"), "1.75"), (("us-east", "eu"), "1.5")],
)
def test_a_chosen_region_is_dearer(regions: tuple[str, ...], factor: str) -> None:
    """GPUs included; of several regions the cheapest counts."""
    plain = DATED.dollars(asking(gpu="T4"))
    assert DATED.dollars(asking(gpu="T4", regions=regions)) == plain * Decimal(factor)


def test_a_container_that_is_not_preempted_costs_three_times_as_much() -> None:
    """Its cores and memory."""
    assert DATED.dollars(asking(nonpreemptible=True)) == 3 * DATED.dollars(HOUR)


def test_what_modal_tells_is_believed() -> None:
    """A live answer is read by its own keys; what is no number in it is passed over."""
    live = Rates.from_answer(
        {"cpu_hour_cost": Decimal("0.1"), "mem_gib_hour_cost": "0", "note": "hello", "x": "NaN"}, "Modal"
    )
    assert live.live and live.dollars(HOUR) == Decimal("0.1")
    with pytest.raises(UnknownRateError):
        live.dollars(asking(gpu="T4"))


def test_an_answer_without_the_essential_is_refused() -> None:
    """If Modal renames its keys, the dated table is better than a price of nothing."""
    with pytest.raises(ValueError, match="cpu_hour_cost"):
        Rates.from_answer({"mem_gib_hour_cost": "1", "cpu_hour_cost": "-1"}, "Modal")


@pytest.mark.parametrize(
    ("dollars", "text"),
    [("0", "$0"), ("0.0000123456", "$0.000012"), ("0.00207", "$0.0021"), ("0.0099", "$0.0099"), ("0.014", "$0.01"),
     ("12.345", "$12.34"), ("12345.6", "$12,345.60")],
)  # fmt: skip
def test_small_sums_keep_two_digits(dollars: str, text: str) -> None:
    """A task costs a hundredth of a cent, and "$0.00" says nothing."""
    assert money(Decimal(dollars)) == text
