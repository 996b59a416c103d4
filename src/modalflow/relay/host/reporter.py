"""The reports of a relay: for `modalflow status`, in a Dict, and as metrics through Airflow's stats."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import modal

from modalflow import __version__
from modalflow.errors import MalformedMessageError
from modalflow.names import Names
from modalflow.protocol.plain_data import plain_data_only
from modalflow.protocol.relay_report import RELAY, SIGN_OF_LIFE, RelayReport
from modalflow.relay.host.relay import Relay
from modalflow.support.described import describe

log = logging.getLogger(__name__)

#: Seconds between two reports, if something has changed.
INTERVAL = 10.0
#: Seconds for the removal of the report at the end.
WITHDRAWAL = 3.0
_PREFIX = "modal_executor.relay"
#: Seconds before a relay removes the report of a killed one.
_KEPT = 86_400.0

Stats = Callable[[], Any]
"""Returns an object with Airflow's ``incr``, ``gauge`` and ``timing``; None without Airflow."""


class Reporter:
    """Reports on one relay."""

    def __init__(self, relay: Relay, url: str, names: Names, stats: Stats, **scope: Any) -> None:
        """``scope`` are keyword arguments of ``modal.Dict.from_name``."""
        self._relay = relay
        self._url = url
        self._stats = stats
        self._reports: Any = modal.Dict.from_name(names.relays, create_if_missing=True, **scope)
        self._started_at = time.time()
        self._published_at = 0.0
        self._published: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._sent_seconds = (0.0, 0.0)

    async def run(self) -> None:
        """Report until cancelled."""
        await self._try(self._remove_old())
        while True:
            now, events = time.time(), Counter(self._relay.counts.events())
            if events != self._published or now - self._published_at > SIGN_OF_LIFE:
                await self._try(self._publish(now))
                self._published, self._published_at = events, now
            self._send()
            await asyncio.sleep(INTERVAL)

    async def withdraw(self) -> None:
        """Remove the report: the relay ends."""
        await self._try(self._reports.pop.aio(RELAY + self._relay.name, None), seconds=WITHDRAWAL)

    async def _try(self, call: Any, seconds: float = INTERVAL) -> None:
        try:
            async with asyncio.timeout(seconds):
                await call
        except Exception as error:  # noqa: BLE001  A report is a hint: the relay goes on.
            log.info("The relay's report could not be written: %s", describe(error))

    async def _publish(self, now: float) -> None:
        counts = self._relay.counts
        report = RelayReport(
            name=self._relay.name,
            url=self._url,
            version=__version__,
            key_id=self._relay.key_id,
            started_at=self._started_at,
            published_at=now,
            in_flight=self._relay.in_flight,
            counts=counts.events(),
            queue_seconds=counts.queue_seconds / max(counts.requests, 1),
            api_seconds=counts.api_seconds / max(counts.answered, 1),
            interval=SIGN_OF_LIFE,
        )
        await self._reports.put.aio(RELAY + report.name, report.to_json())

    async def _remove_old(self) -> None:
        with plain_data_only(lenient=True):
            items = [item async for item in self._reports.items.aio()]
        for key, text in items:
            if str(key).startswith(RELAY) and time.time() - _published_at(text) > _KEPT:
                await self._reports.pop.aio(key, None)

    def _send(self) -> None:
        """Send metrics; ignore failures."""
        try:
            stats = self._stats()
            if stats is not None:
                self._send_to(stats)
        except Exception as error:  # noqa: BLE001  Requests matter more.
            log.info("The relay's metrics could not be sent: %s", describe(error))

    def _send_to(self, stats: Any) -> None:
        counts, before = self._relay.counts, self._sent
        self._sent = Counter(counts.events())
        for name, total in self._sent.items():
            if total != before[name]:
                stats.incr(f"{_PREFIX}.{name}", total - before[name])
        stats.gauge(f"{_PREFIX}.in_flight", self._relay.in_flight)
        seconds = (counts.queue_seconds, counts.api_seconds)
        for name, counter, now, then in zip(
            ("queue_time", "api_time"), ("requests", "answered"), seconds, self._sent_seconds, strict=True
        ):
            if number := self._sent[counter] - before[counter]:
                stats.timing(f"{_PREFIX}.{name}", datetime.timedelta(seconds=(now - then) / number))
        self._sent_seconds = seconds


def _published_at(text: object) -> float:
    try:
        return RelayReport.from_json(text).published_at
    except MalformedMessageError:
        return 0.0
