"""The spent dollars of the whole app: usage records, read little by little, and the reports of other executors.

Reads in a thread of its own, seldom enough to need a tenth of the time at most. Publishes this executor's report.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import date, tzinfo
from decimal import Decimal

from modalflow.budgets.reported import running_of
from modalflow.budgets.spending import Running, local_day
from modalflow.budgets.spent import Spent
from modalflow.config.budgets import Budget, Per, Spender
from modalflow.cost.usage import Record
from modalflow.executor.budgets.running_costs import RunningCosts
from modalflow.executor.connection import Connection
from modalflow.executor.modal_api.blocking import in_daemon_thread
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.modal_api.usage_reader import UsageReader
from modalflow.executor.reporting.loggers import logger
from modalflow.protocol.spending_report import SPENDING, SpendingReport, SpendingRow
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds between the end of a reading and the next one, and how many times as long as the reading it is at least.
INTERVAL = 20.0
REST = 9.0
#: Seconds between two reports of this executor if other work runs, and if not: readers extrapolate. Seconds between
#: two readings of Modal's rates.
REPORT_INTERVAL = 3.0
UNCHANGED_INTERVAL = 30.0
RATES_INTERVAL = 3600.0
#: Time limit for the last report at a clean stop, in seconds.
LAST_TIMEOUT = 3.0


class SpendKeeper:
    """The dollars of ended work, and of other executors' running work."""

    def __init__(
        self,
        budgets: Sequence[Budget],
        zone: tzinfo,
        partition: str,
        connection: Connection,
        costs: RunningCosts,
        reader: UsageReader,
    ) -> None:
        self._budgets = budgets
        self._zone = zone
        self._partition = partition
        self._connection = connection
        self._costs = costs
        self._reader = reader
        self._spent = Spent(zone)
        self._early: list[Record] | None = []
        """Records read for others since the last reading; None during a reading."""
        self._lock = threading.Lock()
        if budgets:
            reader.subscribe(self._keep)
        self._sums: Mapping[Per, Mapping[Spender, Decimal]] = {per: {} for per in Per}
        self._summed_on: date | None = None
        self._others: list[SpendingReport] = []
        self._adopted_of: Collection[str] = ()
        self._rates: Mapping[Spender, float] = {}
        self._published: SpendingReport | None = None
        self._rates_read_at = -RATES_INTERVAL
        self.is_known = False
        """Whether all records were read once."""
        self.problem = ""
        """Why they could not be read the last time."""

    async def run(self) -> None:
        """Read and report until cancelled."""
        if not self._budgets:
            return await asyncio.Event().wait() and None
        await asyncio.gather(self._read_forever(), self._report_forever())

    def spent(self, now: float) -> Mapping[Per, Mapping[Spender, Decimal]]:
        """Return the dollars of ended work in the current day and month."""
        today = local_day(now, self._zone)
        if today != self._summed_on:
            self._sums, self._summed_on = self._spent.by_period(now, self._costs.rates), today
        return self._sums

    def others(self, now: float) -> dict[Spender, Running]:
        """Return the reported running costs of other executors, extrapolated to now."""
        return running_of(self._others, self._zone, now)

    def runs_work_of(self, partitions: Collection[str]) -> None:
        """Note the executors of adopted work."""
        self._adopted_of = partitions

    async def publish_last(self) -> None:
        """Report the work left running by a stop; another executor adopts it."""
        if self._budgets and self._connection.api is not None:
            try:
                async with asyncio.timeout(LAST_TIMEOUT):
                    await self._report()
            except FAILURES as error:
                log.info("The last report of running costs could not be published: %s", describe(error))

    async def read(self) -> None:
        """Read all news. Raises FAILURES, and reads the same again the next time."""
        api = self._connection.get()
        await self._read_rates()
        self._costs.reading_begins()
        await self._read_records()
        self._costs.reading_done()
        self._summed_on = None
        self._others = [each for each in await api.spending_reports() if each.partition != self._partition]
        await self._withdraw_replaced()
        self.is_known, self.problem = True, ""

    async def _withdraw_replaced(self) -> None:
        """Remove the reports of executors whose work this one has adopted: it would count twice."""
        old = time.time() - 2 * UNCHANGED_INTERVAL
        for report in [each for each in self._others if each.partition in self._adopted_of and each.published_at < old]:
            self._others.remove(report)
            await self._connection.get().withdraw(SPENDING + report.partition)

    async def _read_records(self) -> None:
        with self._lock:
            early, self._early = self._early or [], None
        try:
            self._spent.add(early, self._costs.rates)
            while await self._reader.read():
                pass
        finally:
            with self._lock:
                self._early = []

    def _keep(self, records: Sequence[Record]) -> None:
        """Add records during a reading; otherwise their work counts as just ended, until the next one."""
        with self._lock:
            if self._early is not None:
                self._early.extend(records)
                return
        self._spent.add(records, self._costs.rates)

    async def _read_rates(self) -> None:
        if time.monotonic() - self._rates_read_at >= RATES_INTERVAL:
            self._costs.use(await in_daemon_thread(self._connection.get().rates))
            self._rates_read_at = time.monotonic()

    async def _read_forever(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self.read()
            except FAILURES as error:
                self.problem = f"the records of the costs cannot be read ({describe(error)})"
                log.warning("The costs of ended work could not be read for the budgets (%s)", describe(error))
            await asyncio.sleep(max(INTERVAL, REST * (time.monotonic() - began)))

    async def _report_forever(self) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL)
            try:
                await self._report()
            except FAILURES as error:
                log.info("The report of running costs could not be published: %s", describe(error))

    async def _report(self) -> None:
        rows = tuple(
            SpendingRow(*_names(spender), float(running.day), float(running.month), self._costs.rate(spender))
            for spender, running in self._costs.of_calls.items()
            if running.month
        )
        if self._is_news(rows):
            self._published = SpendingReport(self._partition, time.time(), rows)
            await self._connection.get().publish(SPENDING + self._partition, self._published.to_json())

    def _is_news(self, rows: Sequence[SpendingRow]) -> bool:
        last = self._published
        if last is None or not last.rows or not rows:
            return bool(rows) or (last is not None and bool(last.rows))
        changed = {_rate_of(row) for row in rows} != {_rate_of(row) for row in last.rows}
        return changed or time.time() - last.published_at >= UNCHANGED_INTERVAL


def _rate_of(row: SpendingRow) -> tuple[str, str, str, float]:
    return row.dag, row.profile, row.team, row.rate


def _names(spender: Spender) -> tuple[str, str, str]:
    return spender.dag, spender.profile, spender.team
