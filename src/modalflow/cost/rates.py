"""Modal's rates, and the cost of a record: an estimate, never a bill.

Rates have Modal's own form: dollars an hour by the keys of ``Workspace.billing.rates()``. So the dated table and a live
answer are equal in form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from modalflow.cost.usage import Record, Reserved

_CPU, _MEMORY, _GPU = "cpu_hour_cost", "mem_gib_hour_cost", "gpu_hour_cost_"

#: Dollars an hour, from the output of `modal billing rates` for several users in August and September 2026; unchanged
#: in October.
_TABLE = {
    "cpu_hour_cost": "0.0473",
    "mem_gib_hour_cost": "0.008",
    "gpu_hour_cost_t4": "0.59",
    "gpu_hour_cost_l4": "0.80",
    "gpu_hour_cost_a10g": "1.10",
    "gpu_hour_cost_l40s": "1.95",
    "gpu_hour_cost_a100_40gb": "2.10",
    "gpu_hour_cost_a100_80gb": "2.50",
    "gpu_hour_cost_rtx6000": "3.03",
    "gpu_hour_cost_h100": "3.95",
    "gpu_hour_cost_h200": "4.54",
    "gpu_hour_cost_b200": "6.25",
    "gpu_hour_cost_b300": "7.10",
}
TABLE_DATE = "2026-10"

#: Name of a GPU in ``gpu=`` → its name in the rates, if different.
_GPU_KEYS = {"a10": "a10g", "a100": "a100_40gb", "rtx_pro_6000": "rtx6000"}

#: Modal's page on regions: a broad one ("us") costs 1.5 times as much, a narrow one ("us-east") 1.75 times. Of several,
#: the cheapest counts.
_BROAD, _NARROW = Decimal("1.5"), Decimal("1.75")

#: The factor for cores and memory of a nonpreemptible container.
_NONPREEMPTIBLE = Decimal(3)

_HOUR = Decimal(3600)
_SMALLEST = Decimal("1e-12")


class UnknownRateError(Exception):
    """There is no rate for a resource of a record. The message names the resource."""


@dataclass(frozen=True)
class Rates:
    """Dollars an hour for each resource on Modal."""

    hourly: Mapping[str, Decimal]
    source: str
    """The source and date of the rates, for users."""
    live: bool = False

    @classmethod
    def from_answer(cls, answer: Mapping[str, object], source: str) -> Rates:
        """Return the rates in an answer of Modal's API. Raises ValueError without cores or memory."""
        hourly: dict[str, Decimal] = {}
        for key, value in answer.items():
            try:
                rate = Decimal(str(value))
            except InvalidOperation:
                continue
            if rate.is_finite() and rate >= 0:
                hourly[str(key)] = rate
        if missing := [key for key in (_CPU, _MEMORY) if key not in hourly]:
            raise ValueError(f"Modal's answer has no {' and no '.join(missing)}")
        return cls(hourly, source, live=True)

    def gpu(self, wanted: str) -> Decimal:
        """Dollars an hour for ``gpu=``: a model, or ``model:count``; UnknownRateError if there is no rate for it."""
        model, count = gpu_of(wanted)
        key = model.lower().removesuffix("!").replace("-", "_")
        rate = self.hourly.get(_GPU + _GPU_KEYS.get(key, key))
        if rate is None:
            raise UnknownRateError(f"GPU {model}")
        return rate * count

    def dollars(self, record: Record) -> Decimal:
        """Return the estimated cost of a record. Raises UnknownRateError without a rate."""
        if record.reserved is None:
            raise UnknownRateError("unknown resources")
        reserved = record.reserved
        cores_and_memory = exact(record.core_seconds) * self.hourly[_CPU]
        cores_and_memory += exact(record.gib_seconds) * self.hourly[_MEMORY]
        if reserved.nonpreemptible:
            cores_and_memory *= _NONPREEMPTIBLE
        gpus = exact(record.occupied) * self.gpu(reserved.gpu) if reserved.gpu else Decimal(0)
        # Rounded far below any real price, so sums do not depend on their order.
        return ((cores_and_memory + gpus) * region_factor(reserved) / _HOUR).quantize(_SMALLEST)


#: The rates without an answer from Modal.
DATED = Rates({key: Decimal(value) for key, value in _TABLE.items()}, f"Modal's rates of {TABLE_DATE}")


def exact(seconds: float) -> Decimal:
    """Return the exact decimal of a measured figure, to the millionth."""
    return Decimal(f"{seconds:.6f}")


def gpu_of(wanted: str) -> tuple[str, int]:
    """Return the model and the number of ``H100:2``."""
    model, _, count = wanted.strip().upper().partition(":")
    # "A100:80GB" once named a model. The meaning of other texts is unknown here.
    return (model, int(count)) if count.isdecimal() else (wanted.strip().upper(), 1)


def region_factor(reserved: Reserved) -> Decimal:
    """Return the price factor of a container with a choice of regions."""
    return min((_NARROW if "-" in region else _BROAD for region in reserved.regions), default=Decimal(1))


def money(dollars: Decimal) -> str:
    """``$12.34``; below a cent its first two digits, ``$0.0021``."""
    if dollars == 0:
        return "$0"
    if dollars >= Decimal("0.01"):
        return f"${dollars:,.2f}"
    digits = -dollars.adjusted() + 1
    return f"${dollars:.{digits}f}"


def total(dollars: Iterable[Decimal]) -> Decimal:
    return sum(dollars, Decimal(0))
