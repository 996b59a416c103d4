"""All that the UI reads, each with its own interval: how often at most, however many users ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import modal

from modalflow.config.settings import Settings
from modalflow.control_plane import is_emulated
from modalflow.cost.rates import DATED
from modalflow.cost.recorded_call import RecordedCall
from modalflow.cost.samples import Samples
from modalflow.logs.recorded_calls import RecordedCalls
from modalflow.logs.usage_files import UsageFiles
from modalflow.operations.costs import current_rates
from modalflow.operations.inventory import RUNNING, Work, take_inventory
from modalflow.operations.site import PATIENCE, Site, open_site, read_settings, within
from modalflow.operations.spending.balances import spending_reports
from modalflow.ui.sources import airflow_rows
from modalflow.ui.sources.airflow_rows import Instance, Loss, Run, RunRows
from modalflow.ui.sources.cached import Cached, CachedByKey, Seen
from modalflow.ui.sources.live_state import LiveState
from modalflow.ui.sources.usage_sums import DAYS, UsageSums, first_day

#: Seconds between two reads of the same thing; of Modal's rates, with the usage after them.
LIVE_INTERVAL = 5.0
USAGE_INTERVAL = 30.0
LOSSES_INTERVAL = 20.0
CALLS_INTERVAL = 10.0
SAMPLES_INTERVAL = 10.0
ROWS_INTERVAL = 5.0
RATES_INTERVAL = 3600.0

#: Seconds between two passes over usage records: the process also serves Airflow.
_BREATH = 0.2

#: A pass reads at most 64 files, each with its own limit.
_PASS_SECONDS = 10 * PATIENCE

#: Seconds for the files of one run.
_CALLS_SECONDS = 2 * PATIENCE

#: Runs and task instances of which calls are kept, and how many of them are read at a time.
_MOST_CALLS, _AT_ONCE = 64, 4

#: Seconds around the times of a run in Airflow's database, because clocks differ.
_MARGIN = 3600.0


_Key = tuple[str | int, ...]


def _open() -> Site:
    return open_site(read_settings())


@dataclass(frozen=True)
class Spending:
    """The usage records as sums. They still grow until they have been read once."""

    settings: Settings
    sums: UsageSums


@dataclass
class _Reading:
    """Usage records that are read, and their sums: in one time zone, at the same prices."""

    sums: UsageSums
    files: UsageFiles = field(default_factory=lambda: UsageFiles(days=DAYS))


class Sources:
    """What one API server has read. Reads nothing before a user asks."""

    def __init__(self, open_site: Callable[[], Site] = _open) -> None:
        self._open = open_site
        self._reading: _Reading | None = None
        self._rates = DATED
        self._rates_due_at = 0.0
        self._recorded = RecordedCalls()
        self.spending: Spending | None = None
        """None before the first record."""
        self.live: Cached[LiveState] = Cached("live", self._read_live, LIVE_INTERVAL)
        self.usage: Cached[Spending] = Cached("usage", self._read_usage, USAGE_INTERVAL)
        self.losses: Cached[Sequence[Loss]] = Cached("losses", airflow_rows.losses, LOSSES_INTERVAL)
        self._calls: CachedByKey[_Key, list[RecordedCall]] = CachedByKey(
            "calls", CALLS_INTERVAL, most=_MOST_CALLS, at_once=_AT_ONCE
        )
        self._samples: CachedByKey[_Key, dict[tuple[str, str], Samples]] = CachedByKey(
            "samples", SAMPLES_INTERVAL, most=_MOST_CALLS, at_once=_AT_ONCE
        )
        self._rows: CachedByKey[_Key, RunRows] = CachedByKey("rows", ROWS_INTERVAL, most=_MOST_CALLS, at_once=_AT_ONCE)

    def site(self) -> Site:
        """Return the connection to Modal, for an action. Blocks; raises as ``open_site`` does."""
        return self._open()

    def calls_of_instance(self, instance: Instance) -> Seen[list[RecordedCall]]:
        """Return the ended calls of all tries of a task instance, with their samples."""
        key = instance.dag_id, instance.task_id, instance.run_id, instance.map_index
        began, ended = _around(instance.began_at, instance.ended_at)
        return self._calls.seen(
            key,
            (len(instance.tries), instance.state),
            lambda: within(_CALLS_SECONDS, lambda: self._recorded.of_instance(self._volume(), *key, began, ended())),
        )

    def samples_of_running(self, instance: Instance, work: Sequence[Work]) -> Seen[dict[tuple[str, str], Samples]]:
        """Return the samples of a task instance's running calls by the ids of call and container: the newest read."""
        running = [each for each in work if each.state == RUNNING and each.container_started_at]
        if not running:
            return Seen({})
        key = instance.dag_id, instance.task_id, instance.run_id, instance.map_index
        containers = [(each.container_id, each.container_started_at) for each in running]
        return self._samples.seen(
            key,
            tuple((each.function_call_id, each.container_id) for each in running),
            lambda: within(PATIENCE, lambda: self._recorded.running_samples(self._volume(), containers)),
        )

    def calls_of_run(self, run: Run) -> Seen[list[RecordedCall]]:
        """Return the ended calls of a DAG run, without samples."""
        key = run.dag_id, run.run_id
        began, ended = _around(run.began_at, run.ended_at)
        return self._calls.seen(
            key,
            run.state,
            lambda: within(_CALLS_SECONDS, lambda: self._recorded.of_run(self._volume(), *key, began, ended())),
        )

    def rows_of_run(self, run: Run) -> Seen[RunRows]:
        """Return the task instances of a run in Airflow's database."""
        key = run.dag_id, run.run_id
        return self._rows.seen(key, run.state, lambda: airflow_rows.rows_of_run(*key))

    def _volume(self) -> modal.Volume:
        site = self._open()
        return modal.Volume.from_name(site.names.logs, **site.scope)

    def _read_live(self) -> LiveState:
        site = self._open()
        inventory = take_inventory(site)
        return LiveState.of(
            inventory,
            spending_reports(site),
            local=is_emulated(),
            app=site.names.app,
            environment=site.control_plane.environment or "",
        )

    def _read_usage(self) -> Spending:
        site = self._open()
        zone = ZoneInfo(site.settings.time_zone)
        self._read_rates(site)
        reading = self._reading
        if reading is None or reading.sums.zone != zone or reading.sums.rates.hourly != self._rates.hourly:
            # All sums are in one zone and at the same prices, so the records are read again.
            reading = self._reading = _Reading(UsageSums(zone, self._rates))
        sums = reading.sums
        sums.rates = self._rates
        if self.spending is None or self.spending.sums is sums:
            # The first sums are shown while they grow, but later ones replace them when they are complete.
            self.spending = Spending(site.settings, sums)
        sums.forget_before(first_day(time.time(), zone))
        volume = modal.Volume.from_name(site.names.logs, **site.scope)
        while within(_PASS_SECONDS, lambda: reading.files.read(volume, sums.add)):
            sums.make(time.time())
            time.sleep(_BREATH)
        sums.make(time.time())
        self.spending = Spending(site.settings, sums)
        return self.spending

    def _read_rates(self, site: Site) -> None:
        if time.monotonic() < self._rates_due_at:
            return
        rates, _ = current_rates(site)
        if rates.live or not self._rates.live:
            # Prices of Modal's own are newer than the table, also if it does not report them now.
            self._rates = rates
        self._rates_due_at = time.monotonic() + RATES_INTERVAL


def _around(began: float, ended: float) -> tuple[float, Callable[[], float]]:
    """Return the first time of a search, and a function for the last one: the present for work that has not ended."""
    return max(0.0, began - _MARGIN), lambda: ended + _MARGIN if ended else time.time()
