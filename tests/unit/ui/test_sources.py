"""What one API server reads of usage: at Modal's newest prices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import modal
import pytest

from modalflow.config.settings import Settings
from modalflow.cost.rates import DATED, Rates
from modalflow.cost.usage import Record, Reserved
from modalflow.logs import usage_files
from modalflow.operations.site import Site
from modalflow.ui.sources import sources as module
from modalflow.ui.sources.sources import Sources, Spending
from modalflow.ui.sources.usage_sums import UsageSums
from tests.unit.logs.volume_in_memory import Volume

TODAY = datetime.now(UTC)
LIVE = Rates({name: 2 * dollars for name, dollars in DATED.hourly.items()}, "Modal's rates of today", live=True)


class World:
    """Modal's rates and Volume, and an API server that reads them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.volume = Volume()
        self.rates = DATED
        self.reads_of_rates = 0
        monkeypatch.setattr(usage_files, "_BREATH", 0)
        monkeypatch.setattr(module, "current_rates", self._current_rates)
        monkeypatch.setattr(modal, "Volume", SimpleNamespace(from_name=lambda *_, **__: self.volume))
        site = create_autospec(Site, instance=True)
        site.settings = Settings.defaults()
        site.names, site.scope = site.settings.names, {}
        self.sources = Sources(lambda: site)

    def _current_rates(self, _: Site) -> tuple[Rates, str]:
        self.reads_of_rates += 1
        return self.rates, ""

    def work(self) -> None:
        """Add the record of an hour of one core."""
        record = Record("fc-1", "ta-1", TODAY.timestamp(), "d", "t", "r", running=3600.0, occupied=3600.0)
        line = replace(record, reserved=Reserved(1.0, 0)).to_line().encode()
        self.volume.append(f"{TODAY:%Y-%m-%d}/a.jsonl", line)

    def dollars(self) -> float:
        """Return the dollars after another reading."""
        return dollars_of(self.sources._read_usage())

    def an_hour_passes(self) -> None:
        self.sources._rates_due_at = 0.0


def dollars_of(spending: Spending | None) -> float:
    assert spending is not None
    return sum(each.dollars for each in spending.sums.days(datetime.min.date())[0])


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


CORE_HOUR = float(DATED.hourly["cpu_hour_cost"])


def test_a_new_price_counts_within_the_hour(world: World) -> None:
    """For all the work of the sums, each counted once, and without a restart."""
    world.work()
    assert world.dollars() == pytest.approx(CORE_HOUR)
    world.rates = LIVE
    assert world.dollars() == pytest.approx(CORE_HOUR)
    world.an_hour_passes()
    assert world.dollars() == pytest.approx(2 * CORE_HOUR)
    world.work()
    assert world.dollars() == pytest.approx(4 * CORE_HOUR)
    assert world.reads_of_rates == 2


def test_no_request_adds_up_what_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads does it."""
    world.work()
    read = world.sources._read_usage()
    monkeypatch.setattr(UsageSums, "_whole", create_autospec(UsageSums._whole, side_effect=AssertionError))
    assert dollars_of(read) == pytest.approx(CORE_HOUR)


def test_the_same_prices_cost_no_second_reading(world: World) -> None:
    """Only their date is new, which users see."""
    world.work()
    world.rates = LIVE
    world.dollars()
    sums = world.sources._reading
    world.rates = replace(LIVE, source="Modal's rates of tomorrow")
    world.an_hour_passes()
    assert world.dollars() == pytest.approx(2 * CORE_HOUR)
    assert world.sources._reading is sums
    assert world.sources.spending is not None and world.sources.spending.sums.rates.source.endswith("tomorrow")


def test_a_modal_that_does_not_report_them_changes_no_price(world: World) -> None:
    """The table of this version is older than the prices that Modal reported an hour ago."""
    world.work()
    world.rates = LIVE
    world.dollars()
    world.rates = DATED
    world.an_hour_passes()
    assert world.dollars() == pytest.approx(2 * CORE_HOUR)


def test_the_old_sums_are_shown_while_the_new_ones_grow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user never sees half a sum, once there was a whole one; the first ones are shown as they grow."""
    world.work()
    seen: list[float] = []
    read: Any = usage_files.UsageFiles.read

    def watched(files: Any, volume: Any, keep: Any) -> bool:
        more = bool(read(files, volume, keep))
        seen.append(dollars_of(world.sources.spending))
        return more

    monkeypatch.setattr(usage_files.UsageFiles, "read", watched)
    world.dollars()
    world.rates = LIVE
    world.an_hour_passes()
    assert world.dollars() == pytest.approx(2 * CORE_HOUR)
    assert seen == pytest.approx([CORE_HOUR, CORE_HOUR])


def test_a_reading_that_fails_goes_on_where_it_was(world: World) -> None:
    """After a change of prices as well: nothing counts twice."""
    world.work()
    world.dollars()
    world.rates = LIVE
    world.an_hour_passes()
    path = next(iter(world.volume.files))
    world.volume.files[path + "x"], world.volume.mtimes[path + "x"] = world.volume.files[path], -1
    whole = world.volume.read_file

    def broken(path: str) -> Iterator[bytes]:
        if path.endswith("x"):
            raise TimeoutError
        return whole(path)

    world.volume.read_file = broken  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        world.dollars()
    assert dollars_of(world.sources.spending) == pytest.approx(CORE_HOUR)
    world.volume.read_file = whole  # type: ignore[method-assign]
    assert world.dollars() == pytest.approx(4 * CORE_HOUR)
    assert world.reads_of_rates == 2
